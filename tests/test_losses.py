"""Losses by hand, and which labels they believe."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from efuda.recipes import AugmentRecipe, LabelsRecipe, LossRecipe
from efuda.training.labels import LabelRules
from efuda.training.losses import per_picture, per_tag, tag_weights
from efuda.vocabulary import Category, Tag, Vocabulary

X = math.log(3)  # a probability of 0.75; −X is 0.25
LOGITS = torch.tensor([[X, -X, X, -X]])
LABELS = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
CPU = torch.device("cpu")


def loss(kind: str, *, epoch: int = 0, **keys: Any) -> list[float]:
    values: list[float] = per_tag(LOGITS, LABELS, LossRecipe(kind=kind, **keys), epoch=epoch)[0].tolist()
    return values


def test_cross_entropy() -> None:
    right, wrong = -math.log(0.75), -math.log(0.25)
    assert loss("bce") == pytest.approx([right, wrong, wrong, right])


def test_focal_discounts_what_is_sure() -> None:
    expected = [0.25**2 * -math.log(0.75), 0.75**2 * -math.log(0.25), 0.75**2 * -math.log(0.25)]
    expected += [0.25**2 * -math.log(0.75)]
    assert loss("focal", gamma_positive=2, gamma_negative=2) == pytest.approx(expected)
    halves = loss("focal", gamma_positive=2, gamma_negative=2, alpha=0.25)
    assert halves == pytest.approx([0.5 * expected[0], 0.5 * expected[1], 1.5 * expected[2], 1.5 * expected[3]])


def test_asymmetric_lowers_the_probability_of_what_is_absent() -> None:
    expected = [-math.log(0.75), -math.log(0.25), 0.7**4 * -math.log(0.3), 0.2**4 * -math.log(0.8)]
    assert loss("asl", gamma_positive=0, gamma_negative=4, clip=0.05) == pytest.approx(expected)


def test_without_its_settings_each_is_cross_entropy() -> None:
    assert loss("asl", gamma_positive=0, gamma_negative=0, clip=0) == pytest.approx(loss("bce"))
    assert loss("focal", gamma_positive=0, gamma_negative=0) == pytest.approx(loss("bce"))


def test_hill_and_splc() -> None:
    def sure(x: float) -> float:  # focal margin of 1
        p = 1 / (1 + math.exp(1 - x))
        return (1 - p) ** 2 * -math.log(p)

    assert loss("hill") == pytest.approx([sure(X), sure(-X), 0.75 * 0.75**2, 1.25 * 0.25**2])
    before = [sure(X), sure(-X), 0.75**2 * -math.log(0.25), 0.25**2 * -math.log(0.75)]
    assert loss("splc", believe_from=1) == pytest.approx(before)
    after = [*before[:2], sure(X), before[3]]  # 0.75 is above 0.6: taken as a missing label
    assert loss("splc", believe_from=1, epoch=1) == pytest.approx(after)


@pytest.mark.parametrize("kind", ["bce", "focal", "asl", "hill", "splc"])
def test_gradients_are_finite_where_the_answer_is_certain(kind: str) -> None:
    logits = torch.tensor([[60.0, -60.0, 60.0, -60.0]], requires_grad=True)
    per_picture(logits, LABELS, LossRecipe(kind=kind), epoch=5).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_a_weight_of_nothing_makes_a_label_unknown() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.5, 1.0]])
    some = per_tag(LOGITS, LABELS, LossRecipe(), weights=weights)[0].tolist()
    assert some == pytest.approx([loss("bce")[0], 0.0, loss("bce")[2] / 2, loss("bce")[3]])


def test_tag_weights_by_hand() -> None:
    tags = [
        Tag("common", count=10_000),
        Tag("rare", count=100),
        Tag("miku", Category.CHARACTER, 1000),
        Tag("x", count=0),
    ]
    assert tag_weights(Vocabulary(tags[:3])).tolist() == pytest.approx([0.5, 1.0, 1.0])
    assert tag_weights(Vocabulary(tags)).tolist()[3] == 1.0


# Which labels are believed

NAMES = ("red_eyes", "blue_eyes", "green_eyes", "hat", "arm_up_left", "arm_up_right")
VOCABULARY = Vocabulary(Tag(name, count=10) for name in NAMES)
EYES = ("red_eyes", "blue_eyes", "green_eyes", "no_such_tag")
NEVER = torch.zeros(2, dtype=torch.bool)


def rules(labels: LabelsRecipe | None = None, augment: AugmentRecipe | None = None) -> LabelRules:
    return LabelRules(VOCABULARY, labels or LabelsRecipe(), augment or AugmentRecipe(), CPU)


def dense(*carried: set[str]) -> torch.Tensor:
    return torch.tensor([[float(name in one) for name in NAMES] for one in carried])


def test_nothing_is_doubted_unless_asked() -> None:
    assert rules().weights(dense({"hat"}, set()), NEVER, NEVER) is None
    assert rules(LabelsRecipe(exclusive=(EYES,))).weights(dense({"hat"}, set()), NEVER, NEVER) is None


def test_what_an_incomplete_post_lacks_counts_less() -> None:
    doubted = rules(LabelsRecipe(few_tags=2, few_weight=0.25)).weights(
        dense({"hat"}, {"hat", "red_eyes"}), NEVER, NEVER
    )
    assert doubted is not None
    assert doubted.tolist() == [[0.25, 0.25, 0.25, 1, 0.25, 0.25], [1] * 6]


def test_another_of_an_exclusive_group_is_surely_absent() -> None:
    recipe = LabelsRecipe(few_tags=9, few_weight=0.5, exclusive=(EYES,), open_weight=0.5)
    doubted = rules(recipe).weights(dense({"red_eyes"}, {"hat"}), NEVER, NEVER)
    assert doubted is not None
    assert doubted.tolist() == [[1, 1, 1, 0.5, 0.5, 0.5], [0.25, 0.25, 0.25, 1, 0.5, 0.5]]


def test_a_mirror_swaps_tags_or_makes_them_unknown() -> None:
    flipped = torch.tensor([True, False])
    labels = dense({"arm_up_left"}, {"arm_up_left"})
    swapping = rules(augment=AugmentRecipe(flip_swaps=(("arm_up_left", "arm_up_right"), ("hat", "no_such_tag"))))
    assert torch.equal(swapping.mirrored(labels, flipped), dense({"arm_up_right"}, {"arm_up_left"}))
    assert torch.equal(rules().mirrored(labels, flipped), labels)
    recipe = AugmentRecipe(flip_unknown=("hat",), crop_unknown=("blue_eyes",))
    doubted = rules(augment=recipe).weights(labels, flipped, torch.tensor([False, True]))
    assert doubted is not None
    assert doubted.tolist() == [[1, 1, 1, 0, 1, 1], [1, 0, 1, 1, 1, 1]]
