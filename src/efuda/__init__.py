"""efuda learns to tag anime-style illustrations and makes large art collections searchable.

    import efuda

    dataset = efuda.prepare([Path("metadata")], Path("512px"), Path("dataset"), efuda.load_recipe("reference"))
    run = efuda.train(dataset, Path("run"), efuda.load_recipe("reference"))
    model = efuda.calibrate(efuda.export(run, Path("model")), dataset)
    efuda.evaluate(model, dataset).calibrated.micro.f1

    tagger = efuda.Tagger("model")
    for tagged in tagger.tag("pictures"):
        print(tagged.path, tagged.present(tagger))

Each name is imported when it is first used, so that what needs torch costs nothing to who only tags or searches.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from efuda.artifacts import Dataset, Model, Run
    from efuda.collection import Collection
    from efuda.datasets import prepare
    from efuda.evaluation import calibrate, compare, evaluate, quantise
    from efuda.recipes import load_recipe
    from efuda.tagging import Tagger, tag
    from efuda.tagging.explaining import Explainer
    from efuda.training import export, train

__all__ = [
    "Collection",
    "Dataset",
    "Explainer",
    "Model",
    "Run",
    "Tagger",
    "calibrate",
    "compare",
    "evaluate",
    "export",
    "load_recipe",
    "prepare",
    "quantise",
    "tag",
    "train",
]

_HOME: Final = {
    "Collection": "collection",
    "Dataset": "artifacts",
    "Explainer": "tagging.explaining",
    "Model": "artifacts",
    "Run": "artifacts",
    "Tagger": "tagging",
    "calibrate": "evaluation",
    "compare": "evaluation",
    "evaluate": "evaluation",
    "export": "training",
    "load_recipe": "recipes",
    "prepare": "datasets",
    "quantise": "evaluation",
    "tag": "tagging",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"efuda has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"efuda.{_HOME[name]}"), name)
