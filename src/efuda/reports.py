"""Self-contained HTML reports: text, figures, tables that sort and filter, grids of pictures, all in one file.

report = Report("Training run", "12 epochs on 2,900 pictures")
report.figure("Loss", line_plot({"train": (epochs, losses)}, x="epoch", y="loss"))
report.table("Tags", ["tag", "F1"], [["glasses", 0.91]])
report.write(Path("report.html"))
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from PIL import Image

from efuda.errors import MissingExtra
from efuda.files import write_text

__all__ = ["Chip", "Picture", "Report", "bar_plot", "line_plot"]

Series = tuple[Sequence[float], Sequence[float]]
_INK: Final = "#010203"  # replaced by the page's text colour, so that figures follow dark and light
_COLOURS: Final = ("#e0457b", "#3d7de0", "#e08f2c", "#2f9e6e", "#8a63d2", "#7b8794")


@dataclass(frozen=True, slots=True)
class Chip:
    """A tag under a picture: a "hit", a "miss" (true, not predicted), "extra" (predicted, not true) or "plain"."""

    text: str
    kind: str = "plain"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a grid: `image` is shown small, with a title and tags."""

    image: Image.Image
    title: str
    chips: Sequence[Chip] = ()


@dataclass
class Report:
    """Sections in the order they were added."""

    title: str
    subtitle: str = ""
    sections: list[dict[str, Any]] = field(default_factory=list)

    def facts(self, title: str, facts: Mapping[str, object]) -> None:
        """A row of large numbers."""
        self._add("facts", title, facts={name: _text(value) for name, value in facts.items()})

    def text(self, title: str, *paragraphs: str) -> None:
        """Plain paragraphs; anything that looks like HTML is shown as it is written."""
        self._add("text", title, paragraphs=paragraphs)

    def figure(self, title: str, *svgs: str, caption: str = "") -> None:
        """One or several plots side by side."""
        self._add("figure", title, svgs=svgs, caption=caption)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> None:
        """A table that sorts by a click on its header; longer ones have a filter."""
        cells = [[(_text(value), not isinstance(value, str)) for value in row] for row in rows]
        self._add("table", title, header=header, rows=cells, caption=caption)

    def pictures(self, title: str, pictures: Sequence[Picture], *, caption: str = "") -> None:
        """A grid."""
        cards = [{"source": _data_uri(one.image), "title": one.title, "chips": one.chips} for one in pictures]
        self._add("pictures", title, cards=cards, caption=caption)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        try:
            from jinja2 import Environment
        except ModuleNotFoundError as error:
            raise MissingExtra("A report", "train", "jinja2") from error
        source = files("efuda").joinpath("report.html.j2").read_text(encoding="utf-8")
        page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
        write_text(path, page.render(title=self.title, subtitle=self.subtitle, sections=self.sections))

    def _add(self, kind: str, title: str, **parts: Any) -> None:
        self.sections.append({"kind": kind, "title": title, **parts})


def line_plot(
    series: Mapping[str, Series], *, x: str, y: str, mark: tuple[float, float, str] | None = None, log_x: bool = False
) -> str:
    """Lines over a common axis as SVG; `mark` is a point (x, y, label) to point out."""
    with _axes(x, y) as (axes, svg):
        for colour, (name, (xs, ys)) in zip(_COLOURS * 3, series.items(), strict=False):
            axes.plot(
                xs, ys, label=name, color=colour, marker="o" if len(xs) <= 40 else None, markersize=3.5, linewidth=1.8
            )
        if mark:
            axes.plot([mark[0]], [mark[1]], "o", color=_INK, markersize=6)
            axes.annotate(mark[2], mark[:2], textcoords="offset points", xytext=(7, 7), fontsize=9)
        if log_x:
            axes.set_xscale("log")
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=9)
    return svg[0]


def bar_plot(names: Sequence[str], values: Sequence[float], *, x: str) -> str:
    """Horizontal bars with their values, the first on top, as SVG."""
    with _axes(x, "", height=0.32 * len(names) + 0.9) as (axes, svg):
        axes.barh(range(len(names)), values, color=_COLOURS[1], height=0.7)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.margins(x=0.16)
        for row, value in enumerate(values):
            axes.annotate(
                _text(value), (value, row), textcoords="offset points", xytext=(4, 0), va="center", fontsize=8.5
            )
    return svg[0]


@contextmanager
def _axes(x: str, y: str, *, height: float = 3.4) -> Iterator[tuple[Any, list[str]]]:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtra("A plot", "train", "matplotlib") from error
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "efuda",  # the same plot gives the same bytes
        "font.family": "sans-serif",
        "font.size": 10,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    }
    svg: list[str] = []
    with rc_context(style):
        figure = Figure(figsize=(5.6, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=_INK, alpha=0.12, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        yield axes, svg
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None}, transparent=True)
    text = drawn.getvalue().decode()
    svg.append(text[text.index("<svg") :].replace(_INK, "currentColor"))


def _data_uri(image: Image.Image) -> str:
    data = io.BytesIO()
    small = image.copy()
    small.thumbnail((192, 192))
    small.save(data, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _text(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
