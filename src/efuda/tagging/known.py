"""Public taggers whose layout efuda reads, with what their authors publish about them (model cards, 2022–2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["KNOWN", "Known"]


@dataclass(frozen=True, slots=True)
class Known:
    """`score` says which F1, since micro and macro must not be compared."""

    repository: str
    tags: int | None
    size: int
    licence: str
    score: str


KNOWN: Final = (
    Known("SmilingWolf/wd-eva02-large-tagger-v3", 10861, 448, "Apache-2.0", "macro F1 0.4772 at P=R"),
    Known("SmilingWolf/wd-vit-tagger-v3", 10861, 448, "Apache-2.0", "macro F1 0.4402 at P=R"),
    Known("SmilingWolf/wd-swinv2-tagger-v3", 10861, 448, "Apache-2.0", ""),
    Known("SmilingWolf/wd-convnext-tagger-v3", 10861, 448, "Apache-2.0", ""),
    Known("SmilingWolf/wd-v1-4-swinv2-tagger-v2", None, 448, "Apache-2.0", "micro F1 0.6854 at P=R"),
    Known("SmilingWolf/wd-v1-4-convnext-tagger-v2", None, 448, "Apache-2.0", "micro F1 0.6810 at P=R"),
    Known("SmilingWolf/wd-v1-4-vit-tagger-v2", None, 448, "Apache-2.0", "micro F1 0.6770 at P=R"),
)
