"""Threshold policies by name, as `efuda calibrate` leaves them in a model's directory.

`tag_policies.csv` has a line a tag and a column a policy, `inf` where the policy never predicts the tag:

    name,micro-f1,macro-f1,per-category,per-tag,p=r,precision>=0.9,precision>=0.95,precision>=0.99

`fixed=0.35` and `mcut` need nothing fitted and are there for every model; so are, in a calibrated one, the policy that
its own thresholds follow, and `per-category`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import CALIBRATED
from efuda.errors import ArtifactError, UsageError
from efuda.files import replacing
from efuda.tagging.tagger import Tagger
from efuda.vocabulary import Vocabulary

__all__ = ["MCUT", "POLICIES_FILE", "policy_names", "policy_thresholds", "write_policies"]

Thresholds = NDArray[np.float32]
POLICIES_FILE: Final = "tag_policies.csv"
MCUT: Final = "mcut"
_FIXED: Final = re.compile(r"fixed(?:=(\d*\.?\d+))?")


def policy_thresholds(tagger: Tagger, policy: str) -> Thresholds:
    """A model's thresholds under a policy, float32 [tags].

    Raises:
        UsageError: the model has no such policy; the message lists those it has.
        ArtifactError: a file of policies that is damaged or of other tags.
    """
    wanted = policy.strip().replace(" ", "")
    wanted = re.sub(r"(>=|=)0*(\.\d+)$", r"\g<1>0\2", {"global": "micro-f1"}.get(wanted, wanted))
    if found := _FIXED.fullmatch(wanted):
        return np.full(len(tagger.vocabulary), float(found[1] or 0.5), dtype=np.float32)
    known = _stored(tagger)
    if wanted not in known:
        have = ", ".join(policy_names(tagger))
        raise UsageError(
            f"{tagger.name} has no thresholds for the policy {policy!r}. It has: {have}. "
            "More come with: efuda calibrate MODEL DATASET"
        )
    return known[wanted]


def policy_names(tagger: Tagger) -> list[str]:
    """What `policy_thresholds` knows for this model, and MCut, which knows no thresholds."""
    return ["fixed=NUMBER", MCUT, *_stored(tagger)]


def write_policies(root: Path, vocabulary: Vocabulary, policies: Mapping[str, Thresholds]) -> None:
    """Store thresholds by policy, whole or not at all."""
    with replacing(root / POLICIES_FILE) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", *policies])
        for name, *numbers in zip(vocabulary.names, *policies.values(), strict=True):
            writer.writerow([name, *(f"{number:.6g}" for number in numbers)])


def _stored(tagger: Tagger) -> dict[str, Thresholds]:
    known = _per_category(tagger)
    if tagger.calibrated and (name := _own_policy(tagger.root / CALIBRATED)):
        known[name] = tagger.thresholds
    return known | _table(tagger.root / POLICIES_FILE, tagger.vocabulary)


def _table(path: Path, vocabulary: Vocabulary) -> dict[str, Thresholds]:
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        if tuple(row[0] for row in rows) != vocabulary.names:
            raise ArtifactError(f"{path} lists other tags than the model. Run efuda calibrate again.")
        values = np.array([row[1:] for row in rows], dtype=np.float32)
        return {name: values[:, column] for column, name in enumerate(header[1:])}
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Run efuda calibrate again.") from error


def _per_category(tagger: Tagger) -> dict[str, Thresholds]:
    """From `thresholds.csv`, which animetimm's models have as well; nothing where it lacks a category."""
    try:
        with (tagger.root / "thresholds.csv").open(encoding="utf-8", newline="") as file:
            by_number = {int(row["category"]): float(row["threshold"]) for row in csv.DictReader(file)}
        values = [by_number[int(tag.category)] for tag in tagger.vocabulary]
    except (OSError, KeyError, ValueError, TypeError, csv.Error):
        return {}
    return {"per-category": np.array(values, dtype=np.float32)}


def _own_policy(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["policy"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
