"""A tagger that says what a test tells it to say, and files for it to have seen: real data, no model run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from efuda.preprocess import Preprocess
from efuda.tagging import Tagged, Tagger
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

SIGNATURES = {
    ".jpg": b"\xff\xd8\xff\xe0",
    ".png": b"\x89PNG\r\n\x1a\n",
    ".gif": b"GIF89a",
    ".webp": b"RIFF\0\0\0\0WEBP",
    ".bmp": b"BM",
    ".avif": b"\0\0\0\x20ftypavif",
    ".tif": b"II*\0",
}


def make_tagger(root: Path, tags: Sequence[str | Tag], *, ratings: bool = True, threshold: float = 0.35) -> Tagger:
    """A tagger in `root` whose identity comes from its name."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "model.onnx").write_bytes(root.name.encode())
    named = [Tag(name, Category.RATING) for name in RATINGS] if ratings else []
    named += [tag if isinstance(tag, Tag) else Tag(tag) for tag in tags]
    thresholds = np.full(len(named), threshold, dtype=np.float32)
    return Tagger.of(root, Vocabulary(named), Preprocess(size=16), thresholds, True, "efuda", None, None, "output", 0)


def make_file(path: Path, content: bytes = b"", size: int = 0) -> Path:
    """A file that begins as its suffix says; `content` makes it different from others, `size` its length in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((SIGNATURES[path.suffix] + b" " + (content or os.fsencode(path.name))).ljust(size, b"\0"))
    return path


def tagged(tagger: Tagger, path: Path, scores: Mapping[str, float], size: tuple[int, int] = (640, 480)) -> Tagged:
    """What `tag` would yield if the model gave these scores, and 0 to every other tag."""
    row = np.zeros(len(tagger.vocabulary), dtype=np.float32)
    for name, score in scores.items():
        row[tagger.vocabulary.index[name]] = score
    return Tagged.of(path, size, row)
