"""What training pictures go through, on the batch, on the device; one generator decides, so a step can be repeated.

Everything random is drawn for the whole batch at once, on the CPU, and then applied to any part of it: how a batch is
shared among devices, or cut into micro-batches, changes nothing. Mirror, turn, zoom, crop and shift are one affine map,
sampled once; what comes into view is white, as padding is. Blended pictures are neighbours, an even row and the next.

(torchvision's own transforms draw once a batch, or from the global generator, so that no step could be repeated.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from efuda.recipes import AugmentRecipe

__all__ = ["Plan", "apply", "augment", "blend", "draw", "normalise"]

_GREY = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's


@dataclass(frozen=True)
class Plan:
    """What happens to each picture of a batch, all float32 [n] on the CPU.

    Attributes:
        angle: radians; zoom: 2 shows the middle half; mirror: −1 or 1.
        across, down: the shift of the view, in halves of the side; `cropped` is 1 where something was cut or turned.
        brightness, contrast, saturation: factors.
        hole_x, hole_y: the corner of the greyed square, as part of the side.
        share: of the picture itself where it is blended with its neighbour.
    """

    angle: Tensor
    zoom: Tensor
    mirror: Tensor
    across: Tensor
    down: Tensor
    cropped: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hole_x: Tensor
    hole_y: Tensor
    share: Tensor

    def only(self, rows: Tensor) -> Self:
        """The plan of some pictures."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))


def draw(pictures: int, recipe: AugmentRecipe, generator: torch.Generator) -> Plan:
    """Decide what happens to a batch of so many pictures; the generator lives on the CPU."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(pictures).uniform_(low, high, generator=generator)

    kept = 1 - uniform(0, recipe.crop)
    angle = torch.deg2rad(uniform(-recipe.rotate, recipe.rotate))
    zoom = uniform(*recipe.scale) / kept
    colours = [uniform(1 - recipe.colour, 1 + recipe.colour) for _ in range(3)]
    return Plan(
        angle=angle,
        zoom=zoom,
        mirror=1 - 2 * (uniform(0, 1) < recipe.flip).float(),
        across=uniform(-2 * recipe.shift, 2 * recipe.shift) + uniform(-1, 1) * (1 - kept),
        down=uniform(-2 * recipe.shift, 2 * recipe.shift) + uniform(-1, 1) * (1 - kept),
        cropped=((zoom > 1) | (angle != 0)).float(),
        brightness=colours[0],
        contrast=colours[1],
        saturation=colours[2],
        hole_x=uniform(0, 1) * (1 - recipe.cutout),
        hole_y=uniform(0, 1) * (1 - recipe.cutout),
        share=_shares(pictures, recipe.mixup, generator),
    )


def augment(pictures: Tensor, recipe: AugmentRecipe, generator: torch.Generator) -> Tensor:
    """Draw and apply at once, without blending."""
    return apply(pictures, draw(len(pictures), recipe, generator), recipe)


def apply(pictures: Tensor, plan: Plan, recipe: AugmentRecipe) -> Tensor:
    """Pictures in 0–1, float32 [n, 3, side, side] → the same shape."""
    pictures = _moved(pictures, plan, recipe)
    if recipe.colour:
        pictures = _coloured(pictures, plan)
    return _cut_out(pictures, plan, recipe.cutout) if recipe.cutout else pictures


def blend(values: Tensor, share: Tensor, partner: Tensor) -> Tensor:
    """Each row of [n, …] times its share [n], and its partner's row (int64 [n]) times the rest."""
    shares = share.to(values.device).view(-1, *[1] * (values.ndim - 1))
    return torch.lerp(values[partner.to(values.device)], values, shares)


def normalise(pictures: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Pictures in 0–1 [n, 3, side, side] → what the backbone's weights expect."""
    shape = (1, 3, 1, 1)
    return (pictures - pictures.new_tensor(mean).view(shape)) / pictures.new_tensor(std).view(shape)


def _moved(pictures: Tensor, plan: Plan, recipe: AugmentRecipe) -> Tensor:
    if recipe.rotate == recipe.shift == recipe.crop == 0 and recipe.scale == (1.0, 1.0):
        flipped = plan.mirror.to(pictures.device)[:, None, None, None] < 0
        return torch.where(flipped, pictures.flip(3), pictures)
    cos, sin = torch.cos(plan.angle) / plan.zoom, torch.sin(plan.angle) / plan.zoom
    rows = torch.stack([cos * plan.mirror, -sin, plan.across, sin * plan.mirror, cos, plan.down], dim=1)
    grid = F.affine_grid(rows.view(-1, 2, 3).to(pictures.device), list(pictures.shape), align_corners=False)
    inner = 1 - 1 / pictures.shape[-1]  # the middle of the outermost pixels: within the picture, nothing white comes in
    grid = torch.where(grid.abs() <= 1, grid.clamp(-inner, inner), grid)
    return 1 - F.grid_sample(1 - pictures, grid, align_corners=False)  # zeros outside become white


def _coloured(pictures: Tensor, plan: Plan) -> Tensor:
    """Brightness times a factor, contrast around the mean grey, saturation around each pixel's grey."""

    def each(factors: Tensor) -> Tensor:
        return factors.to(pictures.device)[:, None, None, None]

    def grey(of: Tensor) -> Tensor:
        return (of * _GREY.to(of.device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)

    lit = pictures * each(plan.brightness)
    mean = grey(lit).mean(dim=(2, 3), keepdim=True)
    lit = mean + (lit - mean) * each(plan.contrast)
    own = grey(lit)
    return (own + (lit - own) * each(plan.saturation)).clamp(0, 1)


def _cut_out(pictures: Tensor, plan: Plan, part: float) -> Tensor:
    side = pictures.shape[-1]
    places = torch.arange(side, device=pictures.device) / side

    def inside(corner: Tensor) -> Tensor:
        start = corner.to(pictures.device)[:, None]
        return (places >= start) & (places < start + part)

    hole = inside(plan.hole_y)[:, None, :, None] & inside(plan.hole_x)[:, None, None, :]
    return pictures.masked_fill(hole, 0.5)


def _shares(pictures: int, alpha: float, generator: torch.Generator) -> Tensor:
    """From Beta(alpha, alpha), the same for both of a pair (Zhang et al. 2018); 1 where the last has no neighbour."""
    if alpha == 0:
        return torch.ones(pictures)
    pairs = torch.full((pictures // 2, 2), alpha)
    drawn = torch._standard_gamma(pairs, generator=generator)
    shares = (drawn[:, 0] / drawn.sum(dim=1).clamp(min=1e-12)).repeat_interleave(2)
    return torch.cat([shares, torch.ones(pictures % 2)])
