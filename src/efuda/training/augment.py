"""What training pictures go through, on the batch, on the device; one generator decides, so a step can be repeated.

Mirror, turn, zoom and shift are one affine map, sampled once; what comes into view is white, as padding is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from efuda.recipes import AugmentRecipe

__all__ = ["augment", "normalise"]


def augment(pictures: Tensor, recipe: AugmentRecipe, generator: torch.Generator) -> Tensor:
    """Pictures in 0–1, float32 [n, 3, side, side] → the same shape; the generator lives on the CPU."""
    angle, zoom, mirror, shift = _draw(len(pictures), recipe, generator)
    if recipe.rotate == recipe.shift == 0 and recipe.scale == (1.0, 1.0):
        flipped = mirror.to(pictures.device)[:, None, None, None] < 0
        return torch.where(flipped, pictures.flip(3), pictures)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    rows = torch.stack([cos * mirror, -sin, shift[0], sin * mirror, cos, shift[1]], dim=1)
    grid = F.affine_grid(rows.view(-1, 2, 3).to(pictures.device), list(pictures.shape), align_corners=False)
    return 1 - F.grid_sample(1 - pictures, grid, align_corners=False)  # zeros outside become white


def normalise(pictures: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Pictures in 0–1 [n, 3, side, side] → what the backbone's weights expect."""
    shape = (1, 3, 1, 1)
    return (pictures - pictures.new_tensor(mean).view(shape)) / pictures.new_tensor(std).view(shape)


def _draw(
    pictures: int, recipe: AugmentRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Per picture: the angle in radians, the zoom, −1 to mirror or 1, and the shift in halves of the side."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(pictures).uniform_(low, high, generator=generator)

    angle = torch.deg2rad(uniform(-recipe.rotate, recipe.rotate))
    zoom = uniform(*recipe.scale)
    mirror = 1 - 2 * (uniform(0, 1) < recipe.flip).float()
    shift = (uniform(-2 * recipe.shift, 2 * recipe.shift), uniform(-2 * recipe.shift, 2 * recipe.shift))
    return angle, zoom, mirror, shift
