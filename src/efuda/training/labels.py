"""Which labels a step believes: what a mirror or a crop makes untrue, and absences that may be omissions.

A weight of 0 makes a label unknown: it neither rewards nor costs. A tag of an exclusive group is surely absent where
another of its group is present, and then counts in full, whatever else is doubted.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from efuda.recipes import AugmentRecipe, LabelsRecipe
from efuda.vocabulary import Vocabulary

__all__ = ["LabelRules"]


class LabelRules:
    """The recipe's rules for one vocabulary; tags that it lacks are passed over."""

    def __init__(
        self, vocabulary: Vocabulary, labels: LabelsRecipe, augment: AugmentRecipe, device: torch.device
    ) -> None:
        index = vocabulary.index
        self._recipe = labels

        def rows(names: Iterable[str]) -> Tensor:
            return torch.tensor([index[name] for name in names if name in index], dtype=torch.long, device=device)

        self._groups = [group for names in labels.exclusive if len(group := rows(names)) > 1]
        self._flip_unknown, self._crop_unknown = rows(augment.flip_unknown), rows(augment.crop_unknown)
        pairs = [(one, other) for one, other in augment.flip_swaps if one in index and other in index]
        self._swapped = rows([*(one for one, _ in pairs), *(other for _, other in pairs)])
        self._swapped_to = rows([*(other for _, other in pairs), *(one for one, _ in pairs)])
        self._doubts = (labels.few_tags > 0 and labels.few_weight < 1) or (labels.open_weight < 1 and self._groups)

    def mirrored(self, labels: Tensor, flipped: Tensor) -> Tensor:
        """Labels [n, tags] with the swapped tags exchanged where `flipped` [n]."""
        if not len(self._swapped):
            return labels
        swapped = labels.clone()
        swapped[:, self._swapped] = labels[:, self._swapped_to]
        return torch.where(flipped[:, None], swapped, labels)

    def weights(self, labels: Tensor, flipped: Tensor, cropped: Tensor) -> Tensor | None:
        """How far each label is believed, 0–1 [n, tags]; None where all are.

        Args:
            labels: [n, tags], of single pictures, before they are blended.
            flipped, cropped: bool [n].
        """
        unknown = [(rows, mask) for rows, mask in ((self._flip_unknown, flipped), (self._crop_unknown, cropped))]
        if not self._doubts and not any(len(rows) for rows, _ in unknown):
            return None
        weights = torch.ones_like(labels)
        if self._recipe.few_tags > 0:
            few = labels.sum(dim=1) < self._recipe.few_tags
            weights[few] = torch.where(labels[few] > 0, 1.0, self._recipe.few_weight)
        for group in self._groups:
            known = labels[:, group].amax(dim=1, keepdim=True) > 0
            weights[:, group] = torch.where(known, 1.0, weights[:, group] * self._recipe.open_weight)
        for rows, mask in unknown:
            weights[:, rows] = torch.where(mask[:, None], 0.0, weights[:, rows])
        return weights
