"""Checkpoints: everything the next step depends on, the last few of them; and whether a run may go on with them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch

from efuda.artifacts import Dataset
from efuda.errors import ArtifactError, MismatchError
from efuda.files import replacing
from efuda.recipes import Recipe
from efuda.vocabulary import Vocabulary

__all__ = ["changes", "check_agrees", "deciding", "identity", "load_last", "save", "save_best"]

_UNDECIDING: Final = ("workers", "checkpoint_minutes", "keep", "trackers")


def save(folder: Path, step: int, state: Mapping[str, Any], keep: int) -> None:
    """Write `step-N.pt`, let `last.pt` be the same file, and remove all but the last `keep`."""
    path = folder / f"step-{step:09d}.pt"
    with replacing(path) as beside:
        torch.save(dict(state), beside)
    link = folder / f".last.pt.{os.getpid()}.part"
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without links
        shutil.copyfile(path, link)
    os.replace(link, folder / "last.pt")
    for old in sorted(folder.glob("step-*.pt"))[:-keep]:
        with suppress(OSError):
            old.unlink()


def save_best(folder: Path, state: Mapping[str, Any]) -> None:
    """Write `best.pt`."""
    with replacing(folder / "best.pt") as beside:
        torch.save(dict(state), beside)


def load_last(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The last checkpoint, None where there is none.

    Raises:
        ArtifactError: it cannot be read; an earlier one is named.
    """
    path = folder / "last.pt"
    if not path.is_file():
        return None
    try:
        loaded: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises classes without a common base
        earlier = [one.name for one in sorted(folder.glob("step-*.pt")) if not one.samefile(path)][-1:]
        mend = f"copy {earlier[0]} over it" if earlier else "remove it to begin anew"
        raise ArtifactError(f"{path} cannot be read ({type(error).__name__}): {mend}, and run again.") from error
    return loaded


def identity(dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """What a run was made from, for `check_agrees`."""
    return {
        "vocabulary": dataset.vocabulary.digest,
        "dataset": dataset.digest,
        "splits": dict(dataset.marker.counts["splits"]),
        "recipe": deciding(recipe),
    }


def check_agrees(out: Path, state: str, was: Mapping[str, Any], dataset: Dataset, recipe: Recipe) -> None:
    """Refuse to go on in `out` with anything else than it was made from.

    Args:
        state: "begun" or "finished", for the message.
        was: its `identity`.

    Raises:
        MismatchError: naming what differs.
    """
    another = "Train into another --out, or give back what changed."
    begun = f"{out} was {state}"
    if was["vocabulary"] != dataset.vocabulary.digest:
        tags = Vocabulary.read_csv(out / "selected_tags.csv").difference(dataset.vocabulary)
        raise MismatchError(f"{begun} with other tags than {dataset.root} has now: {tags}. {another}")
    if was["dataset"] != dataset.digest:
        now = dataset.marker.counts["splits"]
        named = [
            f"{was['splits'].get(name, 0):,} posts of {name} became {now.get(name, 0):,}"
            for name in sorted({*was["splits"], *now})
            if was["splits"].get(name) != now.get(name)
        ]
        what = ", ".join(named) or "as many, but their labels, pictures or splits changed"
        raise MismatchError(f"{begun} with other posts than {dataset.root} has now: {what}. {another}")
    if changed := changes(was["recipe"], recipe):
        raise MismatchError(f"{begun} with another recipe: {', '.join(changed)} changed. {another}")


def changes(before: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """The keys, as `section.key`, that decide the weights and had another value before."""
    return sorted(
        f"{section}.{key}"
        for section, keys in deciding(recipe).items()
        for key in keys
        if before.get(section, {}).get(key) != keys[key]
    )


def deciding(recipe: Recipe) -> dict[str, Any]:
    """What decides the weights; the number of workers and the pace of checkpoints do not."""
    sections = recipe.model_dump(mode="json", include={"model", "labels", "augment", "loss", "train"})
    for key in _UNDECIDING:
        del sections["train"][key]
    return sections
