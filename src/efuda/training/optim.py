"""The optimiser and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel

from efuda.errors import MissingExtra
from efuda.recipes import TrainRecipe
from efuda.training.model import TagModel

__all__ = ["averaged", "optimizer", "rate"]


def optimizer(model: TagModel, recipe: TrainRecipe, *, fused: bool) -> optim.Optimizer:
    """Adam, AdamW or timm's LAMB; weight decay spares norms and biases, the head has its own multiple of the rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((parameter.ndim > 1, name.startswith("head.")), []).append(parameter)
    listed = [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "multiple": recipe.head_rate if head else 1.0,
        }
        for (decays, head), parameters in groups.items()
    ]
    if recipe.optimizer == "lamb":
        return _lamb(listed, recipe)
    chosen = optim.AdamW if recipe.optimizer == "adamw" else optim.Adam
    return chosen(listed, lr=recipe.learning_rate, betas=recipe.betas, fused=fused)


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of weights and buffers.

    The n-th update keeps min(decay, (1 + n) / (10 + n)) of what it had, as TensorFlow's average does, so that the
    random head of the beginning is soon forgotten, however short the run.
    """

    @torch.no_grad()
    def update(means: Sequence[Tensor], values: Sequence[Tensor], updates: Tensor | int) -> None:
        kept = min(decay, (1 + int(updates)) / (10 + int(updates)))
        for mean, value in zip(means, values, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - kept)
            else:
                mean.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def rate(step: int, steps: int, recipe: TrainRecipe) -> float:
    """The learning rate of `step` of `steps`.

    constant and cosine rise linearly, then stay, or fall by half a cosine to 1 %. one-cycle rises by half a cosine from
    1/25 and falls by another to 1/250,000 (Smith 2018), as torch.optim.lr_scheduler.OneCycleLR does by default.
    """
    top = recipe.learning_rate
    if recipe.schedule == "one-cycle":
        rise = recipe.warmup * steps - 1
        if step < rise:
            return _cosine(top / 25, top, step / rise)
        return _cosine(top, top / 250_000, (step - rise) / max(steps - 1 - rise, 1))
    warm = round(recipe.warmup * steps)
    if step < warm:
        return top * (step + 1) / warm
    if recipe.schedule == "constant":
        return top
    return _cosine(top, top / 100, (step - warm) / max(steps - warm, 1))


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _lamb(groups: list[dict[str, object]], recipe: TrainRecipe) -> optim.Optimizer:
    try:
        from timm.optim.lamb import Lamb
    except ModuleNotFoundError as error:
        raise MissingExtra("train.optimizer = 'lamb'", "train", "timm") from error
    return Lamb(groups, lr=recipe.learning_rate, betas=recipe.betas)
