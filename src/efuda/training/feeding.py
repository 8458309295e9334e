"""From a loaded batch to what the network takes: on the device, augmented, blended, weighed, in micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from efuda.recipes import Recipe
from efuda.training.augment import apply, blend, draw, normalise
from efuda.training.devices import Devices
from efuda.training.labels import LabelRules
from efuda.training.loading import Batch
from efuda.training.losses import tag_weights
from efuda.vocabulary import Vocabulary

__all__ = ["Feeding", "Part"]


@dataclass(frozen=True)
class Part:
    """Some pictures of a batch as the network takes them, float32 [n, 3, side, side].

    Attributes:
        labels: float32 [n, tags].
        weights: how much each label counts, [tags] or [n, tags]; None is 1.
    """

    pictures: Tensor
    labels: Tensor
    weights: Tensor | None


class Feeding:
    """What a recipe does to the batches of one device.

    Attributes:
        tag_weights: float32 [tags]; None where all tags weigh the same.
    """

    def __init__(self, recipe: Recipe, vocabulary: Vocabulary, devices: Devices) -> None:
        self._recipe, self._tags, self._devices = recipe, len(vocabulary), devices
        self._rules = LabelRules(vocabulary, recipe.labels, recipe.augment, devices.device)
        weighs = recipe.loss.tag_weights == "log"
        self.tag_weights = tag_weights(vocabulary).to(devices.device) if weighs else None

    def pictures(self, batch: Batch, start: int = 0, stop: int | None = None) -> Tensor:
        """Pictures of a batch on the device, float32 in 0–1, [n, 3, side, side]."""
        moved = batch.pictures[start:stop].to(self._devices.device, non_blocking=True).permute(0, 3, 1, 2)
        layout = torch.channels_last if self._recipe.train.channels_last else torch.contiguous_format
        return (moved.float() / 255).contiguous(memory_format=layout)

    def normalised(self, pictures: Tensor) -> Tensor:
        """What the weights expect."""
        return normalise(pictures, self._recipe.model.mean, self._recipe.model.std)

    def parts(self, batch: Batch, step: int, micro_batch: int) -> Iterator[Part]:
        """Our part of a step's batch in micro-batches (0: in one); at least one, so that every device takes part."""
        recipe, places = self._recipe, batch.places
        if not len(places):
            yield self._nothing()
            return
        start, _ = self._devices.part(recipe.train.batch)
        generator = torch.Generator().manual_seed(recipe.train.seed * 1_000_003 + step)
        plan = draw(recipe.train.batch, recipe.augment, generator).only(start + places)
        flipped, cropped = (mask.to(self._devices.device) for mask in (plan.mirror < 0, plan.cropped > 0))
        labels = self._rules.mirrored(batch.labels(self._tags, self._devices.device), flipped)
        weights = self._rules.weights(labels, flipped, cropped)
        partner = _partners(places)
        share = torch.where(partner == torch.arange(len(partner)), torch.ones(()), plan.share)
        many = micro_batch or recipe.train.batch
        for first in range(0, int(places[-1]) + 1, many):
            rows = torch.nonzero((places >= first) & (places < first + many)).flatten()
            if not len(rows):
                continue
            begin, end = int(rows[0]), int(rows[-1]) + 1
            pictures = apply(self.pictures(batch, begin, end), plan.only(rows), recipe.augment)
            own, believed = labels[begin:end], None if weights is None else weights[begin:end]
            if recipe.augment.mixup:
                beside = partner[rows] - begin
                pictures, own = blend(pictures, share[rows], beside), blend(own, share[rows], beside)
                believed = None if believed is None else blend(believed, share[rows], beside)
            if self.tag_weights is not None:
                believed = self.tag_weights if believed is None else believed * self.tag_weights
            yield Part(self.normalised(pictures), own, believed)

    def _nothing(self) -> Part:
        """Two white pictures whose labels do not count, for a device that has none of a batch's."""
        device, size = self._devices.device, self._recipe.model.size
        labels = torch.zeros(2, self._tags, device=device)
        return Part(self.normalised(torch.ones(2, 3, size, size, device=device)), labels, labels)


def _partners(places: Tensor) -> Tensor:
    """For each row, the row of its neighbour (an even place and the next), itself where that could not be read."""
    row_of = {place: row for row, place in enumerate(places.tolist())}
    return torch.tensor([row_of.get(place ^ 1, row) for row, place in enumerate(places.tolist())], dtype=torch.long)
