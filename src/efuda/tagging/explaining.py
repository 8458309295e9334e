"""Why a tag: which parts of a picture its score comes from, without torch.

    found = explain(tagger, picture, "glasses")
    found.heat, found.score, found.method, found.box         # heat float32 [height, width], in the picture's pixels
    overlay(picture, found).save("heat.png")

Where tags are a linear layer on the mean of a feature map, the logit is a sum over the map's places, and the heat is
that sum's terms (class activation, exact). Elsewhere, and where that map is coarse, the picture is covered in its mean
colour, patch by patch: the heat is what the logit loses (occlusion).
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efuda.errors import InputError, UsageError
from efuda.preprocess import Preprocess
from efuda.progress import Progress, silent
from efuda.tagging.graphs import Graph, Head
from efuda.tagging.tagger import Tagger

__all__ = ["Explainer", "Explanation", "explain", "overlay"]

Method = Literal["activation", "occlusion"]
Floats = NDArray[np.float32]
_GRID: Final = 10  # patches along the longer side
_BATCH: Final = 8
_OFF: Final = 0.05  # by how much the terms may miss the logit, of 1 + its size: 8-bit models round between
_BOX_CELLS: Final = 64
_PROBE: Final = 512
_FINE: Final = 7  # places a side from which activation is the better map
_RIM: Final = 0.01  # of a side: what is found of the placing is no more exact


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where in a picture a tag was seen.

    Attributes:
        score: the tag's, 0 to 1; a low one is explained as well as a high one.
        heat: float32 [height, width]: parts of the logit, above 0 where the picture speaks for the tag. Only the
            proportions within a picture mean something.
        method: "activation" (exact) or "occlusion".
        runs: of the model.
    """

    tag: str
    score: float
    heat: Floats
    method: Method
    runs: int

    @property
    def peak(self) -> tuple[int, int]:
        """(x, y) of the hottest pixel."""
        y, x = divmod(int(self.heat.argmax()), self.heat.shape[1])
        return x, y

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of what is at least half as hot as the peak and hangs together with it."""
        height, width = self.heat.shape
        rows, columns = (np.arange(0, side, max(side // _BOX_CELLS, 1)) for side in (height, width))
        coarse = self.heat[np.ix_(rows, columns)]
        at = int(coarse.argmax())
        inside = _region(coarse >= coarse.max() / 2, divmod(at, len(columns)))
        ys, xs = np.nonzero(inside)
        ends = [*columns[1:], width], [*rows[1:], height]
        return int(columns[xs.min()]), int(rows[ys.min()]), int(ends[0][xs.max()]), int(ends[1][ys.max()])

    def data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "tag": self.tag,
            "score": round(self.score, 6),
            "method": self.method,
            "runs": self.runs,
            "peak": list(self.peak),
            "box": list(self.box),
        }


class Explainer:
    """A tagger that says why; it opens the model a second time, with its feature map given out."""

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger
        self._head, self._session = _activations(tagger)

    @cached_property
    def method(self) -> Method:
        """What it does if nothing else is asked for: a coarse map points badly, and its model is cheap to run."""
        if self._head is None:
            return "occlusion"
        blank = self.tagger.preprocess.array(Image.new("RGB", (8, 8), "white"))[None]
        seen, weight, *_ = self._outputs(blank)
        places = _places(seen, weight.shape[0])
        return "activation" if places is not None and min(places.shape[:2]) >= _FINE else "occlusion"

    def runs(self, picture: Image.Image, method: Method | None = None) -> int:
        """How often the model will run."""
        return 1 if (method or self.method) == "activation" else 2 + len(_patches(_working(picture, self.tagger).size))

    def explain(
        self,
        picture: Image.Image,
        tags: Sequence[str],
        *,
        method: Method | None = None,
        progress: Progress = silent,
    ) -> list[Explanation]:
        """Explain some tags of one RGB picture; one costs as much as many.

        Raises:
            InputError: the model has no such tag; it names the nearest.
            UsageError: activation was asked for and this model has no feature map for it.
        """
        rows = [_row(self.tagger, name) for name in tags]
        if method == "activation" and self._head is None:
            raise UsageError("This model's tags are no linear layer on a feature map: explain it by occlusion.")
        found = self._activation(picture, rows) if (method or self.method) == "activation" else None
        if found is None:
            return _occlusion(self.tagger, picture, rows, progress)
        return found

    def _activation(self, picture: Image.Image, rows: Sequence[int]) -> list[Explanation] | None:
        """None where the terms do not add up to the logits."""
        if self._head is None:
            return None
        preprocess = self.tagger.preprocess
        batch = preprocess.array(picture)[None]
        seen, weight, logits, *bias = self._outputs(batch)
        places, scores = _places(seen, weight.shape[0]), self.tagger.scores(batch)[0]
        before = _before(scores, logits.reshape(-1))
        if places is None or before is None or min(rows) < before:
            return None
        columns = [row - before for row in rows]
        terms = places @ weight[:, columns] / (places.shape[0] * places.shape[1])
        whole = terms.sum(axis=(0, 1)) + (bias[0].reshape(-1)[columns] if bias else 0)
        wanted = logits.reshape(-1)[columns]
        if (np.abs(whole - wanted) > _OFF * (1 + np.abs(wanted))).any():
            return None
        placing = _placing(preprocess, picture.size)
        return [
            Explanation(
                self.tagger.vocabulary[row].name,
                float(scores[row]),
                _spread(terms[..., at], placing, picture.size),
                "activation",
                1,
            )
            for at, row in enumerate(rows)
        ]

    def _outputs(self, batch: Floats) -> list[Floats]:
        """Of one picture: the feature map, the weights [features, tags], the logits, and the bias if there is one."""
        assert self._head is not None
        found = self._session.run(list(self._head.names), {self._session.get_inputs()[0].name: batch})
        seen, weight, *others = found
        return [seen, weight.T if self._head.transposed else weight, *others]


def explain(tagger: Tagger, picture: Image.Image, tag: str) -> Explanation:
    """Explain one tag of one RGB picture; for many pictures keep an `Explainer`."""
    return Explainer(tagger).explain(picture, [tag])[0]


def overlay(picture: Image.Image, found: Explanation) -> Image.Image:
    """The picture, paler, under the heat from violet to yellow; what speaks against the tag is not shown."""
    heat = np.clip(found.heat, 0, None)
    heat /= max(float(heat.max()), 1e-12)
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    paler = 0.35 * np.asarray(picture, dtype=np.float32) + 0.65 * (0.6 * grey + 80)
    stops = np.array([0, 0.35, 0.7, 1.0], dtype=np.float32)
    colours = np.array([(70, 10, 90), (190, 40, 70), (245, 140, 30), (255, 245, 140)], dtype=np.float32)
    hot = np.stack([np.interp(heat, stops, colours[:, channel]) for channel in range(3)], axis=-1)
    shown = np.clip(1.3 * heat, 0, 0.75)[..., None]
    mixed = (1 - shown) * paler + shown * hot
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _row(tagger: Tagger, name: str) -> int:
    index = tagger.vocabulary.index
    for spelled in (name, name.strip().replace(" ", "_"), name.strip().replace("_", " ")):
        if spelled in index:
            return index[spelled]
    near = difflib.get_close_matches(name.replace(" ", "_"), index, n=3)
    raise InputError(
        f"{tagger.name} has no tag {name!r}" + (f"; near it: {', '.join(near)}." if near else f" among {len(index):,}.")
    )


def _activations(tagger: Tagger) -> tuple[Head | None, Any]:
    """The head and a session that gives it out; None where there is no such head."""
    import onnxruntime

    path = tagger.weights or tagger.root / "model.onnx"
    if path.suffix != ".onnx" or tagger.batch not in (None, 1):
        return None, None
    graph = Graph.read(path)
    head = graph.head()
    if head is None:
        return None, None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.resolve().parent))
    try:
        data = graph.giving_out(head.names)
        return head, onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's own classes, with no common base: occlusion needs no second session
        return None, None


def _places(seen: NDArray[np.float32], features: int) -> NDArray[np.float32] | None:
    """A feature map of one picture in any layout as [height, width, features]; None where it is none."""
    one: NDArray[np.float32] = seen[0]
    if one.ndim == 3 and one.shape[0] == features:
        return np.moveaxis(one, 0, -1)
    if one.ndim == 3 and one.shape[-1] == features:
        return one
    side = round(len(one) ** 0.5)
    if one.ndim == 2 and one.shape[1] == features and side * side == len(one):
        return one.reshape(side, side, features)
    return None


def _before(scores: Floats, logits: Floats) -> int | None:
    """How many scores stand before those of the logits: WD models that learned no ratings begin with four."""
    for before in (0, 4):
        known = scores[before:]
        if len(known) <= len(logits) and np.allclose(_logistic(logits[: len(known)]), known, atol=1e-3):
            return before
    return None


_Placing = tuple[tuple[float, float], tuple[float, float]]


def _placing(preprocess: Preprocess, size: tuple[int, int]) -> _Placing:
    """Where a picture lies in the model's input: (scale, offset) of x and of y, input = scale · picture + offset.

    Found by sending ramps through the preprocessing itself, so that it holds for whatever it does. All as shares of the
    sides.
    """
    scale = min(_PROBE / max(size), 1.0)
    width, height = (max(round(side * scale), 2) for side in size)
    ramp = np.zeros((height, width, 3), dtype=np.uint8)
    ramp[..., 0] = np.round(255 * (np.arange(width) + 0.5) / width)
    ramp[..., 1] = np.round(255 * (np.arange(height) + 0.5) / height)[:, None]
    bright = ramp.copy()
    bright[..., 2] = 255
    first, second = (preprocess.square(Image.fromarray(one)) for one in (ramp, bright))
    inside = (first[..., 2] < 64) & (second[..., 2] > 191)
    found = []
    for axis, channel in ((1, 0), (0, 1)):
        shares = first[..., channel] / 255.0
        some = inside & (shares > 0.03) & (shares < 0.97)  # the outermost may be mixed with the padding
        places = (np.nonzero(some)[axis] + 0.5) / first.shape[axis]
        slope, offset = np.polyfit(shares[some], places, 1)
        found.append((float(slope), float(offset)))
    return found[0], found[1]


def _spread(terms: Floats, placing: _Placing, size: tuple[int, int]) -> Floats:
    """A map [height, width] over the model's input → the picture's pixels; what the model did not see is 0."""
    across, down = (
        _between(side, placed, places) for side, placed, places in zip(size, placing, terms.shape[::-1], strict=True)
    )
    return np.asarray(down @ terms.astype(np.float32) @ across.T, dtype=np.float32)


def _between(side: int, placed: tuple[float, float], places: int) -> Floats:
    """Weights [side, places]: every pixel takes from the two places whose centres it lies between.

    Places whose centre is padding are left out, or their heat would run into the picture's rim.
    """
    scale, offset = placed
    shares = scale * (np.arange(side) + 0.5) / side + offset
    lowest = np.ceil(max(offset - _RIM, 0) * places - 0.5)
    highest = np.floor(min(offset + scale + _RIM, 1) * places - 0.5)
    at = shares * places - 0.5
    if lowest <= highest:
        at = np.clip(at, lowest, highest)
    at = np.clip(at, 0, places - 1)
    first = np.minimum(at.astype(int), max(places - 2, 0))
    weights = np.zeros((side, places), dtype=np.float32)
    rows = np.arange(side)
    weights[rows, first] = 1 - (at - first)
    weights[rows, np.minimum(first + 1, places - 1)] += at - first
    weights[(shares < -_RIM) | (shares > 1 + _RIM)] = 0
    return weights


def _working(picture: Image.Image, tagger: Tagger) -> Image.Image:
    """The picture no larger than the model can see."""
    small = picture.copy()
    side = 2 * max(tagger.preprocess.square(Image.new("RGB", (8, 8))).shape)
    small.thumbnail((side, side))
    return small


def _patches(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Squares two steps wide, one step apart, so that all but the rim lies under four."""
    step = max(max(size) / _GRID, 1.0)
    corners = [np.arange(-step, side - 1e-6, step) for side in size]
    return [
        (
            max(round(x), 0),
            max(round(y), 0),
            min(round(x + 2 * step), size[0]),
            min(round(y + 2 * step), size[1]),
        )
        for y in corners[1].tolist()
        for x in corners[0].tolist()
    ]


