"""The dataset that a new one grows from: its posts keep their split, its tags stay, its pictures are copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from efuda.artifacts import Dataset
from efuda.datasets.packing import Known, read_known
from efuda.errors import InputError
from efuda.recipes import ImagesRecipe
from efuda.vocabulary import Vocabulary

__all__ = ["Base", "open_base"]


@dataclass(frozen=True)
class Base:
    """An earlier dataset.

    Attributes:
        ids: int64 [n], sorted; splits: [n], the split of each.
        metadata, images: the places it was made from.
    """

    root: Path
    digest: str
    ids: NDArray[np.int64]
    splits: NDArray[np.object_]
    counts: Mapping[str, int]
    vocabulary: Vocabulary
    metadata: Sequence[str]
    images: Sequence[str]
    image_recipe: ImagesRecipe

    def pinned(self, ids: NDArray[np.int64]) -> NDArray[np.object_]:
        """The split of each of these posts in the earlier dataset, "" where it has none."""
        at = np.searchsorted(self.ids, ids)
        at[at == len(self.ids)] = 0
        return np.where(self.ids[at] == ids, self.splits[at], "")

    def known(self) -> Known:
        """Its pictures, as they were found and packed."""
        return read_known(self.root, next(iter(self.images), ""), self.image_recipe)


def open_base(root: Path, out: Path | None) -> Base:
    """Open the dataset to extend.

    Raises:
        ArtifactError: it is not a finished dataset.
        InputError: it would be overwritten by `out`.
    """
    if out is not None and out.resolve() == root.resolve():
        raise InputError(
            f"--extend {root} and --out are the same folder: the earlier dataset stays as it is, for the runs that "
            "were trained on it. Choose another --out."
        )
    dataset = Dataset.open(root)
    if "metadata" not in dataset.marker.counts:
        raise InputError(
            f"--extend {root} does not say where its metadata lies: an earlier efuda made it. Make it anew with "
            "--overwrite from the same inputs."
        )
    table = parquet.read_table(root / "posts.parquet", columns=["id", "split"])
    ids = table["id"].to_numpy()
    order = np.argsort(ids)
    splits = np.array(table["split"].to_pylist(), dtype=object)
    return Base(
        root,
        dataset.digest,
        ids[order],
        splits[order],
        dict(dataset.marker.counts["splits"]),
        dataset.vocabulary,
        list(dataset.marker.counts["metadata"]),
        list(dataset.marker.counts["images"]),
        ImagesRecipe.model_validate(dataset.marker.recipe["images"]),
    )
