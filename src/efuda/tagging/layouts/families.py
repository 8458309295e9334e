"""What each family of taggers puts in a directory, and how to read it: one function a family.

The numbers are those that the families publish; each says where. Thresholds are compared with >=.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from efuda.errors import ArtifactError, MismatchError
from efuda.preprocess import Preprocess
from efuda.tagging.layouts import taglists
from efuda.tagging.layouts.stages import read_stages
from efuda.vocabulary import Category, Vocabulary

__all__ = ["FAMILIES", "Family", "Layout"]


@dataclass(frozen=True)
class Layout:
    """What a directory says of its model, before the model is loaded.

    Attributes:
        family: a name of `FAMILIES`.
        weights: `*.onnx` or `model.safetensors`.
        tag_list: where the tags stand, for messages.
        thresholds: float32 [tags].
        calibrated: whether the thresholds were fitted, tag by tag or category by category, and came with the model.
        logits: whether the output holds logits; one that is named logits always does.
        outputs: names, or parts of them, of the output to take, best first; the first output where none is there.
    """

    family: str
    weights: Path
    tag_list: Path
    vocabulary: Vocabulary
    preprocess: Preprocess
    thresholds: NDArray[np.float32]
    calibrated: bool = False
    logits: bool = True
    outputs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What people call the family."""
        return next(family.title for family in FAMILIES if family.name == self.family)


class _Read(Protocol):
    def __call__(self, root: Path, weights: Path) -> Layout: ...


@dataclass(frozen=True)
class Family:
    """How to know a family's directory, and which of its files are needed.

    Attributes:
        tag_list: a pattern of the file that only this family has.
        unless: a file that makes it another family after all.
        weights: the names its weights go by, best first; any other single `*.onnx` will do.
        also: patterns of further files that are read.
        torch: whether `model.safetensors` will do where there is no ONNX file.
    """

    name: str
    title: str
    tag_list: str
    read: _Read
    unless: str = ""
    needs: str = ""
    weights: tuple[str, ...] = ("model.onnx",)
    also: tuple[str, ...] = ()
    torch: bool = False

    def recognises(self, names: Collection[str]) -> bool:
        """Whether a directory with files of these names is of this family."""
        has = {pattern: any(fnmatch(name, pattern) for name in names) for pattern in (self.tag_list, self.needs)}
        return has[self.tag_list] and (not self.needs or has[self.needs]) and self.unless not in names


def _wd(root: Path, weights: Path) -> Layout:
    """WD v1.4–v3: the rows' order is the outputs'. imgutils and ComfyUI-WD14-Tagger use 0.35 and 0.85."""
    path = root / "selected_tags.csv"
    tags = taglists.read_selected_tags(path)
    preprocess = Preprocess()
    if weights.suffix == ".safetensors":  # by timm: RGB turned to BGR, −1 to 1 (the author's own example)
        half = (0.5, 0.5, 0.5)
        preprocess = Preprocess(size=_timm_size(root), layout="nchw", mean=half, std=half)
    thresholds = _by_category(tags, {Category.GENERAL: 0.35, Category.CHARACTER: 0.85}, 0.5)
    return Layout("wd", weights, path, tags, preprocess, thresholds, logits=False)


def _animetimm(root: Path, weights: Path) -> Layout:
    """animetimm, and copies that imgutils reads: best_threshold, else the category's, else 0.4, as imgutils does."""
    path, categories, fitted = (root / name for name in ("selected_tags.csv", "categories.json", "thresholds.csv"))
    tags = taglists.read_selected_tags(path, categories if categories.is_file() else None)
    by_category = taglists.category_thresholds(fitted) if fitted.is_file() else {}
    best = taglists.best_thresholds(path)
    known = ~np.isnan(best)
    thresholds = np.where(known, best, _by_category(tags, by_category, 0.4))
    outputs = ("prediction", "output", "logits")
    preprocess = read_stages(root / "preprocess.json")
    calibrated = bool(known.any() or by_category)
    return Layout("animetimm", weights, path, tags, preprocess, thresholds, calibrated, logits=False, outputs=outputs)


def _cl_tagger(root: Path, weights: Path) -> Layout:
    """cl_tagger v1; 0.55 and, for what has a name of its own, 0.6 are defaults of its clients, which differ (0.35–0.6).

    Clients report only the best quality and the best rating; efuda treats quality as any other meta tag.
    """
    path = root / "tag_mapping.json"
    tags = taglists.read_tag_mapping(path)
    half = (0.5, 0.5, 0.5)
    named = dict.fromkeys((Category.CHARACTER, Category.COPYRIGHT, Category.ARTIST), 0.6)
    preprocess = Preprocess(layout="nchw", mean=half, std=half)
    return Layout("cl_tagger", weights, path, tags, preprocess, _by_category(tags, named, 0.55))


def _cl_tagger_v2(root: Path, weights: Path) -> Layout:
    """cl_tagger v2: SigLIP2, so RGB; 0.55 is its default."""
    path = root / "model_vocabulary.json"
    tags = taglists.read_vocabulary_json(path)
    half = (0.5, 0.5, 0.5)
    preprocess = Preprocess(size=384, channels="rgb", layout="nchw", mean=half, std=half)
    return Layout("cl_tagger_v2", weights, path, tags, preprocess, _by_category(tags, {}, 0.55), outputs=("logits",))


