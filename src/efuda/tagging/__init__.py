"""Tagging: a model directory and pictures in, tags with scores out; needs onnxruntime, never torch.

tagger = Tagger.open(Path("model"))
chooser = Chooser(tagger, Rules(remove_underscore=True))
with open_sink("txt", tagger.name) as sink:
    for written in write(tag(tagger, find_pictures([Path("pictures")])), chooser, sink):
        print(written)                    # a Chosen with its tags, or a Failed with its reason
"""

from efuda.tagging.choosing import Chooser, Chosen, Rules
from efuda.tagging.decoding import Looking
from efuda.tagging.pipeline import Pipeline, tag, tag_batches
from efuda.tagging.scores import ScoreStore, default_folder
from efuda.tagging.scoring import score
from efuda.tagging.spread import tag_spread
from efuda.tagging.tagged import Failed, Tagged, rounded
from efuda.tagging.tagger import Tagger
from efuda.tagging.writing import SINKS, Sink, Style, open_sink, write, write_batches

__all__ = [
    "SINKS",
    "Chooser",
    "Chosen",
    "Failed",
    "Looking",
    "Pipeline",
    "Rules",
    "ScoreStore",
    "Sink",
    "Style",
    "Tagged",
    "Tagger",
    "default_folder",
    "open_sink",
    "rounded",
    "score",
    "tag",
    "tag_batches",
    "tag_spread",
    "write",
    "write_batches",
]
