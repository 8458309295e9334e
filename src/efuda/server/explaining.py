"""Why a tag: a picture of heat to lay over the picture, one at a time, since it may take hundreds of runs of the model.

whys = Whys(tagger)
png = whys.heat(webp, "glasses")        # RGBA, in the picture's aspect ratio, clear where nothing was seen
"""

from __future__ import annotations

import io
import threading
from typing import Final

import numpy as np
from PIL import Image

from efuda.server.refusals import busy
from efuda.tagging import Tagger
from efuda.tagging.explaining import Explainer, Explanation

__all__ = ["Whys"]

_SIDE: Final = 512
_WAITING: Final = 4
_STOPS: Final = (0, 0.35, 0.7, 1.0)
_COLOURS: Final = ((70, 10, 90), (190, 40, 70), (245, 140, 30), (255, 245, 140))


class Whys:
    """Opens the model a second time, when first asked."""

    def __init__(self, tagger: Tagger | None) -> None:
        self._tagger = tagger
        self._explainer: Explainer | None = None
        self._turn = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_WAITING)

    def heat(self, picture: bytes, tag: str) -> bytes:
        """A PNG for a picture that we have made smaller ourselves.

        Raises:
            Refusal: too many ask.
            InputError: the model has no such tag.
        """
        assert self._tagger is not None
        if not self._waiting.acquire(blocking=False):
            raise busy("Other tags are being explained. Ask again in a moment.", seconds=5)
        try:
            with self._turn, Image.open(io.BytesIO(picture), formats=("WEBP",)) as opened:
                if self._explainer is None:
                    self._explainer = Explainer(self._tagger)
                return _png(self._explainer.explain(opened.convert("RGB"), [tag])[0])
        finally:
            self._waiting.release()


def _png(found: Explanation) -> bytes:
    """The heat from violet to yellow; what speaks against the tag is clear."""
    hot = Image.fromarray(np.clip(found.heat, 0, None))
    hot.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    heat = np.asarray(hot) / max(float(np.asarray(hot).max()), 1e-12)
    colours = np.array(_COLOURS, dtype=np.float32)
    channels = [np.interp(heat, _STOPS, colours[:, channel]) for channel in range(3)]
    pixels = np.stack([*channels, 255 * np.clip(1.3 * heat, 0, 0.75)], axis=-1)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8), "RGBA").save(out, "PNG")
    return out.getvalue()
