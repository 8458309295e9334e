"""From scores to probabilities: per tag, a rising curve on the logit scale through a few knots.

    calibration = Calibration.read(Path("model/calibration.npz"))
    probabilities = calibration.apply(scores)            # float32 [n, tags] → float32 [n, tags]

Every method is such a curve: temperature and Platt scaling are straight lines on that scale, isotonic regression is a
line through its steps. `fitting` fits them.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from efuda.errors import ArtifactError
from efuda.files import replacing

__all__ = ["KNOTS", "METHODS", "Calibration", "logit", "sigmoid"]

METHODS: Final = ("none", "temperature", "platt", "isotonic")
KNOTS: Final = np.linspace(-14, 10, 49)  # logits, half a unit apart
_LOWEST: Final = 2.0**-21
_HIGHEST: Final = 1 - 2.0**-17


@dataclass(frozen=True)
class Calibration:
    """One curve a tag.

    Attributes:
        names: the tags, in output order.
        method: uint8 [tags], an index into METHODS.
        knots: float32 [knots], evenly spaced logits of scores.
        logits: float32 [tags, knots], the logit of the probability at each; rising.
    """

    names: tuple[str, ...]
    method: NDArray[np.uint8]
    knots: NDArray[np.float32]
    logits: NDArray[np.float32]

    def apply(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores in 0–1 → probabilities, float32 [n, tags]; beyond the knots the curve's end goes straight on."""
        assert scores.ndim == 2 and scores.shape[1] == len(self.names), (scores.shape, len(self.names))
        return self.at(np.arange(len(self.names))[None, :], scores)

    def at(self, tags: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same of single scores: tags int64 [n] and a score of each, float32 [n] → probabilities, float32 [n]."""
        step = float(self.knots[1] - self.knots[0])
        places = (logit(scores) - float(self.knots[0])) / step
        left = places.astype(np.int64).clip(0, len(self.knots) - 2)
        low, high = self.logits[tags, left], self.logits[tags, left + 1]
        return sigmoid(low + (high - low) * (places - left)).astype(np.float32)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all: the same curves give the same bytes."""
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez(
                file,
                names=np.array(self.names),
                method=self.method,
                knots=self.knots,
                logits=self.logits,
                allow_pickle=False,
            )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ArtifactError where the file is absent or damaged."""
        try:
            with path.open("rb") as file, np.load(file) as stored:
                found = cls(tuple(map(str, stored["names"])), stored["method"], stored["knots"], stored["logits"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"{path} cannot be read ({error}). Run efuda calibrate again.") from error
        if found.logits.shape != (len(found.names), len(found.knots)):
            raise ArtifactError(f"{path} is damaged: {found.logits.shape} values for {len(found.names)} tags.")
        return found


def logit(scores: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(p / (1 − p)), of scores clipped to where a histogram tells them apart: 2⁻²¹ to 1 − 2⁻¹⁷."""
    clipped = np.clip(scores.astype(np.float64), _LOWEST, _HIGHEST)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def sigmoid(logits: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float64]:
    """1 / (1 + e^−x), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64))))
