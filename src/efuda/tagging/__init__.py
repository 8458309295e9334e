"""Tagging: a model directory and pictures in, tags with scores out; needs onnxruntime, never torch.

tagger = Tagger.open(Path("model"))
for result in tag(tagger, find_pictures([Path("pictures")])):
    if isinstance(result, Tagged):
        print(result.path, result.present(tagger))
"""

from efuda.tagging.decoding import Looking
from efuda.tagging.pipeline import Pipeline, tag, tag_batches
from efuda.tagging.scores import ScoreStore
from efuda.tagging.scoring import score
from efuda.tagging.sinks import SINKS, Sink, open_sink
from efuda.tagging.tagged import Failed, Tagged, rounded
from efuda.tagging.tagger import Tagger

__all__ = [
    "SINKS",
    "Failed",
    "Looking",
    "Pipeline",
    "ScoreStore",
    "Sink",
    "Tagged",
    "Tagger",
    "open_sink",
    "rounded",
    "score",
    "tag",
    "tag_batches",
]
