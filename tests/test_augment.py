"""What pictures go through, by hand; and that it does not matter how a batch is cut."""

from __future__ import annotations

import pytest
import torch

from efuda.recipes import AugmentRecipe
from efuda.training.augment import apply, augment, blend, draw, normalise


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_flip_alone_is_a_tensor_flip(pictures: torch.Tensor) -> None:
    flipped = augment(pictures, AugmentRecipe(flip=1.0), torch.Generator().manual_seed(3))
    assert torch.equal(flipped, pictures.flip(3))
    kept = augment(pictures, AugmentRecipe(flip=0.0), torch.Generator().manual_seed(3))
    assert torch.equal(kept, pictures)
    some = augment(pictures, AugmentRecipe(flip=0.5), torch.Generator().manual_seed(3))
    kinds = [
        "same" if torch.equal(one, before) else "flipped" if torch.equal(one, before.flip(2)) else "other"
        for one, before in zip(some, pictures, strict=True)
    ]
    assert set(kinds) == {"same", "flipped"}


def test_affine_map_without_a_turn_is_the_identity(pictures: torch.Tensor) -> None:
    hardly = AugmentRecipe(flip=0.0, rotate=1e-9)  # not zero, so the map is really sampled
    assert torch.allclose(augment(pictures, hardly, torch.Generator().manual_seed(3)), pictures, atol=1e-5)
    mirrored = AugmentRecipe(flip=1.0, rotate=1e-9)
    assert torch.allclose(augment(pictures, mirrored, torch.Generator().manual_seed(3)), pictures.flip(3), atol=1e-5)


def test_what_comes_into_view_is_white() -> None:
    black = torch.zeros(4, 3, 32, 32)
    turned = augment(black, AugmentRecipe(flip=0.0, rotate=45.0), torch.Generator().manual_seed(1))
    assert turned[:, :, 16, 16].abs().max() < 1e-6
    assert turned.amax() == 1
    small = augment(black, AugmentRecipe(flip=0.0, scale=(0.5, 0.5)), torch.Generator().manual_seed(1))
    assert torch.equal(small[:, :, :7], torch.ones(4, 3, 7, 32))
    assert small[:, :, 10:22, 10:22].abs().max() < 1e-6


def test_same_generator_same_pictures(pictures: torch.Tensor) -> None:
    recipe = AugmentRecipe(rotate=15.0, shift=0.1, scale=(0.8, 1.2))
    first, again, other = (augment(pictures, recipe, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_normalise_by_hand() -> None:
    done = normalise(torch.full((1, 3, 1, 1), 0.5), (0.5, 0.4, 0.1), (0.1, 0.1, 0.2))
    assert done.flatten().tolist() == pytest.approx([0.0, 1.0, 2.0], abs=1e-6)


BUSY = AugmentRecipe(
    rotate=15.0, shift=0.1, scale=(0.8, 1.2), crop=0.3, colour=0.4, cutout=0.3, mixup=0.5, filters=("box", "bilinear")
)


def test_any_part_of_a_batch_is_what_it_is_in_the_whole(pictures: torch.Tensor) -> None:
    plan = draw(6, BUSY, generator())
    whole = apply(pictures, plan, BUSY)
    rows = torch.tensor([1, 4, 5])
    assert torch.allclose(apply(pictures[rows], plan.only(rows), BUSY), whole[rows], atol=1e-6)


def test_a_crop_shows_a_part_of_the_picture_and_nothing_else() -> None:
    recipe = AugmentRecipe(flip=0.0, crop=0.5)
    plan = draw(200, recipe, generator())
    assert plan.zoom.min() >= 1 and plan.zoom.max() > 1.8
    assert ((1 / plan.zoom + plan.across.abs()) <= 1 + 1e-6).all(), "the view never leaves the picture"
    black = torch.zeros(200, 3, 16, 16)
    assert apply(black, plan, recipe).max() < 1e-5, "so nothing white comes in"
    assert plan.cropped.all()
    assert not draw(5, AugmentRecipe(), generator()).cropped.any()


def test_colours_by_hand() -> None:
    picture = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    recipe = AugmentRecipe(flip=0.0, colour=0.5)
    plan = draw(1, recipe, generator())
    one = torch.ones(1)
    still = type(plan)(**{**vars(plan), "brightness": one, "contrast": one, "saturation": one})
    assert torch.allclose(apply(picture, still, recipe), picture, atol=1e-6)
    half = type(plan)(**{**vars(still), "brightness": one / 2})
    assert torch.allclose(apply(picture, half, recipe), picture / 2, atol=1e-6)
    grey = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    faint = type(plan)(**{**vars(still), "saturation": one * 0})
    assert apply(picture, faint, recipe).flatten().tolist() == pytest.approx([grey] * 12)
    doubled = torch.tensor([0.2, 0.8]).view(1, 1, 1, 2).expand(1, 3, 2, 2)  # the mean is 0.5
    flat = type(plan)(**{**vars(still), "contrast": one / 2})
    assert apply(doubled, flat, recipe)[0, 0, 0].tolist() == pytest.approx([0.35, 0.65])


def test_a_square_is_cut_out() -> None:
    recipe = AugmentRecipe(flip=0.0, cutout=0.5)
    done = augment(torch.ones(8, 3, 16, 16), recipe, generator())
    holes = (done == 0.5).all(dim=1).sum(dim=(1, 2))
    assert holes.tolist() == [64] * 8
    assert (done == 1).sum() == 8 * 3 * (256 - 64)


def test_neighbours_are_blended_by_one_share() -> None:
    plan = draw(5, AugmentRecipe(mixup=0.5), generator())
    share = plan.share
    assert share[0] == share[1] and share[2] == share[3] and share[4] == 1
    assert 0 < share[0] < 1 and share[0] != share[2]
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    mixed = blend(values, torch.tensor([0.75, 0.75]), torch.tensor([1, 0]))
    assert mixed.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert (draw(4, AugmentRecipe(), generator()).share == 1).all()


def test_shares_have_the_mean_and_spread_of_a_beta() -> None:
    share = draw(20_000, AugmentRecipe(mixup=2.0), generator()).share[::2]
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.var()) == pytest.approx(0.05, abs=0.003)  # ab / ((a + b)² (a + b + 1))
