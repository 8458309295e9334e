"""Self-contained HTML reports: text, figures, tables that sort and filter, grids of pictures, all in one file.

report = Report("Training run", "12 epochs on 2,900 pictures")
report.figure("Loss", line_plot({"train": (epochs, losses)}, x="epoch", y="loss"))
report.table("Tags", ["tag", "F1"], [["glasses", 0.91]])
report.write(Path("report.html"))
"""

from __future__ import annotations

import base64
import html
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

__all__ = [
    "Bar",
    "Chip",
    "Picture",
    "Report",
    "Share",
    "bar_plot",
    "column_plot",
    "curve_plot",
    "heat_map",
    "line_plot",
    "percent",
]

Series = tuple[Sequence[float], Sequence[float]]
_INK: Final = "#010203"  # replaced by the page's text colour, so that figures follow dark and light
_COLOURS: Final = ("#e0457b", "#3d7de0", "#e08f2c", "#2f9e6e", "#8a63d2", "#7b8794")


class Share(float):
    """A part of a whole, 0 to 1, written as a percentage."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar `share` of its panel wide (0 to 1); `before`, where it is more, is drawn pale behind it."""

    name: str
    value: int
    share: float
    note: str = ""
    before: float = 0.0


@dataclass(frozen=True, slots=True)
class Chip:
    """A tag under a picture: a "hit", a "miss" (true, not predicted), "extra" (predicted, not true) or "plain".

    The name of a category as its kind gives it that category's colour.
    """

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

    def facts(self, title: str, facts: Mapping[str, object], *, caption: str = "") -> None:
        """A row of large numbers."""
        self._add("facts", title, facts={name: _text(value) for name, value in facts.items()}, caption=caption)

    def bars(self, title: str, panels: Mapping[str, Sequence[Bar]], *, caption: str = "") -> None:
        """Panels side by side, each a heading and its horizontal bars with their values."""
        drawn = {name: [(bar, _text(bar.value)) for bar in bars] for name, bars in panels.items()}
        self._add("bars", title, panels=drawn, caption=caption)

    def text(self, title: str, *paragraphs: str) -> None:
        """Plain paragraphs; anything that looks like HTML is shown as it is written."""
        self._add("text", title, paragraphs=paragraphs)

    def figure(self, title: str, *svgs: str, caption: str = "", wide: bool = False) -> None:
        """One or several plots side by side; a wide one takes the page's width."""
        self._add("figure", title, svgs=svgs, caption=caption, wide=wide)

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
        if all(isinstance(value, int) for xs, _ in series.values() for value in xs):
            axes.xaxis.get_major_locator().set_params(integer=True)
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(_number)
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
        if max(values, default=0) >= 1000:
            axes.xaxis.set_major_formatter(_number)
        for row, value in enumerate(values):
            axes.annotate(
                _text(value), (value, row), textcoords="offset points", xytext=(4, 0), va="center", fontsize=8.5
            )
    return svg[0]


def column_plot(edges: Sequence[float], heights: Sequence[float], *, x: str, y: str) -> str:
    """A histogram as SVG: columns between `edges` [n + 1], as high as `heights` [n]."""
    with _axes(x, y) as (axes, svg):
        axes.stairs(heights, edges, fill=True, color=_COLOURS[1], alpha=0.85)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(_number)
    return svg[0]


def curve_plot(xs: Sequence[float], ys: Sequence[float], *, x: str, y: str, level: float, label: str) -> str:
    """A falling curve over two logarithmic axes as SVG, with a level line across it and what lies above it shaded."""
    with _axes(x, y) as (axes, svg):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.plot(xs, ys, color=_COLOURS[1], linewidth=1.8, marker="o" if len(xs) <= 40 else None, markersize=3.5)
        axes.fill_between(xs, ys, level, where=[value >= level for value in ys], color=_COLOURS[1], alpha=0.14)
        axes.axhline(level, color=_COLOURS[0], linewidth=1.2, linestyle="--")
        axes.annotate(
            label,
            (0, level),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            xytext=(5, 4),
            fontsize=9,
            color=_COLOURS[0],
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(_number)
            axis.set_minor_formatter(lambda value, place: "")
    return svg[0]


def heat_map(names: Sequence[str], shares: Sequence[Sequence[float]], hint: str = "{row}, {column}: {share}") -> str:
    """A square of shares from 0 to 1 as SVG, in percent, the same names down and across; `hint` shows on hovering."""
    wide, high = 30, 22
    short = [name if len(name) <= 24 else f"{name[:23]}…" for name in names]
    label = 6.3 * max((len(name) for name in short), default=0)
    left, top = round(label) + 12, round(0.72 * label) + 16
    width, height = left + wide * len(names) + round(0.72 * label), top + high * len(names) + 4
    parts = [f'<svg class="heat" viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img">']
    for row, name in enumerate(short):
        middle = left + wide * row + wide // 2
        text = html.escape(name)
        parts.append(f'<text class="end" x="{left - 6}" y="{top + high * row + 15}">{text}</text>')
        parts.append(f'<text transform="translate({middle} {top - 6})rotate(-45)">{text}</text>')
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            x, y = left + wide * column, top + high * row
            told = hint.format(row=names[row], column=names[column], share=percent(share))
            if row != column:
                parts.append(f"<g><title>{html.escape(told)}</title>")
                parts.append(f'<path d="M{x} {y}h{wide - 1}v{high - 1}h{1 - wide}z" fill-opacity="{share:.2f}"/>')
                parts.append(f'<text x="{x + wide // 2}" y="{y + 15}">{round(100 * share) or ""}</text></g>')
    return "".join([*parts, "</svg>"])


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
        "text.parse_math": False,  # a tag may have dollar signs
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
        figure.savefig(
            drawn, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")), transparent=True
        )
    text = drawn.getvalue().decode()
    svg.append(text[text.index("<svg") :].replace(_INK, "currentColor"))


def _data_uri(image: Image.Image) -> str:
    data = io.BytesIO()
    small = image.copy()
    small.thumbnail((192, 192))
    small.save(data, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def percent(share: float) -> str:
    """With a decimal; what is not quite nothing or all is not rounded to it."""
    if 0 < share < 0.001:
        return "<0.1%"
    return ">99.9%" if 0.999 < share < 1 else f"{share:.1%}"


def _number(value: float, place: int | None = None) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def _text(value: object) -> str:
    if isinstance(value, Share):
        return percent(value)
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
