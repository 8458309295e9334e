"""What the demo's pictures shall show: draws, from a seed, the attributes that the renderer is then told.

    rng = random.Random("0/17")
    scene = draw_scene(catalogue(), rng, "0/17")       # one figure or more, before a background
    variation(catalogue(), scene, rng)                  # the same, with one thing changed: a child post

Nothing is rendered here and no tag is decided here; the tags come from what the renderer resolves (`styles.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from random import Random
from typing import Any, TypeVar

from efuda.demo.styles import Catalogue, Palette, StyleMap
from efuda.errors import MissingExtra

__all__ = ["Figure", "Scene", "draw_scene", "style_definition", "variation"]

EXPRESSIVE = ("mouth", "expression", "mood", "eyes")  # components that a child post may change
T = TypeVar("T")

JITTER = 7  # units of RGB by which a palette's colour is moved
NOTHING_BEHIND = "#00000000"  # the background is ours, so that patterns and two figures are possible


@dataclass(frozen=True)
class Figure:
    """One avatar: the options that the renderer gets."""

    style: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Scene:
    """A picture to be made."""

    figures: tuple[Figure, ...]
    backdrop: str  # a key of `backdrops` in tags.json, or "own" where the style brings its background
    colours: tuple[str, ...]  # of the backdrop, #rrggbb
    behind: Figure | None = None  # a landscape, where the backdrop is one
    effect: str | None = None
    character: str | None = None

    @property
    def style(self) -> str:
        return self.figures[0].style


def draw_scene(catalogue: Catalogue, rng: Random, seed: str) -> Scene:
    """A picture drawn from the catalogue's weights."""
    character = _character(catalogue, rng)
    if character:
        style = catalogue.styles[catalogue.data["characters"][character]["style"]]
    else:
        style = catalogue.styles[_weighted(rng, {name: entry.share for name, entry in catalogue.styles.items()})]
    count = _weighted(rng, {1: 94.2, 2: 5.0, 3: 0.8}) if style.human and not character else 1
    framing = _weighted(rng, {tag: values[0] for tag, values in style.framing.items()})
    if count > 1:
        framing = next(iter(style.framing))
    figures = tuple(
        _figure(catalogue, style, rng, f"{seed}/{number}", framing, character if number == 0 else None)
        for number in range(count)
    )
    scene = Scene(figures, "own", (), character=character)
    if not style.own_background:
        scene = _with_backdrop(catalogue, scene, rng, seed)
    if rng.random() < 0.065:
        effect = _weighted(rng, {name: entry["weight"] for name, entry in catalogue.data["effects"].items()})
        scene = replace(scene, effect=effect)
    return scene


def variation(catalogue: Catalogue, scene: Scene, rng: Random, seed: str) -> Scene:
    """The same picture with one thing changed: an expression or the background."""
    figure = scene.figures[0]
    style = catalogue.styles[figure.style]
    changeable = [name for name in EXPRESSIVE if name in style.components and f"{name}Variant" in figure.options]
    if not changeable or rng.random() < 0.4 or _covered(style, figure):
        return _with_backdrop(catalogue, scene, rng, seed, plain=True)
    component = rng.choice(changeable)
    weights = _variant_weights(style, component)
    weights.pop(figure.options[f"{component}Variant"], None)
    options = {**figure.options, f"{component}Variant": _weighted(rng, weights)}
    return replace(scene, figures=(Figure(figure.style, options), *scene.figures[1:]))


@lru_cache(maxsize=32)
def style_definition(name: str) -> dict[str, Any]:
    """A style's JSON as dicebear-styles ships it: its credits, components and variants."""
    try:
        source = files("dicebear_styles").joinpath(f"{name}.json")
    except ModuleNotFoundError as error:
        raise MissingExtra("Rendering the demo's pictures", "demo", "dicebear-styles") from error
    definition: dict[str, Any] = json.loads(source.read_text("utf-8"))
    return definition


def _figure(
    catalogue: Catalogue, style: StyleMap, rng: Random, seed: str, framing: str, character: str | None
) -> Figure:
    given = catalogue.data["characters"][character] if character else {"variants": {}, "colours": {}}
    chosen: dict[str, str] = {}
    options: dict[str, Any] = {"seed": seed, **style.fixed}
    if not style.own_background:
        options["backgroundColor"] = [NOTHING_BEHIND]
    for component in style.components:
        variant = _variant(style, component, chosen, rng, given["variants"])
        options[f"{component}Probability"] = 100 if variant else 0
        if variant:
            chosen[component] = variant
            options[f"{component}Variant"] = variant
    options |= _colours(catalogue, style, rng, given["colours"])
    if framing == "close-up" and not _compact(catalogue, style, chosen):
        framing = next(iter(style.framing))
    return Figure(style.name, options | _placement(style, framing, rng))


