"""The network: a torchvision or timm backbone whose classifier is replaced by one output per tag.

model = build(recipe.model, tags=8266)          # weights loaded, or an error: never random weights when some were asked
logits, embedding = model(pictures)             # [n, tags], [n, features] from float32 [n, 3, side, side]
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from efuda.errors import InputError, MissingExtra, RecipeError
from efuda.recipes import ModelRecipe

__all__ = ["TagModel", "build"]

State = Mapping[str, Tensor]


class TagModel(nn.Module):
    """A backbone that ends in pooled features, and a linear head.

    Attributes:
        classifier: what the library itself calls the classifier ("fc", "classifier"), for other people's loaders.
    """

    def __init__(self, backbone: nn.Module, features: int, tags: int, classifier: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone, self.classifier = backbone, classifier
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, tags)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures [n, 3, side, side] → logits [n, tags] and embedding [n, features]."""
        embedding = self.backbone(pictures)
        return self.head(self.dropout(embedding)), embedding

    def start_head_at(self, rates: Tensor) -> None:
        """Let every tag start at its frequency [tags], so that training need not first learn that most are rare."""
        rates = rates.clamp(1e-4, 1 - 1e-4)
        with torch.no_grad():
            self.head.bias.copy_(torch.log(rates / (1 - rates)))

    def library_state(self) -> dict[str, Tensor]:
        """The weights under the names that timm (or torchvision) gives them."""
        return {
            name.replace("backbone.", "", 1)
            if name.startswith("backbone.")
            else name.replace("head", self.classifier, 1): value
            for name, value in self.state_dict().items()
        }


def build(recipe: ModelRecipe, tags: int) -> TagModel:
    """Make the network and load its weights.

    Raises:
        RecipeError: there is no such backbone.
        InputError: the weights asked for cannot be had, or do not fit.
    """
    library, name = recipe.backbone.split("/", 1)
    make = _torchvision if library == "torchvision" else _timm
    backbone, features, classifier = make(name, recipe.weights)
    if recipe.weights not in ("none", "pretrained") and not _is_torchvision_name(library, recipe.weights):
        _load(backbone, _read_state(_weights_file(recipe.weights)), classifier, recipe.weights)
    return TagModel(backbone, features, tags, classifier, recipe.dropout)


def _torchvision(name: str, weights: str) -> tuple[nn.Module, int, str]:
    from torchvision import models

    if name not in models.list_models():
        raise RecipeError(f"model.backbone: torchvision has no model {name!r}. See torchvision.models.list_models()")
    wanted = weights if _is_torchvision_name("torchvision", weights) else None
    try:
        backbone: nn.Module = models.get_model(name, weights=wanted)
    except (OSError, ValueError, AttributeError, KeyError) as error:
        url = getattr(getattr(models.get_model_weights(name), weights, None), "url", None)
        where = f"Download {url} and" if url else "Name one that exists, or"
        raise InputError(
            f"model.weights = {weights!r}: torchvision cannot provide it ({error}). {where} set model.weights to "
            "the path of a file; 'none' starts from random weights."
        ) from error
    classifier, last = [(path, part) for path, part in backbone.named_modules() if isinstance(part, nn.Linear)][-1]
    backbone.set_submodule(classifier, nn.Identity())
    return backbone, last.in_features, classifier


def _timm(name: str, weights: str) -> tuple[nn.Module, int, str]:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtra(f"The backbone timm/{name}", "train", "timm") from error
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:3]
        raise RecipeError(f"model.backbone: timm has no model {name!r}; near it: {', '.join(near) or 'nothing'}.")
    try:
        backbone: Any = timm.create_model(name, pretrained=weights == "pretrained")
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"model.weights = 'pretrained': timm cannot fetch the weights of {name} ({error}). Fetch the file "
            'elsewhere and set model.weights to its path; "none" starts from random weights.'
        ) from error
    classifier = str(backbone.pretrained_cfg.get("classifier", "head"))
    backbone.reset_classifier(0)
    features = int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)
    return backbone, features, classifier


def _is_torchvision_name(library: str, weights: str) -> bool:
    return library == "torchvision" and weights.replace("_", "").isalnum() and weights.isupper()


def _weights_file(weights: str) -> Path:
    """`package:NAME` is the one weights file inside an installed package, anything else a path."""
    if not weights.startswith("package:"):
        return Path(weights)
    package = weights.removeprefix("package:")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"model.weights = {weights!r}", "demo", package.replace("_", "-"))
    found = sorted(Path(next(iter(spec.submodule_search_locations))).rglob("*.pth"))
    if len(found) != 1:
        raise InputError(f"model.weights = {weights!r}: the package holds {len(found)} .pth files, expected one.")
    return found[0]


def _read_state(path: Path) -> State:
    if not path.is_file():
        raise InputError(f"model.weights: {path} does not exist. Name a weights file, or 'none' for random weights.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise classes without a common base
        raise InputError(f"model.weights: {path} is not a file of weights ({_first_line(error)}).") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"model.weights: {path} holds no state dict.")
    return loaded


def _load(backbone: nn.Module, given: State, classifier: str, source: str) -> None:
    """Load by name, or, where the names are another library's, by the order of the keys; every shape must agree."""
    own = backbone.state_dict()
    given = {key.removeprefix("module."): value for key, value in given.items()}
    if set(own) <= set(given):
        matched = {key: given[key] for key in own}
    else:
        # The classifier ends the file in every library; what precedes it stands in the order of the network.
        matched = dict(zip(own, given.values(), strict=False))
    wrong = [key for key in own if key not in matched or matched[key].shape != own[key].shape]
    if wrong:
        raise InputError(
            f"model.weights = {source!r} does not fit the backbone: {len(wrong)} of {len(own)} tensors differ, first "
            f"{wrong[0]}. Use the weights of the same network."
        )
    backbone.load_state_dict(matched)
    assert classifier not in own


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
