"""Open a tagger, ours or of any family that efuda knows, and turn a batch of inputs into probabilities.

tagger = Tagger.open("model")                                   # a directory, or an .onnx file in one
tagger = Tagger.open("hf://SmilingWolf/wd-vit-tagger-v3")       # fetched once, then from the cache
tagger = Tagger.open("wd-vit-tagger-v3")                        # the same, by its name in `efuda models`
tagger.scores(batch)        # float32 [n, 448, 448, 3] → float32 [n, tags]
tagger.look(batch)          # the same, and float32 [n, features] or None, in one run
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efuda.artifacts import OTHER_HEAD, Model, has_marker
from efuda.errors import ArtifactError, MismatchError
from efuda.files import sha256
from efuda.images import find_pictures
from efuda.preprocess import Preprocess
from efuda.progress import Progress
from efuda.tagging.hub import locate, name_of
from efuda.tagging.layouts import SAFETENSORS, Layout, detect
from efuda.tagging.network import Network, external_data, open_onnx
from efuda.tagging.weights import open_weights
from efuda.vocabulary import Category, Vocabulary
from efuda.workers import cores

if TYPE_CHECKING:
    from efuda.tagging.tagged import Failed, Tagged

__all__ = ["Tagger"]

_UNCALIBRATED: Final = 0.5
_EMBEDDINGS: Final = ("embedding", "feature", "pooled")  # what the output is called, or a part of it, best first


@dataclass(frozen=True)
class _LinearHead:
    """Tags that WD clients do not know, as a linear head on the embedding: `weight` [features, n], `bias` [n]."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def tags(self) -> int:
        return len(self.bias)

    def logits(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        return embedding @ self.weight + self.bias


@dataclass(frozen=True)
class _LogitsBehind:
    """Those tags where the head is not linear: their logits stand behind the features, from `start`."""

    start: int
    tags: int

    def logits(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        return embedding[:, self.start :]


@dataclass(frozen=True, init=False)
class Tagger:
    """A model that is ready to run.

        tagger = Tagger("model")
        for result in tagger.tag("pictures"):
            print(result.path, result.present(tagger))

    Attributes:
        vocabulary: its tags, in the order of `scores`' columns.
        thresholds: float32 [tags], where each tag is said to be present.
        calibrated: whether the thresholds were fitted, or are the family's defaults.
        batch: the batch size the model insists on, or None for any.
        threads: cores that one call of `scores` uses; calls from several threads at once are fine.
    """

    root: Path
    vocabulary: Vocabulary
    preprocess: Preprocess
    thresholds: NDArray[np.float32]
    calibrated: bool
    layout: str
    batch: int | None
    _network: Any  # a Network; None in tests that only need the tags
    _output: str
    _skip: int
    _other: _LinearHead | _LogitsBehind | None = None
    _logits: bool = False
    weights: Path | None = None
    threads: int = 1
    _embedding: str | None = None

    def __init__(self, model: Path | str, *, threads: int | None = None, progress: Progress | None = None) -> None:
        """Open a model; see `open`."""
        self.__dict__.update(type(self).open(model, threads=threads, progress=progress).__dict__)

    @classmethod
    def of(cls, *values: Any, **named: Any) -> Self:
        """Of its parts, in their order, as `open` finds them."""
        tagger = cls.__new__(cls)
        given = dict(zip((one.name for one in fields(cls)), values, strict=False)) | named
        tagger.__dict__.update({one.name: given.get(one.name, one.default) for one in fields(cls)})
        return tagger

    @classmethod
    def open(cls, root: Path | str, *, threads: int | None = None, progress: Progress | None = None) -> Self:
        """Open a model.

        Args:
            root: a directory, an `.onnx` file in one, `hf://OWNER/NAME[@REVISION][/FOLDER]`, or a name that
                `efuda models` lists.
            threads: for the model; all cores by default.
            progress: told how far a download is; by default a bar is shown where a person looks on.

        Raises:
            ArtifactError: there is no tagger, a damaged one, or it cannot be fetched.
            MismatchError: its tag list has another length than the model's output.
            MissingExtra: it has no ONNX file, and PyTorch is not installed.
        """
        place = locate(root, progress=progress)
        if place.is_dir() and has_marker(place):
            return cls._ours(place, threads)
        layout = detect(place)
        if layout.weights.name == SAFETENSORS:
            return cls._of(layout, open_weights(layout.weights, layout.family, threads), threads)
        return cls._of(layout, open_onnx(layout.weights, threads), threads)

    @classmethod
    def _ours(cls, root: Path, threads: int | None) -> Self:
        model = Model.open(root)
        if not (root / "model.onnx").is_file():
            raise ArtifactError(f"{root} holds no model.onnx. Export the run again.")
        network = open_onnx(root / "model.onnx", threads)
        skip = 4 if model.marker.counts["padded_ratings"] else 0
        other = _read_other_head(root)
        others = other.tags if other else 0
        wanted = {"output", "embedding"} if other else {"output"}
        if missing := wanted - set(network.outputs):
            raise MismatchError(f"{root}: model.onnx has no output named {', '.join(missing)}. Export the run again.")
        width = network.outputs["output"] or 0
        _check_width(root / "selected_tags.csv", width - skip + others, len(model.vocabulary))
        fitted = model.thresholds()
        values = [row.threshold for row in fitted] if fitted else [_UNCALIBRATED] * len(model.vocabulary)
        thresholds = np.array(values, dtype=np.float32)
        calibrated = fitted is not None
        tags, how = model.vocabulary, model.preprocess
        return cls.of(
            root,
            tags,
            how,
            thresholds,
            calibrated,
            "efuda",
            None,
            network,
            "output",
            skip,
            other,
            threads=threads or cores(),
            _embedding=_embedding_of(network),
        )

    @classmethod
    def _of(cls, layout: Layout, network: Network, threads: int | None) -> Self:
        batch, preprocess = _fitted(layout, network)
        matching = [name for part in layout.outputs for name in network.outputs if part in name.lower()]
        output = (matching or list(network.outputs))[0]
        _check_width(layout.tag_list, network.outputs[output], len(layout.vocabulary))
        return cls.of(
            layout.weights.parent,
            layout.vocabulary,
            preprocess,
            layout.thresholds,
            layout.calibrated,
            layout.family,
            batch,
            network,
            output,
            0,
            _logits=layout.logits or output == "logits",
            weights=layout.weights,
            threads=threads or cores(),
            _embedding=_embedding_of(network),
        )

    @property
    def on_device(self) -> bool:
        """Whether a GPU runs it, rather than the processor's cores."""
        return self._network is not None and bool(self._network.on_device)

    @property
    def name(self) -> str:
        """The directory's or the repository's name, for people."""
        return name_of(self.root)

    @cached_property
    def identity(self) -> str:
        """Name and content: `name@` and 12 digits of the SHA-256 of the weights (of their digests, where several)."""
        weights = self.weights or self.root / "model.onnx"
        digests = [sha256(path) for path in (weights, *external_data(weights))]
        one = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        return f"{self.name}@{one[:12]}"

    def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Inputs as `preprocess.array` makes them, [n, …] → probabilities [n, tags] in the vocabulary's order.

        Several threads may call it at once.
        """
        return self._look(batch, None)[0]

    @property
    def embeds(self) -> bool:
        """Whether the model gives out what it sees before it names it: numbers that are near for like pictures."""
        return self._embedding is not None

    def look(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The scores, to the last bit as `scores` gives them, and float32 [n, features], None if it does not embed."""
        return self._look(batch, self._embedding)

    def _look(
        self, batch: NDArray[np.float32], embedding: str | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        if self.batch is not None and len(batch) != self.batch:
            return self._in_batches(batch, self.batch, embedding)
        features = "embedding" if self._other else embedding
        output, *more = self._network.run([self._output, *([features] if features else [])], batch)
        known: NDArray[np.float32] = _sigmoid(output) if self._logits else output
        known = known[:, self._skip :]
        if self._other is not None:
            known = np.concatenate([known, _sigmoid(self._other.logits(more[0]))], axis=1)
        if embedding is None:
            return known, None
        return known, more[0][:, : self._other.start] if isinstance(self._other, _LogitsBehind) else more[0]

    def _in_batches(
        self, batch: NDArray[np.float32], size: int, embedding: str | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The last one is filled up with zeros, whose scores are left out."""
        missing = -len(batch) % size
        padded = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)]) if missing else batch
        found = [self._look(padded[row : row + size], embedding) for row in range(0, len(padded), size)]
        seen = [features for _, features in found if features is not None]
        scores = np.concatenate([scores for scores, _ in found])[: len(batch)]
        return scores, np.concatenate(seen)[: len(batch)] if seen else None

    def tag(
        self,
        pictures: Path | str | Image.Image | Iterable[Path | str] | Iterable[Image.Image],
        *,
        batch: int | None = None,
        workers: int | None = None,
        scores: Path | None = None,
    ) -> Iterator[Tagged | Failed]:
        """Tag pictures, in order.

        Args:
            pictures: a folder, an archive or a file; or several of these; or one or several pictures that are open
                already, whose results have their number, from 0, as path.
            batch, workers, scores: as for `tagging.tag`.

        Yields:
            Tagged (`rows` uint32 [kept], `scores` float32 [kept], `present(tagger)`), or Failed with its reason.

        Raises:
            InputError: a path does not exist.
        """
        from efuda.tagging.pipeline import tag, tag_images

        given: Iterable[Any] = [pictures] if isinstance(pictures, str | Path | Image.Image) else pictures
        todo = iter(given)
        first = next(todo, None)
        if isinstance(first, Image.Image):
            yield from tag_images(self, chain([first], todo), batch=batch)
        elif first is not None:
            found = find_pictures(map(Path, chain([first], todo)), videos=True)
            yield from tag(self, found, batch=batch, workers=workers, scores=scores)

    def present(self, scores: NDArray[np.float32]) -> list[tuple[str, float]]:
        """One picture's scores [tags] → (tag, score) at or above its threshold, best first; ratings are left out."""
        rows = np.flatnonzero(scores >= self.thresholds)
        best = rows[np.argsort(-scores[rows], kind="stable")]
        tags = self.vocabulary
        return [(tags[row].name, float(scores[row])) for row in best if tags[row].category is not Category.RATING]

    def with_threshold(self, threshold: float) -> Self:
        """The same tagger with one threshold for every tag."""
        values = {**self.__dict__, "thresholds": np.full(len(self.vocabulary), threshold, dtype=np.float32)}
        values.pop("identity", None)
        return self.of(**values)


def _read_other_head(root: Path) -> _LinearHead | _LogitsBehind | None:
    path = root / OTHER_HEAD
    if not path.is_file():
        return None
    try:
        with np.load(path) as stored:
            if "start" in stored:
                return _LogitsBehind(int(stored["start"]), int(stored["tags"]))
            return _LinearHead(stored["weight"], stored["bias"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Copy or export the model again.") from error


def _embedding_of(network: Network) -> str | None:
    """The output that holds a row of features a picture, by the names that families give it."""
    rows = [name for name, width in network.outputs.items() if width is not None]
    return next((name for part in _EMBEDDINGS for name in rows if part in name.lower()), None)


def _fitted(layout: Layout, network: Network) -> tuple[int | None, Preprocess]:
    """The batch the network insists on, and the preprocessing at the side it takes."""
    shape, channels_last = list(network.shape), layout.preprocess.layout == "nhwc"
    batch, *rest = shape if len(shape) == 4 else [None]
    wanted = "[n, side, side, 3]" if channels_last else "[n, 3, side, side]"
    sides, colours = (rest[:2], rest[2:]) if channels_last else (rest[1:], rest[:1])
    side = next((one for one in sides if isinstance(one, int)), layout.preprocess.size)
    square = all(not isinstance(one, int) or one == side for one in sides)
    if len(shape) != 4 or not square or (isinstance(colours[0], int) and colours[0] != 3):
        raise ArtifactError(
            f"{layout.weights}: the input is {shape}, not {wanted}, so this is no tagger of the {layout.title} family, "
            f"as which {layout.tag_list.name} declares it."
        )
    if side == layout.preprocess.size:
        return (batch if isinstance(batch, int) else None), layout.preprocess
    if layout.preprocess.fit == "steps" or not 16 <= side <= 4096:
        raise MismatchError(
            f"{layout.weights} takes {side} pixels a side, preprocess.json makes {layout.preprocess.size}. "
            "They belong to different models: fetch or copy the directory again."
        )
    return (batch if isinstance(batch, int) else None), layout.preprocess.model_copy(update={"size": side})


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """By the tangent, which overflows nowhere."""
    half = np.float32(0.5)
    found: NDArray[np.float32] = half + half * np.tanh(half * logits)
    return found


def _check_width(tag_list: Path, outputs: int | None, tags: int) -> None:
    if outputs is not None and outputs != tags:
        raise MismatchError(
            f"{tag_list} names {tags} tags, the model has {outputs} outputs. "
            "They belong to different models: copy, fetch or export the directory again."
        )