def _occlusion(tagger: Tagger, picture: Image.Image, rows: Sequence[int], progress: Progress) -> list[Explanation]:
    small = _working(picture, tagger)
    patches = _patches(small.size)
    grey = tuple(np.asarray(small).reshape(-1, 3).mean(axis=0).round().astype(int).tolist())
    score, whole = (tagger.scores(tagger.preprocess.array(one)[None])[0, rows] for one in (picture, small))
    heat = np.zeros((len(rows), small.height, small.width), dtype=np.float32)
    over = np.zeros((small.height, small.width), dtype=np.float32)
    for start in range(0, len(patches), _BATCH):
        some = patches[start : start + _BATCH]
        scores = tagger.scores(np.stack([*_covered(tagger, small, some, grey)]))[:, rows]
        for (left, top, right, bottom), lost in zip(some, _logit(whole) - _logit(scores), strict=True):
            heat[:, top:bottom, left:right] += lost[:, None, None]
            over[top:bottom, left:right] += 1
        progress("occlude", min(start + _BATCH, len(patches)), len(patches), unit="runs")
    heat /= np.maximum(over, 1)
    return [
        Explanation(
            tagger.vocabulary[row].name,
            float(score[at]),
            _smooth(heat[at], picture.size),
            "occlusion",
            2 + len(patches),
        )
        for at, row in enumerate(rows)
    ]


