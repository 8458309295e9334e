"""The directories that stages hand to each other: a dataset, a run, a model.

Each holds `efuda.json`, written last: its existence means that the directory is complete. It says what the directory
is, which recipe and inputs made it, and how many of everything it holds. The files beside it depend on nothing but
those inputs: the same command gives the same bytes, however often it was interrupted.

    dataset = Dataset.open(Path("dataset"))
    train = dataset.posts("train")
    jpeg, tags = train.read(0), train.tags(0)        # bytes, and the outputs that should be on
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from efuda.errors import ArtifactError, ImageError, MismatchError, MissingExtra
from efuda.files import replacing, write_json
from efuda.metrics import Calibration
from efuda.places import join, read_bytes
from efuda.preprocess import Preprocess
from efuda.vocabulary import Category, Tag, Vocabulary

__all__ = [
    "CALIBRATED",
    "CALIBRATION",
    "FORMAT",
    "MARKER",
    "OTHER_HEAD",
    "THRESHOLDS",
    "Dataset",
    "Marker",
    "Model",
    "Posts",
    "Run",
    "TagThreshold",
    "check_same_vocabulary",
    "has_marker",
]

MARKER: Final = "efuda.json"
FORMAT: Final = 1
THRESHOLDS: Final = "tag_thresholds.csv"
OTHER_HEAD: Final = "other_head.npz"
CALIBRATION: Final = "calibration.npz"
CALIBRATED: Final = "calibration.json"
_MEASURED: Final = ("precision", "recall", "f1", "precision_low", "precision_high", "f1_low", "f1_high")

_NEXT: Final = {
    "dataset": "make one with: efuda prepare METADATA --images DIR --out DATASET",
    "run": "make one with: efuda train DATASET --out RUN --recipe RECIPE",
    "model": "make one with: efuda export RUN --out MODEL",
}


class Marker(BaseModel):
    """The contents of `efuda.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    format: int = FORMAT
    efuda: str = Field(description="the version that wrote it")
    inputs: Mapping[str, str] = Field(description="what it was made from: name → digest")
    recipe: Mapping[str, Any] = Field(description="the resolved recipe, every key")
    counts: Mapping[str, Any] = {}

    @classmethod
    def read(cls, root: Path, kind: str) -> Self:
        """Raises ArtifactError where `root` is not a complete directory of this kind."""
        path = root / MARKER
        if not root.is_dir():
            raise ArtifactError(f"{root} is not a directory; {_NEXT[kind]}")
        if not path.is_file():
            raise ArtifactError(
                f"{root} is not a finished {kind} (no {MARKER}): run the command that makes it again, "
                f"it goes on where it stopped; or {_NEXT[kind]}"
            )
        try:
            marker = cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ArtifactError(f"{path} is damaged ({_first_line(error)}); {_NEXT[kind]}") from error
        if marker.kind != kind:
            raise ArtifactError(f"{root} is a {marker.kind}, not a {kind}; {_NEXT[kind]}")
        if marker.format > FORMAT:
            raise ArtifactError(
                f"{root} has format {marker.format}, newer than this efuda reads ({FORMAT}): update efuda."
            )
        return marker

    def write(self, root: Path) -> None:
        """Declare `root` complete."""
        write_json(root / MARKER, self.model_dump(mode="json"))


def has_marker(root: Path) -> bool:
    """Whether a stage has finished here."""
    return (root / MARKER).is_file()


@dataclass(frozen=True)
class Posts:
    """Some posts of a dataset, as columns; `n` posts.

    Attributes:
        ids: int64 [n].
        images: the first images folder.
        paths: where each picture was found, relative to that folder; whole where it lay elsewhere.
        shard: int32 [n], the number of the tar shard, −1 for pictures kept in place.
        offset, length: int64 [n], the picture's bytes within its shard.
        starts, indices: sparse labels: post i carries tags `indices[starts[i]:starts[i + 1]]`, sorted.
    """

    root: Path
    images: Path
    ids: NDArray[np.int64]
    paths: Sequence[str]
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    starts: NDArray[np.int64]
    indices: NDArray[np.int32]
    _files: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def tags(self, post: int) -> NDArray[np.int32]:
        """The outputs that should be on for this post."""
        return self.indices[self.starts[post] : self.starts[post + 1]]

    def labels(self, posts: Sequence[int], tags: int) -> NDArray[np.bool_]:
        """Dense labels [len(posts), tags] of these posts."""
        dense = np.zeros((len(posts), tags), dtype=np.bool_)
        for row, post in enumerate(posts):
            dense[row, self.tags(post)] = True
        return dense

    def picture_path(self, post: int) -> Path:
        """The original file, whether or not a resized copy stands in a shard."""
        return self.images / self.paths[post]

    def read(self, post: int) -> bytes:
        """The bytes of the picture file: one `pread` from a shard, or the file in place.

        Raises:
            ImageError: it is no longer there.
        """
        shard = int(self.shard[post])
        try:
            if shard < 0:
                return read_bytes(join(str(self.images), self.paths[post]))
            return os.pread(self._file(shard), int(self.length[post]), int(self.offset[post]))
        except OSError as error:
            raise ImageError(f"cannot be read ({error.strerror})", self.paths[post]) from error

    def _file(self, shard: int) -> int:
        descriptor = self._files.get(shard)
        if descriptor is None:
            descriptor = self._files[shard] = os.open(self.root / "shards" / f"{shard:06d}.tar", os.O_RDONLY)
        return descriptor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # a loader process opens its own


@dataclass(frozen=True)
class Dataset:
    """`posts.parquet`, `tags.parquet`, `rejected.parquet`, `shards/`, `funnel.json`, `report.html`: docs/formats.md."""

    root: Path
    marker: Marker
    vocabulary: Vocabulary

    @classmethod
    def open(cls, root: Path) -> Self:
        """Raises ArtifactError where `root` is not a complete dataset."""
        marker = Marker.read(root, "dataset")
        table = _parquet(root / "tags.parquet").to_pydict()
        tags = [Tag(*row) for row in zip(table["name"], map(Category, table["category"]), table["count"], strict=True)]
        return cls(root, marker, Vocabulary(tags))

    @property
    def digest(self) -> str:
        """Changes when any post, label, split or tag does."""
        return str(self.marker.counts["digest"])

    def aliases(self) -> dict[str, str]:
        """Other name → tag, for the tags of the vocabulary, as far as aliases were known when it was made."""
        table = _parquet(self.root / "tags.parquet").to_pydict()
        columns = zip(table["name"], table.get("aliases", [[]] * len(table["name"])), strict=True)
        return {alias: name for name, others in columns for alias in others or ()}

    @cached_property
    def funnel(self) -> dict[str, int]:
        """Step → how many were left after it."""
        loaded: dict[str, int] = json.loads((self.root / "funnel.json").read_text(encoding="utf-8"))
        return loaded

    def _images(self) -> Path:
        folders = self.marker.counts["images"]  # a list; before there could be several, the one folder
        return Path(folders if isinstance(folders, str) else next(iter(folders), "/"))

    def posts(self, split: str) -> Posts:
        """The posts of one split, in the dataset's order.

        Raises:
            ArtifactError: there is no such split, or it is empty.
        """
        table = _parquet(self.root / "posts.parquet")
        table = table.filter([name == split for name in table["split"].to_pylist()])
        if not len(table):
            have = ", ".join(f"{name} ({count:,})" for name, count in self.marker.counts["splits"].items())
            raise ArtifactError(f"{self.root} has no posts in the split {split!r}. It has: {have}.")
        labels = table["tags"].combine_chunks()
        starts = labels.offsets.to_numpy().astype(np.int64)
        return Posts(
            root=self.root,
            images=self._images(),
            ids=table["id"].to_numpy(),
            paths=table["path"].to_pylist(),
            shard=table["shard"].to_numpy(),
            offset=table["offset"].to_numpy(),
            length=table["length"].to_numpy(),
            starts=starts - starts[0],
            indices=labels.flatten().to_numpy().astype(np.int32),
        )


@dataclass(frozen=True)
class Run:
    """`recipe.toml`, `selected_tags.csv`, `log.jsonl`, `checkpoints/`, `report.html`."""

    root: Path
    marker: Marker
    vocabulary: Vocabulary

    @classmethod
    def open(cls, root: Path) -> Self:
        """Raises ArtifactError where `root` is not a complete run."""
        return cls(root, Marker.read(root, "run"), Vocabulary.read_csv(root / "selected_tags.csv"))

    @property
    def dataset(self) -> Path:
        """The dataset it was trained on."""
        return Path(self.marker.counts["dataset"])

    def checkpoint(self, name: str = "best") -> Path:
        """`best` (by the recipe's metric on validation) or `last`."""
        path = self.root / "checkpoints" / f"{name}.pt"
        if not path.is_file():
            raise ArtifactError(f"{self.root} has no checkpoint {name!r}; use best or last.")
        return path

    def log(self) -> list[dict[str, Any]]:
        """One entry an epoch."""
        return [json.loads(line) for line in (self.root / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True, slots=True)
class TagThreshold:
    """Where one tag is said to be present, fitted on validation; `positives` is the support it was fitted on.

    Attributes:
        threshold: infinite where no threshold keeps what the policy asks for: the tag is never predicted.
        precision_low, precision_high, f1_low, f1_high: 95 % intervals on validation; NaN where they are not known.
    """

    name: str
    threshold: float
    positives: int
    precision: float
    recall: float
    f1: float
    precision_low: float = float("nan")
    precision_high: float = float("nan")
    f1_low: float = float("nan")
    f1_high: float = float("nan")


@dataclass(frozen=True)
class Model:
    """A WD model directory (`model.onnx`, `selected_tags.csv`) and what more efuda knows (docs/formats.md)."""

    root: Path
    marker: Marker
    vocabulary: Vocabulary
    preprocess: Preprocess

    @classmethod
    def open(cls, root: Path) -> Self:
        """Raises ArtifactError where `root` is not a complete efuda model; other taggers are for `tagging.Tagger`."""
        marker = Marker.read(root, "model")
        selected = Vocabulary.read_csv(root / "selected_tags.csv")
        tags = [*selected][4 if marker.counts["padded_ratings"] else 0 :]
        if (others := root / "other_tags.csv").is_file():
            tags += Vocabulary.read_csv(others)
        if len(tags) != marker.counts["tags"]:
            raise MismatchError(
                f"{root}: the tag list has {len(tags)} tags, the model {marker.counts['tags']} outputs. "
                "Restore selected_tags.csv or export the run again."
            )
        return cls(root, marker, Vocabulary(tags), Preprocess.model_validate(marker.counts["preprocess"]))

    def thresholds(self) -> list[TagThreshold] | None:
        """One a tag, in output order, or None before `efuda calibrate`."""
        path = self.root / THRESHOLDS
        if not path.is_file():
            return None
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                TagThreshold(
                    row["name"],
                    float(row["threshold"]),
                    int(row["positives"]),
                    *(float(row.get(key) or "nan") for key in _MEASURED),
                )
                for row in csv.DictReader(file)
            ]
        if tuple(row.name for row in rows) != self.vocabulary.names:
            raise MismatchError(f"{path} lists other tags than the model. Run: efuda calibrate {self.root} DATASET")
        return rows

    def calibrated_on(self) -> str | None:
        """The split that the thresholds were fitted on; None before `efuda calibrate`."""
        if not (self.root / THRESHOLDS).is_file():
            return None
        path = self.root / CALIBRATED
        if not path.is_file():
            return "validation"  # models calibrated before there was a choice
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["split"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is damaged ({error}). Run: efuda calibrate {self.root} DATASET") from error

    def calibration(self) -> Calibration | None:
        """What turns scores into probabilities; None before `efuda calibrate`, or where it was told not to fit it.

        Raises:
            ArtifactError: the file is damaged.
            MismatchError: it belongs to other tags.
        """
        path = self.root / CALIBRATION
        if not path.is_file() or not (self.root / THRESHOLDS).is_file():  # a new export takes the thresholds away
            return None
        found = Calibration.read(path)
        if found.names != self.vocabulary.names:
            raise MismatchError(f"{path} lists other tags than the model. Run: efuda calibrate {self.root} DATASET")
        return found

    def write_thresholds(self, rows: Sequence[TagThreshold]) -> None:
        """Store what `calibrate` fitted, whole or not at all."""
        with replacing(self.root / THRESHOLDS) as beside, beside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["name", "category", "threshold", "positives", *_MEASURED])
            for tag, row in zip(self.vocabulary, rows, strict=True):
                numbers = [f"{getattr(row, name):.6g}" for name in _MEASURED]
                writer.writerow([row.name, int(tag.category), f"{row.threshold:.6g}", row.positives, *numbers])


def check_same_vocabulary(one: Vocabulary, other: Vocabulary, what: str, mend: str) -> None:
    """Refuse to go on with two directories whose tags differ.

    Raises:
        MismatchError: naming what differs and what to do.
    """
    if one != other:
        raise MismatchError(f"{what} do not have the same tags: {one.difference(other)}. {mend}")


def _parquet(path: Path) -> Any:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise MissingExtra("Reading a dataset", "train", "pyarrow") from error
    try:
        return parquet.read_table(path)
    except (OSError, arrow.ArrowException) as error:
        raise ArtifactError(f"{path} cannot be read ({_first_line(error)}); {_NEXT['dataset']}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
