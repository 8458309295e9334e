"""Recipes: one TOML file says everything about a dataset and a training run, every key typed, explained and checked.

    recipe = load_recipe("reference", ["train.epochs=2"])     # by name, or a path; then overrides
    recipe.train.learning_rate

The recipes that ship with efuda are the `.toml` files beside this module. The resolved copy (every key, defaults
included) is saved in each dataset, run and model.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from efuda.errors import RecipeError

__all__ = ["Recipe", "load_recipe", "recipe_names", "recipe_text"]

CategoryName = Literal["general", "artist", "copyright", "character", "meta"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _none(cls, values: Any) -> Any:
        """TOML has no null: where a key may be absent, "none" says so."""
        if not isinstance(values, dict):
            return values
        optional = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {key: None if key in optional and value == "none" else value for key, value in values.items()}


class PostsRecipe(_Section):
    """Which metadata entries are used: a sample of them, then those that pass every filter."""

    every: int = Field(default=1, ge=1, description="take one entry in so many")
    sample_by: Literal["order", "hash"] = Field(
        default="order", description="order: every k-th entry, starting with the first; hash: by the post's id"
    )
    ratings: tuple[Literal["g", "s", "q", "e"], ...] = Field(default=(), description="use only these; empty: all")
    deleted: bool = Field(default=True, description="use posts that were deleted")
    banned: bool = Field(default=True, description="use posts that were banned")
    minimum_score: int | None = None
    minimum_id: int | None = None
    maximum_id: int | None = None
    created_from: date | None = Field(default=None, description="a day, for example 2015-01-01")
    created_before: date | None = Field(default=None, description="a day; posts of that day are left out")
    file_types: tuple[str, ...] = Field(default=(), description="for example jpg, png; empty: all")
    minimum_tags: int = Field(default=0, ge=0, description="leave out posts with fewer tags, as written")
    without: tuple[str, ...] = Field(default=(), description="leave out posts with one of these tags; * is a wildcard")
    max_bad_lines: float = Field(
        default=0.01, ge=0, le=1, description="stop when more of the lines than this cannot be read"
    )


class VocabularyRecipe(_Section):
    """Which tags are learned."""

    minimum_count: int = Field(
        default=100, ge=1, description="occurrences in the sampled entries below which a tag is cut"
    )
    maximum_size: int | None = Field(default=None, ge=1, description="keep so many of the commonest tags")
    categories: tuple[CategoryName, ...] = ("general", "artist", "copyright", "character", "meta")
    ratings: bool = Field(default=False, description="learn the rating as four further outputs")
    only: str | None = Field(default=None, description="a file of the tags to keep: one a line, or a tag list CSV")
    exclude: tuple[str, ...] = Field(default=(), description="tags to leave out; * is a wildcard")
    aliases: bool = Field(default=True, description="replace aliases by their tag where a file of aliases is known")
    implications: bool = Field(default=True, description="add what a tag implies where a file of implications is known")
    relations: tuple[str, ...] = Field(
        default=(), description="files of aliases, implications or tag lists, besides those beside the metadata"
    )


class ImagesRecipe(_Section):
    """Which pictures are accepted, and whether smaller copies are packed."""

    exact_size: int | None = Field(default=512, ge=1, description="width and height in pixels; none accepts any")
    minimum_side: int = Field(default=1, ge=1, description="shorter side in pixels below which a picture is left out")
    single_colour: bool = Field(default=False, description="accept pictures that are one colour all over")
    pack: int | None = Field(
        default=None, ge=16, description="longer side of the copies in shards; none reads in place"
    )
    quality: int = Field(default=95, ge=1, le=100, description="JPEG quality of the packed copies")


class SplitRecipe(_Section):
    """Which posts are learned from, and which only measured on."""

    method: Literal["hash", "random", "id-modulo", "time"] = Field(
        default="hash",
        description="hash: a post never changes split; random: sklearn's; id-modulo: WD's; time: the newest are test",
    )
    train: float = Field(default=0.64, gt=0, lt=1)
    validation: float = Field(default=0.16, gt=0, lt=1)
    test: float = Field(default=0.20, gt=0, lt=1)
    seed: int = 0
    near_duplicates: int | None = Field(
        default=4, ge=0, le=16, description="bits of 64 in which the hashes of one group's pictures differ at most"
    )
    rare_tags: bool = Field(
        default=True, description="move a group where a tag would have no positive in a split (hash, time)"
    )
    hold_out: tuple[str, ...] = Field(
        default=(), description="posts with one of these tags form a split of their own: unseen"
    )

    @model_validator(mode="after")
    def _whole(self) -> SplitRecipe:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("train, validation and test must add up to 1")
        return self


class ModelRecipe(_Section):
    """The network."""

    backbone: str = Field(
        default="torchvision/resnet50", pattern=r"^(torchvision|timm)/\w+", description="library/name"
    )
    weights: str = Field(
        default="IMAGENET1K_V2",
        description="a torchvision name, 'pretrained' (timm's), a file, 'package:NAME', or 'none' for random",
    )
    init_from: str | None = Field(
        default=None,
        description="a run of efuda to begin with, instead of weights: tags it knows keep what they learned",
    )
    size: int = Field(default=512, ge=16, description="side of the square input in pixels")
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    head: Literal["linear", "ml-decoder"] = Field(
        default="linear", description="ml-decoder: attention over the feature map, for tens of thousands of tags"
    )
    decoder_width: int = Field(default=768, ge=8, description="of the ml-decoder, in features")
    decoder_groups: int = Field(default=100, ge=1, description="queries of the ml-decoder; each answers for some tags")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="before the classifier")
    drop_path: float = Field(default=0.0, ge=0, lt=1, description="stochastic depth, where the backbone has it")


class LabelsRecipe(_Section):
    """How far the absence of a tag is believed: people tag what they see first, and not everything."""

    few_tags: int = Field(default=0, ge=0, description="a post with fewer labels is taken as incompletely tagged")
    few_weight: float = Field(default=1.0, ge=0, le=1, description="weight of what an incomplete post does not carry")
    exclusive: tuple[tuple[str, ...], ...] = Field(
        default=(), description="groups of which a post has one, as eye colours: the others are then surely absent"
    )
    open_weight: float = Field(
        default=1.0, ge=0, le=1, description="weight of the tags of a group of which a post carries none"
    )


class AugmentRecipe(_Section):
    """What training pictures go through, at random; nothing of it touches validation or test."""

    flip: float = Field(default=0.5, ge=0, le=1, description="chance to mirror left and right")
    rotate: float = Field(default=0.0, ge=0, le=180, description="up to so many degrees either way")
    scale: tuple[float, float] = Field(default=(1.0, 1.0), description="zoom range")
    shift: float = Field(default=0.0, ge=0, le=0.5, description="up to this part of the side, both ways")
    crop: float = Field(default=0.0, ge=0, lt=1, description="cut away up to this part of the side, anywhere")
    colour: float = Field(
        default=0.0, ge=0, lt=1, description="range of brightness, contrast and saturation; never hue"
    )
    cutout: float = Field(default=0.0, ge=0, lt=1, description="side of a square that is greyed, as part of the side")
    mixup: float = Field(default=0.0, ge=0, description="alpha of the share in which two pictures are blended; 0: none")
    filters: tuple[Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"], ...] = Field(
        default=(), description="resize with one of these at random; empty: as the model is used"
    )
    flip_swaps: tuple[tuple[str, str], ...] = Field(default=(), description="pairs of tags that a mirror exchanges")
    flip_unknown: tuple[str, ...] = Field(default=(), description="tags that say nothing of a mirrored picture")
    crop_unknown: tuple[str, ...] = Field(
        default=(), description="tags that say nothing of a cropped or turned picture"
    )


class LossRecipe(_Section):
    """What a wrong answer costs; docs/recipes.md says which for what."""

    kind: Literal["bce", "focal", "asl", "hill", "splc"] = "bce"
    reduction: Literal["mean", "sum"] = Field(default="mean", description="over tags; both are averaged over pictures")
    tag_weights: Literal["none", "log"] = Field(
        default="none", description="log: 1 / (log count / log of the rarest count in the category)"
    )
    gamma_positive: float = Field(default=0.0, ge=0, description="asl, focal: how much sure answers are discounted")
    gamma_negative: float = Field(default=4.0, ge=0, description="asl, focal: the same where the tag is absent")
    clip: float = Field(default=0.05, ge=0, lt=1, description="asl: below this probability an absence costs nothing")
    alpha: float = Field(default=0.5, gt=0, lt=1, description="focal: share of the positives")
    margin: float = Field(default=1.0, ge=0, description="hill, splc: by how much a positive must be sure")
    believe: float = Field(default=0.6, gt=0, lt=1, description="splc: from here a missing label is taken as present")
    believe_from: int = Field(default=1, ge=0, description="splc: after so many epochs")


class TrainRecipe(_Section):
    """The optimiser and its schedule."""

    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=16, ge=1, description="pictures a step, over all devices and micro-batches")
    micro_batch: int | Literal["auto"] | None = Field(
        default=None, description="pictures at once on a device; auto: as many as fit; none: all of them"
    )
    optimizer: Literal["adam", "adamw", "lamb"] = "adam"
    learning_rate: float = Field(default=0.001, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0, description="not on norms and biases")
    clip: float | None = Field(default=None, gt=0, description="largest norm of the gradient")
    schedule: Literal["constant", "cosine", "one-cycle"] = Field(
        default="constant", description="cosine falls to 1 % of the rate, one-cycle to 1/250,000"
    )
    warmup: float = Field(default=0.0, ge=0, lt=1, description="part of the steps in which the rate rises")
    head_rate: float = Field(default=1.0, gt=0, description="the new classifier's rate, as a multiple")
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of the averaged weights; 0 keeps none")
    sizes: tuple[tuple[float, int], ...] = Field(
        default=(), description="progressive resolution: [up to this part of the epochs, side in pixels], rising"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: fp16 on CUDA, fp32 elsewhere"
    )
    channels_last: bool = True
    compile: bool = Field(default=False, description="torch.compile the network")
    workers: int | None = Field(default=None, ge=0, description="loader processes; none: one a core")
    checkpoint_minutes: float = Field(default=15.0, gt=0, description="between checkpoints within an epoch")
    keep: int = Field(default=2, ge=1, description="how many of the last checkpoints stay")
    select: Literal["micro_f1", "macro_f1", "map", "loss"] = Field(
        default="micro_f1", description="decides which epoch is best"
    )
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        default=(), description="where the log goes besides log.jsonl, through accelerate"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _rising(self) -> TrainRecipe:
        parts = [part for part, _ in self.sizes]
        if parts != sorted(parts) or any(not 0 < part < 1 for part in parts):
            raise ValueError("sizes must be [part, side] with parts between 0 and 1, rising")
        return self


class CalibrateRecipe(_Section):
    """How thresholds are fitted, on validation only."""

    policy: str = Field(
        default="per-tag",
        pattern=r"^(per-tag|per-category|micro-f1|global|macro-f1|p=r|fixed(=(0?\.\d+|0|1))?|precision>=(0?\.\d+|1))$",
        description="per-tag, per-category, micro-f1 (or global), macro-f1, p=r, precision>=0.95, fixed=0.35",
    )
    shrink: float = Field(
        default=10.0, ge=0, description="positives at which a tag's own fit and its category's weigh the same"
    )
    confidence: float = Field(
        default=0.9, ge=0.5, lt=1, description="how sure precision>=… must be, one-sided; 0.5: as measured"
    )
    probabilities: bool = Field(default=True, description="fit what turns scores into probabilities, too")


class Recipe(_Section):
    """The whole of it."""

    posts: PostsRecipe = PostsRecipe()
    vocabulary: VocabularyRecipe = VocabularyRecipe()
    images: ImagesRecipe = ImagesRecipe()
    split: SplitRecipe = SplitRecipe()
    model: ModelRecipe = ModelRecipe()
    labels: LabelsRecipe = LabelsRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    loss: LossRecipe = LossRecipe()
    train: TrainRecipe = TrainRecipe()
    calibrate: CalibrateRecipe = CalibrateRecipe()

    def to_toml(self) -> str:
        """Every key with its value, as a file that `load_recipe` reads back; needs the extra `train`."""
        import tomli_w

        sections = self.model_dump(mode="json")
        return tomli_w.dumps(
            {
                name: {key: "none" if value is None else value for key, value in keys.items()}
                for name, keys in sections.items()
            }
        )

    def data(self) -> dict[str, Any]:
        """The sections that decide what a dataset holds."""
        return self.model_dump(mode="json", include={"posts", "vocabulary", "images", "split"})


def recipe_names() -> list[str]:
    """The recipes that ship with efuda."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in files(__name__).iterdir() if entry.name.endswith(".toml")
    )


