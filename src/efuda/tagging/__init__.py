"""Tagging: a model directory and pictures in, tags with scores out; needs onnxruntime, never torch.

tagger = Tagger.open(Path("model"))
chooser = Chooser(tagger, Rules(remove_underscore=True))
with open_sink("txt", tagger.name) as sink:
    for written in write(tag(tagger, find_pictures([Path("pictures")])), chooser, sink):
        print(written)                    # a Chosen with its tags, or a Failed with its reason
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from efuda.tagging.choosing import Chooser, Rules
    from efuda.tagging.chosen import Choices, Chosen
    from efuda.tagging.decoding import Looking
    from efuda.tagging.pipeline import Pipeline, tag
    from efuda.tagging.scores import ScoreStore, default_folder
    from efuda.tagging.scoring import score
    from efuda.tagging.spread import tag_spread
    from efuda.tagging.tagged import Failed, Handful, Tagged, rounded
    from efuda.tagging.tagger import Tagger
    from efuda.tagging.writing import SINKS, Sink, Style, Written, open_sink, write, write_batches

__all__ = [
    "SINKS",
    "Choices",
    "Chooser",
    "Chosen",
    "Failed",
    "Handful",
    "Looking",
    "Pipeline",
    "Rules",
    "ScoreStore",
    "Sink",
    "Style",
    "Tagged",
    "Tagger",
    "Written",
    "default_folder",
    "open_sink",
    "rounded",
    "score",
    "tag",
    "tag_spread",
    "write",
    "write_batches",
]

_HOME: Final = {
    "SINKS": "writing",
    "Choices": "chosen",
    "Chooser": "choosing",
    "Chosen": "chosen",
    "Failed": "tagged",
    "Handful": "tagged",
    "Looking": "decoding",
    "Pipeline": "pipeline",
    "Rules": "choosing",
    "ScoreStore": "scores",
    "Sink": "writing",
    "Style": "writing",
    "Tagged": "tagged",
    "Tagger": "tagger",
    "Written": "writing",
    "default_folder": "scores",
    "open_sink": "writing",
    "rounded": "tagged",
    "score": "scoring",
    "tag": "pipeline",
    "tag_spread": "spread",
    "write": "writing",
    "write_batches": "writing",
}


def __getattr__(name: str) -> Any:
    """Import a part when it is first used: a process that decodes needs few of them, and starts sooner."""
    if name not in _HOME:
        raise AttributeError(f"efuda.tagging has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"efuda.tagging.{_HOME[name]}"), name)
