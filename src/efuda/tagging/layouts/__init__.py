"""Which family a model directory is of, told by its files, and what it says of its model.

layout = detect(Path("wd-vit-tagger-v3"))     # or the .onnx file itself
layout.family, layout.vocabulary, layout.preprocess, layout.thresholds
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from efuda.errors import ArtifactError
from efuda.tagging.layouts.families import FAMILIES, Family, Layout

__all__ = ["FAMILIES", "SAFETENSORS", "Family", "Layout", "choose_weights", "detect", "recognise"]

SAFETENSORS: Final = "model.safetensors"


def detect(place: Path) -> Layout:
    """Read what a directory, or the directory around a file of weights, says of its model.

    Raises:
        ArtifactError: it is of no family, of several, or its files are damaged; saying what was found.
    """
    root = place.parent if place.is_file() else place
    if not root.is_dir():
        raise ArtifactError(
            f"{place} does not exist. Name a model's directory, hf://OWNER/NAME, or a name that efuda models lists."
        )
    names = sorted(path.name for path in root.iterdir() if path.is_file())
    family = recognise(names, str(root))
    weights = place if place.is_file() else root / choose_weights(family, names, str(root))
    return family.read(root, weights)


def recognise(names: Collection[str], where: str) -> Family:
    """The one family whose directories hold files of these names."""
    found = [family for family in FAMILIES if family.recognises(names)]
    if len(found) == 1:
        return found[0]
    if found:
        marks = ", ".join(f"{family.tag_list} ({family.title})" for family in found)
        raise ArtifactError(f"{where} could be several models: it holds {marks}. Keep each in a directory of its own.")
    known = "; ".join(f"{family.title} by {_marks(family)}" for family in FAMILIES)
    if not any(name.endswith((".onnx", ".safetensors")) for name in names):
        raise ArtifactError(
            f"{where} holds no model.onnx or other weights{_some(names)}. "
            "Make a model with efuda export, or name the directory of a tagger."
        )
    raise ArtifactError(
        f"{where} holds a model but no selected_tags.csv or other tag list that efuda knows, so its outputs have no "
        f"names{_some(names)}. Layouts are told by their files: {known}."
    )


def choose_weights(family: Family, names: Collection[str], where: str) -> str:
    """The file of weights to load: a name of the family's, else the only one."""
    usual = [name for name in family.weights if name in names]
    others = sorted(name for name in names if name.endswith(".onnx"))
    if usual or len(others) == 1:
        return (usual or others)[0]
    if others:
        raise ArtifactError(
            f"{where} holds several models: {', '.join(others)}. Name one of them, as {where.rstrip('/')}/{others[0]}"
        )
    if SAFETENSORS not in names:
        raise ArtifactError(f"{where} holds no {family.weights[0]}: its files are those of {family.title}, unfinished.")
    if not family.torch:
        raise ArtifactError(
            f"{where} holds {family.title} only as {SAFETENSORS}, whose network efuda cannot build. "
            f"Put the ONNX file beside it, as {family.weights[0]}."
        )
    return SAFETENSORS


def _marks(family: Family) -> str:
    return f"{family.tag_list} and {family.needs}" if family.needs else family.tag_list


def _some(names: Collection[str]) -> str:
    listed = sorted(names)
    if not listed:
        return " (it is empty)"
    return f" (found: {', '.join(listed[:8])}{', …' if len(listed) > 8 else ''})"
