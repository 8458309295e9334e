"""Load a tagger directory, ours or any of the WD family, and turn a batch of inputs into probabilities.

tagger = Tagger.open(Path("model"))
tagger.scores(batch)        # float32 [n, 448, 448, 3] → float32 [n, tags]
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import OTHER_HEAD, Model, has_marker
from efuda.errors import ArtifactError, MismatchError
from efuda.files import sha256
from efuda.preprocess import Preprocess
from efuda.vocabulary import Category, Vocabulary
from efuda.workers import cores

__all__ = ["Tagger"]

# What the WD family's clients use where nothing better is known.
_WD_GENERAL: Final = 0.35
_WD_CHARACTER: Final = 0.85
_UNCALIBRATED: Final = 0.5


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


@dataclass(frozen=True)
class Tagger:
    """A model that is ready to run.

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
    threads: int
    _session: Any
    _output: str
    _skip: int
    _other: _LinearHead | _LogitsBehind | None = None

    @classmethod
    def open(cls, root: Path, *, threads: int | None = None) -> Self:
        """Open a directory that holds `model.onnx` and `selected_tags.csv`.

        Args:
            root: a directory made by `efuda export`, or one of the WD v1.4–v3 taggers.
            threads: for the model; all cores by default.

        Raises:
            ArtifactError: it holds no tagger, or a damaged one.
            MismatchError: its tag list has another length than the model's output.
        """
        if not (root / "model.onnx").is_file():
            raise ArtifactError(
                f"{root} holds no model.onnx. Make a model with efuda export, or name the directory of a WD tagger."
            )
        return cls._ours(root, threads) if has_marker(root) else cls._wd(root, threads)

    @classmethod
    def _ours(cls, root: Path, threads: int | None) -> Self:
        model = Model.open(root)
        session = _session(root / "model.onnx", threads)
        skip = 4 if model.marker.counts["padded_ratings"] else 0
        other = _read_other_head(root)
        others = other.tags if other else 0
        _check_width(root, (_width(session, "output") or 0) - skip + others, len(model.vocabulary))
        fitted = model.thresholds()
        values = [row.threshold for row in fitted] if fitted else [_UNCALIBRATED] * len(model.vocabulary)
        thresholds = np.array(values, dtype=np.float32)
        return cls(
            root,
            model.vocabulary,
            model.preprocess,
            thresholds,
            fitted is not None,
            "efuda",
            None,
            threads or cores(),
            session,
            "output",
            skip,
            other,
        )

    @classmethod
    def _wd(cls, root: Path, threads: int | None) -> Self:
        if not (root / "selected_tags.csv").is_file():
            raise ArtifactError(f"{root} holds a model.onnx but no selected_tags.csv, so its outputs have no names.")
        vocabulary = Vocabulary.read_csv(root / "selected_tags.csv")
        session = _session(root / "model.onnx", threads)
        batch, height, _, channels = _input_shape(root, session)
        output = session.get_outputs()[0].name
        _check_width(root, _width(session, output), len(vocabulary))
        if channels != 3 or not isinstance(height, int):
            raise ArtifactError(f"{root}: the input is not [n, side, side, 3], so this is no tagger of the WD family.")
        by_category = {Category.GENERAL: _WD_GENERAL, Category.CHARACTER: _WD_CHARACTER}
        thresholds = np.array([by_category.get(tag.category, _UNCALIBRATED) for tag in vocabulary], dtype=np.float32)
        fixed = batch if isinstance(batch, int) else None
        return cls(
            root,
            vocabulary,
            Preprocess(size=height),
            thresholds,
            False,
            "wd",
            fixed,
            threads or cores(),
            session,
            output,
            0,
        )

    @property
    def name(self) -> str:
        """The directory's name, for people."""
        return self.root.resolve().name

    @cached_property
    def identity(self) -> str:
        """Name and content: `name@` and the first 12 digits of the SHA-256 of `model.onnx`."""
        return f"{self.name}@{sha256(self.root / 'model.onnx')[:12]}"

    def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Inputs as `preprocess.array` makes them, [n, …] → probabilities [n, tags] in the vocabulary's order."""
        if self.batch is not None and len(batch) != self.batch:
            assert self.batch == 1, "WD v1.4 and v2 have a batch of one"
            return np.concatenate([self.scores(batch[row : row + 1]) for row in range(len(batch))])
        wanted = [self._output, *(["embedding"] if self._other else [])]
        output, *embedding = self._session.run(wanted, {self._session.get_inputs()[0].name: batch})
        known: NDArray[np.float32] = output[:, self._skip :]
        if self._other is None:
            return known
        return np.concatenate([known, 1 / (1 + np.exp(-self._other.logits(embedding[0])))], axis=1)

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
        return type(self)(**values)


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


def _session(path: Path, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores have pictures to decode
    options.log_severity_level = 3
    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own classes, with no common base
        line = str(error).splitlines()[0]
        raise ArtifactError(f"{path} cannot be loaded: {line}. Copy or export the model again.") from error


def _input_shape(root: Path, session: Any) -> list[Any]:
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ArtifactError(
            f"{root}: model.onnx does not take one batch of pictures, so this is no tagger of the WD family."
        )
    shape: list[Any] = inputs[0].shape
    return shape


def _width(session: Any, name: str) -> int | None:
    shape = next(output.shape for output in session.get_outputs() if output.name == name)
    return shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None


def _check_width(root: Path, outputs: int | None, tags: int) -> None:
    if outputs is not None and outputs != tags:
        raise MismatchError(
            f"{root}: selected_tags.csv names {tags} tags, model.onnx has {outputs} outputs. "
            "They belong to different models: copy or export the directory again."
        )
