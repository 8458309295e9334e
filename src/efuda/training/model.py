"""The network: a torchvision or timm backbone whose classifier is replaced by one output per tag.

model = build(recipe.model, tags=8266)          # weights loaded, or an error: never random weights when some were asked
logits, embedding = model(pictures)             # [n, tags], [n, features] from float32 [n, 3, side, side]
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from efuda.artifacts import Run
from efuda.errors import InputError, MismatchError, MissingExtra, RecipeError
from efuda.recipes import ModelRecipe, Recipe
from efuda.training.heads import Linear, MLDecoder
from efuda.vocabulary import Vocabulary

__all__ = ["TagModel", "begin_from", "build", "trained"]

State = Mapping[str, Tensor]


class TagModel(nn.Module):
    """A backbone that ends in pooled features, and a head: linear on those, or a decoder on the map before them.

    Attributes:
        classifier: what the library itself calls the classifier ("fc", "classifier"), for other people's loaders.
    """

    def __init__(
        self, backbone: nn.Module, features: int, head: Linear | MLDecoder, classifier: str, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.backbone, self.features, self.classifier = backbone, features, classifier
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures [n, 3, side, side] → logits [n, tags] and embedding [n, features]."""
        if not self.head.reads_map:
            embedding = self.backbone(pictures)
            return self.head(self.dropout(embedding)), embedding
        network: Any = self.backbone
        seen = network.forward_features(pictures)
        embedding = network.forward_head(seen)
        return self.head(self.dropout(_tokens(seen, network))), embedding

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


def build(recipe: ModelRecipe, tags: int, *, weights: bool = True) -> TagModel:
    """Make the network and load its weights.

    Args:
        weights: False leaves it at random ones, for those who have a state to load.

    Raises:
        RecipeError: there is no such backbone, or it does not go with the head.
        InputError: the weights asked for cannot be had, or do not fit.
    """
    library, name = recipe.backbone.split("/", 1)
    source = recipe.weights if weights and recipe.init_from is None else "none"
    make = _torchvision if library == "torchvision" else _timm
    backbone, features, classifier = make(name, source, recipe)
    if source not in ("none", "pretrained") and not _is_torchvision_name(library, source):
        _load(backbone, _read_state(_weights_file(source)), classifier, source)
    return TagModel(backbone, features, _head(recipe, backbone, features, tags), classifier, recipe.dropout)


def trained(run: Run, checkpoint: str = "best") -> TagModel:
    """The network of a finished run with its judged weights, on the CPU, ready to be asked."""
    recipe = Recipe.model_validate(run.marker.recipe)
    model = build(recipe.model, len(run.vocabulary), weights=False)
    saved = torch.load(run.checkpoint(checkpoint), map_location="cpu", weights_only=True)
    state = saved["model"]
    if averaged := saved.get("ema"):
        state = {name.removeprefix("module."): value for name, value in averaged.items() if name != "n_averaged"}
    model.load_state_dict(state)
    return model.eval()


def begin_from(model: TagModel, run: Path, vocabulary: Vocabulary) -> int:
    """Load the best weights of an earlier run; returns how many tags of the vocabulary it knew.

    The backbone must be the same. A linear head keeps the row of each tag of that name, the others stay as they are; a
    decoder's last layers are kept only where the vocabulary is the same, since its queries answer for other tags then.

    Raises:
        ArtifactError: it is no finished run.
        MismatchError: it has another backbone or another head.
    """
    earlier = Run.open(run)
    saved = torch.load(earlier.checkpoint("best"), map_location="cpu", weights_only=True)["model"]
    before, after = earlier.vocabulary.index, vocabulary.names
    kept = [(row, before[name]) for row, name in enumerate(after) if name in before]
    own = model.state_dict()
    state: dict[str, Tensor] = {}
    for name, value in own.items():
        given = saved.get(name)
        if name in ("head.weight", "head.bias") and earlier.vocabulary != vocabulary:
            state[name] = (
                value if given is None else _rows(value, given, kept, decoder=isinstance(model.head, MLDecoder))
            )
        elif given is None or given.shape != value.shape:
            raise MismatchError(
                f"model.init_from = {str(run)!r}: its network is another one ({name} differs): it was trained with "
                f"{earlier.marker.recipe['model']['backbone']}. Use the same [model], or start from weights."
            )
        else:
            state[name] = given
    model.load_state_dict(state)
    return len(kept)