def recipe_text(name_or_path: str) -> str:
    """A recipe's text; raises RecipeError naming the nearest where there is none."""
    path = Path(name_or_path)
    if name_or_path in recipe_names():
        return files(__name__).joinpath(f"{name_or_path}.toml").read_text(encoding="utf-8")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(recipe_names())
        hint = _nearest(name_or_path, recipe_names())
        raise RecipeError(f"No recipe {name_or_path!r}{hint} Name a TOML file, or one of: {known}.") from error


def load_recipe(name_or_path: str | None, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe and apply `section.key=value` overrides.

    Args:
        name_or_path: a shipped recipe, a TOML file, or None for the defaults.
        overrides: the value is read as TOML, or else as a plain string.

    Raises:
        RecipeError: not TOML, an unknown key (the nearest is named), or a value out of range.
    """
    where = name_or_path or "defaults"
    try:
        values = tomllib.loads(recipe_text(name_or_path)) if name_or_path else {}
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where} is not TOML: {error}.") from error
    for override in overrides:
        _apply(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(problem, where) for problem in error.errors())) from error


def _apply(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise RecipeError(f"--set {override!r}: write section.key=value, for example train.epochs=3.")
    text = text.strip()
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    target = values.setdefault(section, {})
    if not isinstance(target, dict):
        raise RecipeError(f"--set {override!r}: {section} is not a section.")
    target[key] = value


def _explain(problem: Any, where: str) -> str:
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        section = Recipe.model_fields.get(path[0])
        known = Recipe.model_fields if len(path) == 1 else section.annotation.model_fields if section else {}  # type: ignore[union-attr]
        return f"{where}: unknown key {name}{_nearest(path[-1], known)}"
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {name} = {problem['input']!r}: {reason[0].lower()}{reason[1:]}."


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f". Known: {', '.join(known)}."
