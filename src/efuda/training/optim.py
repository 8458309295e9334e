"""The loss, the optimiser and the learning rate of every step."""

from __future__ import annotations

import math

from torch import Tensor, nn, optim
from torch.nn import functional as F

from efuda.recipes import LossRecipe, TrainRecipe
from efuda.training.model import TagModel

__all__ = ["bce", "optimizer", "rate"]


def bce(logits: Tensor, labels: Tensor, recipe: LossRecipe) -> Tensor:
    """Binary cross-entropy of logits and labels, both [n, tags]: mean or sum over tags, mean over pictures."""
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (loss.sum(dim=1) if recipe.reduction == "sum" else loss.mean(dim=1)).mean()


def optimizer(model: TagModel, recipe: TrainRecipe, *, fused: bool) -> optim.Optimizer:
    """Adam or AdamW; weight decay spares norms and biases, the head has its own multiple of the rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((parameter.ndim > 1, name.startswith("head.")), []).append(parameter)
    chosen = optim.AdamW if recipe.optimizer == "adamw" else optim.Adam
    return chosen(
        [
            {
                "params": parameters,
                "weight_decay": recipe.weight_decay if decays else 0.0,
                "multiple": recipe.head_rate if head else 1.0,
            }
            for (decays, head), parameters in groups.items()
        ],
        lr=recipe.learning_rate,
        fused=fused,
    )


def rate(step: int, steps: int, recipe: TrainRecipe) -> float:
    """The learning rate of `step` of `steps`: a linear rise, then constant or a half cosine down to 1 %."""
    warm = round(recipe.warmup * steps)
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    if recipe.schedule == "constant":
        return recipe.learning_rate
    done = (step - warm) / max(steps - warm, 1)
    return recipe.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
