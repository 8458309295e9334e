"""Public taggers whose layout efuda reads, with what their authors publish about them (model cards and papers).

efuda tag PICTURES --model wd-vit-tagger-v3        # a name of this list is fetched
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["KNOWN", "Known"]


@dataclass(frozen=True, slots=True)
class Known:
    """One of them.

    Attributes:
        family: which layout (`efuda.tagging.layouts.FAMILIES`).
        tags: how many, None where the card does not say.
        size: side of the input in pixels.
        licence: of the weights; "gated" where terms must be accepted first.
        score: which F1 of which pictures, since micro and macro, and thresholds fitted or not, must not be compared.
        folder: within the repository.
        on_hub: whether it can be fetched as it is; others must be turned to ONNX first.
    """

    repository: str
    family: str
    tags: int | None
    size: int
    licence: str
    score: str = ""
    folder: str = ""
    on_hub: bool = True

    @property
    def path(self) -> str:
        """Where it is on the hub: OWNER/NAME, or OWNER/NAME/FOLDER."""
        return f"{self.repository}/{self.folder}" if self.folder else self.repository

    @property
    def name(self) -> str:
        """The short name that `Tagger.open` takes."""
        return self.folder or self.repository.split("/")[1]


KNOWN: Final = (
    Known("SmilingWolf/wd-eva02-large-tagger-v3", "wd", 10_861, 448, "Apache-2.0", "macro F1 0.4772 at P=R"),
    Known("SmilingWolf/wd-vit-large-tagger-v3", "wd", 10_861, 448, "Apache-2.0"),
    Known("SmilingWolf/wd-vit-tagger-v3", "wd", 10_861, 448, "Apache-2.0", "macro F1 0.4402 at P=R"),
    Known("SmilingWolf/wd-swinv2-tagger-v3", "wd", 10_861, 448, "Apache-2.0"),
    Known("SmilingWolf/wd-convnext-tagger-v3", "wd", 10_861, 448, "Apache-2.0"),
    Known("SmilingWolf/wd-v1-4-moat-tagger-v2", "wd", None, 448, "Apache-2.0"),
    Known("SmilingWolf/wd-v1-4-swinv2-tagger-v2", "wd", None, 448, "Apache-2.0", "micro F1 0.6854 at P=R"),
    Known("SmilingWolf/wd-v1-4-convnextv2-tagger-v2", "wd", None, 448, "Apache-2.0"),
    Known("SmilingWolf/wd-v1-4-convnext-tagger-v2", "wd", None, 448, "Apache-2.0", "micro F1 0.6810 at P=R"),
    Known("SmilingWolf/wd-v1-4-vit-tagger-v2", "wd", None, 448, "Apache-2.0", "micro F1 0.6770 at P=R"),
    Known(
        "animetimm/caformer_b36.dbv4-full",
        "animetimm",
        12_476,
        384,
        "see card",
        "micro F1 0.689, macro 0.546, both at 0.4, on its test split",
    ),
    Known(
        "animetimm/convformer_s36.dbv4-full",
        "animetimm",
        12_476,
        448,
        "see card",
        "micro F1 0.653, macro 0.473, both at 0.4, on its test split",
    ),
    Known("animetimm/eva02_large_patch14_448.dbv4-full", "animetimm", 12_476, 448, "see card", "micro F1 0.693 at 0.4"),
    Known("cella110n/cl_tagger", "cl_tagger", None, 448, "see card", folder="cl_tagger_1_02"),
    Known("cella110n/cl_tagger_v2", "cl_tagger_v2", 106_536, 384, "own, gated", folder="v2_00"),
    Known(
        "Camais03/camie-tagger-v2",
        "camie",
        70_527,
        512,
        "GPL-3.0",
        "micro F1 0.673, macro 0.506, each at its own best thresholds",
    ),
    Known("fancyfeast/joytag", "joytag", 5_812, 448, "Apache-2.0", "macro F1 0.578 at 0.4"),
    Known(
        "KichangKim/DeepDanbooru",
        "deepdanbooru",
        None,
        512,
        "MIT",
        "micro F1 0.49 at 0.5, by a third party on newer posts (2019)",
        on_hub=False,
    ),
    Known("7eu7d7/ML-Danbooru", "ml-danbooru", 12_547, 640, "MIT", on_hub=False),
)
