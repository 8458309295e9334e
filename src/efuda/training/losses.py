"""What a wrong answer costs: cross-entropy and its kin, and how much each tag weighs.

Every loss here is `−(y · positive + (1 − y) · negative)` of a logit x and a label y in 0–1 (MixUp makes it a share),
p = sigmoid(x). The sources of the formulas stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from efuda.recipes import LossRecipe
from efuda.vocabulary import Vocabulary

__all__ = ["per_picture", "per_tag", "tag_weights"]


def per_picture(
    logits: Tensor, labels: Tensor, recipe: LossRecipe, *, weights: Tensor | None = None, epoch: int = 0
) -> Tensor:
    """The loss of each picture [n].

    Args:
        logits, labels: float32 [n, tags].
        weights: what multiplies the loss of each label: [tags] or [n, tags]; 0 where it is unknown.
        epoch: how many are done, from 0.
    """
    loss = per_tag(logits, labels, recipe, weights=weights, epoch=epoch)
    return loss.sum(dim=1) if recipe.reduction == "sum" else loss.mean(dim=1)


def per_tag(
    logits: Tensor, labels: Tensor, recipe: LossRecipe, *, weights: Tensor | None = None, epoch: int = 0
) -> Tensor:
    """The same before it is summed or averaged over tags, [n, tags]."""
    loss = _KINDS[recipe.kind](logits, labels, recipe, epoch)
    return loss if weights is None else loss * weights


def tag_weights(vocabulary: Vocabulary) -> Tensor:
    """1 / (log count / log m), m being the rarest count of the tag's category: 1 for that one, less for common tags.

    float32 [tags]. The rule is that of animetimm's training; a count of 1 is taken as 2, whose logarithm is not 0.
    """
    counts = [max(tag.count, 2) for tag in vocabulary]
    rarest: dict[int, int] = {}
    for tag, count in zip(vocabulary, counts, strict=True):
        rarest[tag.category] = min(rarest.get(tag.category, count), count)
    values = [math.log(rarest[tag.category]) / math.log(count) for tag, count in zip(vocabulary, counts, strict=True)]
    return torch.tensor(values, dtype=torch.float32)


def _bce(x: Tensor, y: Tensor, recipe: LossRecipe, epoch: int) -> Tensor:
    return F.binary_cross_entropy_with_logits(x, y, reduction="none")


def _focal(x: Tensor, y: Tensor, recipe: LossRecipe, epoch: int) -> Tensor:
    """Lin et al. 2017, a gamma for each side; alpha 0.5 weighs both sides 1, so that gammas of 0 give BCE."""
    p = x.sigmoid()
    positive = 2 * recipe.alpha * (1 - p) ** recipe.gamma_positive * F.logsigmoid(x)
    negative = 2 * (1 - recipe.alpha) * p**recipe.gamma_negative * F.logsigmoid(-x)
    return -(y * positive + (1 - y) * negative)


def _asl(x: Tensor, y: Tensor, recipe: LossRecipe, epoch: int) -> Tensor:
    """Ridnik et al. 2021, asymmetric loss: probabilities of absent tags are lowered by `clip` before they cost."""
    p = x.sigmoid()
    positive = (1 - p) ** recipe.gamma_positive * F.logsigmoid(x)
    if recipe.clip == 0:
        negative = p**recipe.gamma_negative * F.logsigmoid(-x)
    else:
        shifted = (p - recipe.clip).clamp(min=0)
        negative = shifted**recipe.gamma_negative * torch.log1p(-shifted)
    return -(y * positive + (1 - y) * negative)


def _hill(x: Tensor, y: Tensor, recipe: LossRecipe, epoch: int) -> Tensor:
    """Zhang et al. 2021: an absence that the model doubts strongly costs less again: it may be a missing label."""
    p = x.sigmoid()
    return -(y * _sure(x, recipe.margin) - (1 - y) * (1.5 - p) * p**2)


def _splc(x: Tensor, y: Tensor, recipe: LossRecipe, epoch: int) -> Tensor:
    """Zhang et al. 2021, self-paced correction: an absence at `believe` or more is taken as a missing label."""
    p = x.sigmoid()
    if epoch >= recipe.believe_from:
        y = torch.where(p.detach() >= recipe.believe, torch.ones_like(y), y)
    negative = p**2 * F.logsigmoid(-x)
    return -(y * _sure(x, recipe.margin) + (1 - y) * negative)


def _sure(x: Tensor, margin: float) -> Tensor:
    """The focal margin of both: a positive must lie `margin` above to count as sure; gamma is 2."""
    lower = x - margin
    return (1 - lower.sigmoid()) ** 2 * F.logsigmoid(lower)


_KINDS: Final[dict[str, Callable[[Tensor, Tensor, LossRecipe, int], Tensor]]] = {
    "bce": _bce,
    "focal": _focal,
    "asl": _asl,
    "hill": _hill,
    "splc": _splc,
}
