"""Run `model.safetensors` through PyTorch where a model comes without an ONNX file; the only file that needs it here.

    network = open_weights(Path("model/model.safetensors"), "wd", threads=4)
    network.run(["logits"], batch)

WD and animetimm are networks of timm, which `config.json` names. JoyTag's is its own: a vision transformer with a stem
of convolutions, position by sine, and the mean of all patches before the last layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from efuda.errors import ArtifactError, MissingExtra
from efuda.tagging.layouts.taglists import read_json
from efuda.tagging.network import Network, what_it_is_instead

if TYPE_CHECKING:
    import torch

__all__ = ["open_weights"]


@dataclass(frozen=True)
class _Torch:
    module: Any
    side: int | None
    tags: int
    device: str

    @property
    def on_device(self) -> bool:
        return self.device != "cpu"

    @property
    def shape(self) -> Sequence[int | str | None]:
        return ["batch", 3, self.side or "height", self.side or "width"]

    @property
    def outputs(self) -> dict[str, int | None]:
        return {"logits": self.tags}

    def run(self, outputs: Sequence[str], batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        import torch

        assert list(outputs) == ["logits"]
        with torch.inference_mode():
            logits = self.module(torch.from_numpy(np.ascontiguousarray(batch)).to(self.device))
        return [logits.float().cpu().numpy()]


def open_weights(path: Path, family: str, threads: int | None) -> Network:
    """Build the network that `config.json` names and load its weights.

    Raises:
        MissingExtra: PyTorch, timm or safetensors is not installed.
        ArtifactError: the weights are damaged, or of another network than `config.json` says.
    """
    try:
        import safetensors.torch
        import timm  # noqa: F401
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{path}, which has no ONNX file beside it,", "train", str(error.name)) from error
    config = path.with_name("config.json")
    if not config.is_file():
        raise ArtifactError(
            f"{path.parent} holds a model.safetensors but no config.json, which says what network it is."
        )
    said = read_json(config)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        state = safetensors.torch.load_file(path)
    except Exception as error:  # safetensors' own class, which it does not export with a stable name
        why = what_it_is_instead(path) or str(error)
        raise ArtifactError(f"{path} cannot be loaded: {why}. Copy or fetch the model again.") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return _joytag(said, state, device) if family == "joytag" else _timm(said, state, device)
    except (RuntimeError, KeyError, IndexError, TypeError, ValueError, AttributeError, AssertionError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{path} does not hold the network that {config} names ({line}).") from error


def _timm(said: Mapping[str, Any], state: dict[str, torch.Tensor], device: str) -> Network:
    import timm

    tags = int(said["num_classes"])
    more = said.get("model_args") or {}
    module = timm.create_model(said["architecture"], pretrained=False, num_classes=tags, **more)
    module.load_state_dict(state)
    side = said["pretrained_cfg"]["input_size"][-1] if said.get("pretrained_cfg") else None
    return _Torch(module.eval().to(device), side, tags, device)


def _joytag(said: Mapping[str, Any], state: dict[str, torch.Tensor], device: str) -> Network:
    import torch

    if said.get("class") != "ViT" or not said.get("use_sine"):
        raise ValueError(f"of JoyTag's networks, only ViT with use_sine is known, not {said.get('class')}")
    tags, patch = int(said["n_tags"]), int(said["patch_size"])
    net = _JoyTag({name: values.to(device) for name, values in state.items()}, said)
    with torch.inference_mode():
        tried = net(torch.zeros(1, 3, 4 * patch, 4 * patch, device=device))  # finds what is missing, in no time
    if tried.shape[1] < tags:
        raise ValueError(f"it has {tried.shape[1]} outputs, not {tags}")
    return _Torch(lambda batch: net(batch)[:, :tags], int(said["image_size"]), tags, device)


@dataclass(frozen=True)
class _JoyTag:
    """The network as a function of its stored parameters; older files have nine more outputs, behind the tags."""

    state: Mapping[str, torch.Tensor]
    said: Mapping[str, Any]

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """float [n, 3, side, side] → logits [n, outputs]."""
        maps = self._patches(pictures)
        values = maps.flatten(2).transpose(1, 2)
        values = values + _sines(maps.shape[2], maps.shape[3], values.shape[2]).to(values)
        for number in range(int(self.said["num_blocks"])):
            block = f"blocks.{number}"
            attended = self._attend(f"{block}", self._norm(f"{block}.norm1", values))
            values = values + attended * self.state[f"{block}.skip_init1.skip"]
            wide = self._linear(f"{block}.mlp.linear1", self._norm(f"{block}.norm2", values))
            mixed = self._linear(f"{block}.mlp.linear2", _functional().gelu(wide))
            values = values + mixed * self.state[f"{block}.skip_init2.skip"]
        values = self._norm("norm", values)
        if self.said.get("head_mean_after"):
            return self._linear("head", values).mean(1)
        return self._linear("head", values.mean(1))

    def _patches(self, pictures: torch.Tensor) -> torch.Tensor:
        stem, convolve = self.said.get("cnn_stem"), _functional().conv2d
        if stem is None:
            name, size = "patch_embeddings", int(self.said["patch_size"])
            kernel, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
            whole: torch.Tensor = convolve(pictures, kernel, bias, stride=size)
            return whole
        maps = pictures
        for number, layer in enumerate(str(stem).split(";")):
            kind, _, told = layer.partition(":")
            name = f"patch_embeddings.conv.{number}"
            options = dict(option.split("=") for option in told.split(",")) if told else {}
            if kind == "conv":
                stride, padding = int(options.get("s", 2)), int(options.get("p", 1))
                weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
                maps = convolve(maps, weight, bias, stride=stride, padding=padding)
            elif kind == "ln":
                maps = self._norm(f"{name}.norm", maps.movedim(1, -1)).movedim(-1, 1)
            elif kind in ("relu", "gelu"):
                maps = getattr(_functional(), kind)(maps)
            else:
                raise ValueError(f"{kind!r} in cnn_stem is not known")
        return maps

    def _attend(self, block: str, values: torch.Tensor) -> torch.Tensor:
        pictures, patches, width = values.shape
        heads = int(self.said["num_heads"])
        joined = self._linear(f"{block}.qkv_proj", values).view(pictures, patches, 3, heads, width // heads)
        query, key, value = joined.permute(2, 0, 3, 1, 4)
        seen = _functional().scaled_dot_product_attention(query, key, value)
        return self._linear(f"{block}.out_proj", seen.transpose(1, 2).flatten(2))

    def _linear(self, name: str, values: torch.Tensor) -> torch.Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        out: torch.Tensor = _functional().linear(values, weight, bias)
        return out

    def _norm(self, name: str, values: torch.Tensor) -> torch.Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        out: torch.Tensor = _functional().layer_norm(values, weight.shape, weight, bias)
        return out


def _sines(height: int, width: int, depth: int) -> torch.Tensor:
    """[height · width, depth]: sines and cosines of column, then of row, at falling frequencies."""
    import torch

    quarter = depth // 4
    frequencies = 10_000.0 ** -(torch.arange(quarter) / (quarter - 1))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    column, row = (places.flatten()[:, None] * frequencies for places in (columns, rows))
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1)


def _functional() -> Any:
    from torch.nn import functional

    return functional