def _variant(
    style: StyleMap, component: str, chosen: Mapping[str, str], rng: Random, given: Mapping[str, str | None]
) -> str | None:
    """The variant to show, or None where an optional component stays away."""
    entry = style.components[component]
    there = rng.random() * 100 < entry.get("chance", 100)
    variant = _weighted(rng, _variant_weights(style, component))
    if component in given:
        return given[component]
    for other, variants in entry.get("not_with", {}).items():
        if other in chosen and (variants == "*" or chosen[other] in variants):
            return None
    return variant if there else None


def _variant_weights(style: StyleMap, component: str) -> dict[str, float]:
    entry = style.components[component]
    names = style_definition(style.name)["components"][component]["variants"]
    weights = entry.get("weights", {})
    return {name: weights.get(name, 1.0) for name in names if name not in entry.get("leave_out", ())}


def _covered(style: StyleMap, figure: Figure) -> bool:
    """Whether something worn hides a part of the face, so that a change of it might not be seen."""
    return any(figure.options.get(f"{name}Variant") in variants for name, variants in style.hides.items())


def _colours(catalogue: Catalogue, style: StyleMap, rng: Random, given: Mapping[str, str]) -> dict[str, list[str]]:
    colours: dict[str, list[str]] = {}
    for option, entry in style.colours.items():
        if "same" in entry:
            colours[f"{option}Color"] = colours[f"{entry['same']}Color"]
        else:
            palette = catalogue.palettes[entry["palette"]]
            colours[f"{option}Color"] = [_colour(palette, rng, given.get(option))]
    return colours


def _colour(palette: Palette, rng: Random, name: str | None = None) -> str:
    """A colour of the palette, moved a little so that no colour is one constant."""
    drawn = _weighted(rng, palette.weights)
    base = palette.colours[name or drawn].lstrip("#")
    channels = (int(base[at : at + 2], 16) + rng.randint(-JITTER, JITTER) for at in (0, 2, 4))
    return "#" + "".join(f"{min(255, max(0, channel)):02x}" for channel in channels)


def _compact(catalogue: Catalogue, style: StyleMap, chosen: Mapping[str, str]) -> bool:
    """Whether the hair is short enough that a close-up still shows what it is."""
    entry = style.components["hair"]
    return {tag for tag, names in entry["tags"].items() if chosen["hair"] in names} <= catalogue.groups["compact"]


def _placement(style: StyleMap, framing: str, rng: Random) -> dict[str, Any]:
    """Scale, turn and place in the renderer's units: factors, degrees, percent of the canvas."""
    _, low, high, down = style.framing[framing]
    scale = round(rng.uniform(low, high), 3)
    turn, chance = rng.uniform(-5, 5), rng.random()
    across, along = rng.uniform(-6, 6), rng.uniform(-4, 4) + down
    if not style.loose:
        turn, across = turn * 0.5, across * 0.5
        along = (1 - scale) * 50 + abs(along) * 0.3 if scale < 1 else down + along * 0.3
    elif framing == "portrait" and chance < 0.07:
        turn = rng.choice((-1, 1)) * rng.uniform(15, 25)
    elif framing == "portrait" and chance < 0.085:
        turn, along = 180.0, -along
    return {
        "scale": scale,
        "rotate": round(turn, 2),
        "translateX": round(across, 2),
        "translateY": round(along, 2),
        "flip": rng.choice(("none", "horizontal")),
    }


def _with_backdrop(catalogue: Catalogue, scene: Scene, rng: Random, seed: str, *, plain: bool = False) -> Scene:
    kinds = {name: entry["weight"] for name, entry in catalogue.data["backdrops"].items()}
    kind = "plain" if plain else _weighted(rng, kinds)
    palette = catalogue.palettes["background"]
    first = _colour(palette, rng)
    second = _colour(palette, rng)
    while palette.nearest(second) == palette.nearest(first):
        second = _colour(palette, rng)
    behind = (
        Figure("landscape", {"seed": f"{seed}/behind", "animationVariant": "none", "orbProbability": 0})
        if kind == "outdoors"
        else None
    )
    before = scene.colours[0] if scene.colours else None
    colour = second if before and palette.nearest(before) == palette.nearest(first) else first
    return replace(scene, backdrop=kind, colours=(colour,) if kind == "plain" else (first, second), behind=behind)


def _character(catalogue: Catalogue, rng: Random) -> str | None:
    mark = rng.random() * 1000
    for name, entry in catalogue.data["characters"].items():
        mark -= entry["share"]
        if mark < 0:
            return str(name)
    return None


def _weighted(rng: Random, weights: Mapping[T, float]) -> T:
    choices: Sequence[T] = list(weights)
    return rng.choices(choices, [weights[choice] for choice in choices])[0]