def _covered(
    tagger: Tagger, picture: Image.Image, patches: Sequence[tuple[int, int, int, int]], grey: tuple[int, ...]
) -> Iterator[Floats]:
    for patch in patches:
        copy = picture.copy()
        copy.paste(grey, patch)
        yield tagger.preprocess.array(copy)


def _smooth(heat: Floats, size: tuple[int, int]) -> Floats:
    """One value a step, and straight between them."""
    step = max(max(heat.shape) / _GRID, 1.0)
    cells = tuple(max(round(side / step), 1) for side in heat.shape[::-1])
    coarse = Image.fromarray(heat).resize((cells[0], cells[1]), Image.Resampling.BOX)
    return np.asarray(coarse.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)


def _logit(scores: Floats) -> Floats:
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float32)


def _logistic(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))), dtype=np.float32)


def _region(some: NDArray[np.bool_], start: tuple[int, int]) -> NDArray[np.bool_]:
    """What hangs together with `start`, by sides."""
    found = np.zeros_like(some)
    found[start] = True
    todo = deque([start])
    while todo:
        y, x = todo.popleft()
        for at in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= at[0] < some.shape[0] and 0 <= at[1] < some.shape[1]
            if inside and some[at] and not found[at]:
                found[at] = True
                todo.append(at)
    return found