def _camie(root: Path, weights: Path) -> Layout:
    """Camie v2; 0.492 favours macro F1 and is what clients take; others take 0.61, for micro F1."""
    path = next(iter(sorted(root.glob("camie*-metadata.json"))))
    tags, size = taglists.read_camie(path)
    preprocess = Preprocess(
        size=size,
        fit="letterbox",
        interpolation="lanczos",
        pad=(124, 116, 104),
        channels="rgb",
        layout="nchw",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    return Layout("camie", weights, path, tags, preprocess, _by_category(tags, {}, 0.492), outputs=("refined",))


def _joytag(root: Path, weights: Path) -> Layout:
    """JoyTag; 0.4 is its README's threshold, and its numbers are CLIP's."""
    path = root / "top_tags.txt"
    tags = taglists.read_top_tags(path)
    preprocess = Preprocess(
        size=_joytag_size(root),
        channels="rgb",
        layout="nchw",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )
    return Layout("joytag", weights, path, tags, preprocess, _by_category(tags, {}, 0.4))


def _deepdanbooru(root: Path, weights: Path) -> Layout:
    """A DeepDanbooru project turned to ONNX; 0.5 is the default of its evaluate command."""
    path, categories, characters, project = (
        root / name for name in ("tags.txt", "categories.json", "tags-character.txt", "project.json")
    )
    tags = taglists.read_deepdanbooru(
        path, categories if categories.is_file() else None, characters if characters.is_file() else None
    )
    size = _side(project, "image_width", 512) if project.is_file() else 512
    preprocess = Preprocess(size=size, fit="area", channels="rgb", std=(1.0, 1.0, 1.0))
    return Layout("deepdanbooru", weights, path, tags, preprocess, _by_category(tags, {}, 0.5), logits=False)


def _ml_danbooru(root: Path, weights: Path) -> Layout:
    """ML-Danbooru: stretched, as its README's command does, to 640 pixels (448 for CAFormer); 0.7 is from there too."""
    path = root / "class.json"
    preprocess = Preprocess(
        size=448 if "caformer" in weights.name.lower() else 640,
        fit="squash",
        interpolation="bilinear",
        channels="rgb",
        layout="nchw",
        std=(1.0, 1.0, 1.0),
    )
    tags = taglists.read_class_json(path)
    return Layout("ml-danbooru", weights, path, tags, preprocess, _by_category(tags, {}, 0.7))


FAMILIES: Final = (
    Family("wd", "WD", "selected_tags.csv", _wd, unless="preprocess.json", also=("config.json",), torch=True),
    Family(
        "animetimm",
        "animetimm",
        "selected_tags.csv",
        _animetimm,
        needs="preprocess.json",
        also=("preprocess.json", "categories.json", "thresholds.csv", "config.json"),
        torch=True,
    ),
    Family(
        "cl_tagger",
        "cl_tagger v1",
        "tag_mapping.json",
        _cl_tagger,
        unless="model_vocabulary.json",
        weights=("model_optimized.onnx", "model.onnx"),
    ),
    Family("cl_tagger_v2", "cl_tagger v2", "model_vocabulary.json", _cl_tagger_v2),
    Family(
        "camie",
        "Camie v2",
        "camie*-metadata.json",
        _camie,
        weights=("camie-tagger-v2.onnx", "model.onnx"),
    ),
    Family("joytag", "JoyTag", "top_tags.txt", _joytag, also=("config.json",), torch=True),
    Family(
        "deepdanbooru",
        "DeepDanbooru",
        "tags.txt",
        _deepdanbooru,
        also=("project.json", "categories.json", "tags-character.txt"),
    ),
    Family("ml-danbooru", "ML-Danbooru", "class.json", _ml_danbooru),
)


def _by_category(tags: Vocabulary, thresholds: Mapping[Category, float], others: float) -> NDArray[np.float32]:
    return np.array([thresholds.get(tag.category, others) for tag in tags], dtype=np.float32)


def _timm_size(root: Path) -> int:
    path = root / "config.json"
    if not path.is_file():
        raise ArtifactError(f"{root} holds a model.safetensors but no config.json, which says what network it is.")
    try:
        size: Any = taglists.read_json(path)["pretrained_cfg"]["input_size"][-1]
    except (KeyError, TypeError, IndexError) as error:
        raise ArtifactError(f"{path} does not say the input's size (pretrained_cfg.input_size).") from error
    return _checked(path, size)


def _joytag_size(root: Path) -> int:
    path = root / "config.json"
    return _side(path, "image_size", 448) if path.is_file() else 448


def _side(path: Path, key: str, default: int) -> int:
    loaded = taglists.read_json(path)
    return _checked(path, loaded.get(key, default) if isinstance(loaded, dict) else None)


def _checked(path: Path, size: Any) -> int:
    if not isinstance(size, int) or not 16 <= size <= 4096:
        raise MismatchError(f"{path}: {size!r} is not the side of a picture. Fetch or copy the model again.")
    return size
