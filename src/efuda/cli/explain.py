"""Why a tag: heat maps of one picture, as PNG files and as data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from efuda.cli.console import output
from efuda.cli.measuring import place
from efuda.errors import UsageError

__all__ = ["explain", "register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(explain)


def explain(
    picture: Annotated[Path, typer.Argument(help="One picture.", show_default=False)],
    tags: Annotated[list[str], typer.Argument(help="Tags to explain, present or not.", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="A model directory: efuda's own or a WD tagger.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The PNG to write; PICTURE.heat.png here by default. Several tags: each adds its name."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="activation or occlusion.", show_default="activation where its map is fine enough"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show where in a picture a tag was seen: a heat map over the picture.

    A model that ends in the mean of a feature map and a linear layer is asked once, and its map is exact. Where that
    map is coarse, and for any other model, parts of the picture are covered in turn, which takes some hundred runs; how
    many is said before it starts.
    """
    from efuda.files import replacing
    from efuda.images import read_rgb
    from efuda.tagging import Tagger
    from efuda.tagging.explaining import Explainer, overlay

    if method not in (None, "activation", "occlusion"):
        raise UsageError(f"No method {method!r}: choose activation or occlusion.")
    target = out or Path(f"{picture.stem}.heat.png")
    if target.suffix.lower() != ".png":
        raise UsageError(f"--out {target}: a heat map is a PNG. Choose a name that ends in .png.")
    wanted: Any = method
    tagger = Tagger.open(place(model))
    explainer, image = Explainer(tagger), read_rgb(picture)
    runs = explainer.runs(image, wanted)
    if runs > 1:
        output.say(f"By occlusion: {runs:,} runs of the model.")
    with output.progress() as progress:
        found = explainer.explain(image, tags, method=wanted, progress=progress)
    rows, lines = list[dict[str, Any]](), list[str]()
    for one in found:
        path = target if len(found) == 1 else target.with_name(f"{target.stem}-{_safe(one.tag)}{target.suffix}")
        with replacing(path) as beside:
            overlay(image, one).save(beside, "PNG")
        threshold = float(tagger.thresholds[tagger.vocabulary.index[one.tag]])
        rows.append({**one.data(), "threshold": round(threshold, 6) if threshold <= 1 else None, "out": str(path)})
        low = "" if one.score >= threshold else f", below its threshold {threshold:.3f}"
        lines.append(f"{one.tag} {one.score:.3f}{low}: by {one.method}, hottest at {one.peak}, {path}")
    output.result(rows, as_json=json, text="\n".join(lines))


def _safe(tag: str) -> str:
    """A tag as part of a file's name."""
    return re.sub(r"[^\w.()+-]", "_", tag)