def _rows(own: Tensor, given: Tensor, kept: list[tuple[int, int]], *, decoder: bool) -> Tensor:
    if decoder and own.ndim == 3:
        return own
    rows, sources = (
        torch.tensor(column, dtype=torch.long) for column in (zip(*kept, strict=True) if kept else ((), ()))
    )
    value = own.clone()
    value[rows] = given[sources].to(own)
    return value


def _head(recipe: ModelRecipe, backbone: nn.Module, features: int, tags: int) -> Linear | MLDecoder:
    if recipe.head == "linear":
        return Linear(features, tags)
    if not hasattr(backbone, "forward_features"):
        raise RecipeError(
            f"model.head = 'ml-decoder' reads the feature map, which {recipe.backbone} does not give. Use the timm "
            f"backbone of that name: timm/{recipe.backbone.split('/', 1)[1]}"
        )
    width = int(getattr(backbone, "num_features", features))
    return MLDecoder(width, tags, width=recipe.decoder_width, groups=recipe.decoder_groups)


def _tokens(seen: Tensor, network: Any) -> Tensor:
    """A feature map of any of timm's layouts as [n, places, features]."""
    if seen.ndim == 3:
        return seen
    last = getattr(network, "output_fmt", "NCHW") == "NHWC" or seen.shape[-1] == network.num_features != seen.shape[1]
    return seen.flatten(1, 2) if last else seen.flatten(2).transpose(1, 2)


def _torchvision(name: str, weights: str, recipe: ModelRecipe) -> tuple[nn.Module, int, str]:
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
    if recipe.drop_path:
        raise RecipeError("model.drop_path: torchvision's networks have no such setting; use a timm backbone.")
    classifier, last = [(path, part) for path, part in backbone.named_modules() if isinstance(part, nn.Linear)][-1]
    backbone.set_submodule(classifier, nn.Identity())
    return backbone, last.in_features, classifier


def _timm(name: str, weights: str, recipe: ModelRecipe) -> tuple[nn.Module, int, str]:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtra(f"The backbone timm/{name}", "train", "timm") from error
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:3]
        raise RecipeError(f"model.backbone: timm has no model {name!r}; near it: {', '.join(near) or 'nothing'}.")
    try:
        backbone: Any = timm.create_model(name, pretrained=weights == "pretrained", **_settings(timm, name, recipe))
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"model.weights = 'pretrained': timm cannot fetch the weights of {name} ({error}). Fetch the file "
            'elsewhere and set model.weights to its path; "none" starts from random weights.'
        ) from error
    classifier = str(backbone.pretrained_cfg.get("classifier", "head"))
    backbone.reset_classifier(0)
    features = int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)
    return backbone, features, classifier


def _settings(timm: Any, name: str, recipe: ModelRecipe) -> dict[str, Any]:
    """What a backbone is told of the recipe; transformers learn any side, by its position in the picture."""
    settings: dict[str, Any] = {"drop_path_rate": recipe.drop_path} if recipe.drop_path else {}
    module = inspect.getmodule(timm.model_entrypoint(name))
    makers = [part for part in vars(module).values() if inspect.isclass(part) and issubclass(part, nn.Module)]
    takes = {key for maker in makers for key in inspect.signature(maker.__init__).parameters}
    fixed = timm.get_pretrained_cfg(name)
    if fixed is not None and getattr(fixed, "fixed_input_size", False) and "img_size" in takes:
        settings["img_size"] = recipe.size
        if "dynamic_img_size" in takes and recipe.weights != "pretrained":
            settings["dynamic_img_size"] = True
    return settings


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
