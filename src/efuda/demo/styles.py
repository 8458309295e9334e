"""What a resolved DiceBear avatar shows, in Danbooru's words: reads `tags.json` and nothing else.

    catalogue().tags("adventurer", avatar.to_json()["options"])
    {"portrait", "long_hair", "pink_hair", "glasses", "smile", …}

A tag is given only for what the renderer says it drew: `tags.json` holds, for each style, the variants that carry a
tag (each judged by eye), the colour options that carry one, and what hides what (sunglasses hide the eyes).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

__all__ = ["COUNTS", "Catalogue", "Palette", "StyleMap", "artist_tag", "catalogue", "catalogue_text"]

COUNTS = {1: "solo", 2: "2others", 3: "3others", 0: "multiple_others"}  # 0: on every picture of more than one
DUTCH_ANGLE, UPSIDE_DOWN = "dutch_angle", "upside-down"
ARTIST, COPYRIGHT, CHARACTER, META = 1, 3, 4, 5  # Danbooru's categories; 0 is general


@dataclass(frozen=True)
class Palette:
    """Named colours that a picture may use, each with the weight it is drawn with."""

    colours: Mapping[str, str]  # name → #rrggbb
    weights: Mapping[str, float]
    pattern: str | None  # "{}_hair": the tag of any of them
    tags: Mapping[str, str]  # tags of single ones, where there is no pattern

    def nearest(self, hex_colour: str) -> str:
        """The name of the colour that a (slightly changed) colour came from."""
        wanted = _rgb(hex_colour)
        return min(self.colours, key=lambda name: _distance(wanted, _rgb(self.colours[name])))

    def tag(self, hex_colour: str) -> str | None:
        name = self.nearest(hex_colour)
        return self.pattern.format(name) if self.pattern else self.tags.get(name)

    def all_tags(self) -> set[str]:
        return {self.pattern.format(name) for name in self.colours} if self.pattern else set(self.tags.values())


@dataclass(frozen=True)
class StyleMap:
    """One style's entry of `tags.json`."""

    name: str
    share: float  # percent of the posts
    held_out: bool
    human: bool
    loose: bool  # the figure floats: it may be tilted and moved without showing where it ends
    own_background: bool
    always: tuple[str, ...]  # tags of every picture
    framing: Mapping[str, tuple[float, float, float, float]]  # tag → weight, smallest and largest scale, percent down
    framing_tags: Mapping[str, list[str]]
    fixed: Mapping[str, Any]  # options for the renderer that never change
    components: Mapping[str, Mapping[str, Any]]
    colours: Mapping[str, Mapping[str, Any]]
    hides: Mapping[str, Mapping[str, list[str]]]  # component → variant → groups of tags

    def framing_of(self, scale: float) -> str:
        """The framing whose range of scales holds this one; "" where a style has none."""
        return min(self.framing, key=lambda tag: _outside(scale, self.framing[tag][1], self.framing[tag][2]))


class Catalogue:
    """`tags.json`, and the one function that turns a resolved avatar into tags."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.palettes = {name: _palette(entry) for name, entry in data["palettes"].items()}
        self.styles = {name: _style(name, entry) for name, entry in data["styles"].items()}
        self.groups = {name: frozenset(self._expand(tags)) for name, tags in data["groups"].items()}
        self.aliases: dict[str, str] = dict(data["aliases"])

    def tags(self, style_name: str, resolved: Mapping[str, Any]) -> set[str]:
        """The general tags of one figure, from the options the renderer resolved; its background is not looked at."""
        style = self.styles[style_name]
        chosen = {name: resolved.get(f"{name}Variant") for name in style.components}
        framing = style.framing_of(float(resolved.get("scale", 1.0)))
        tags = {*style.always, *style.framing_tags.get(framing, ())} | ({framing} if framing else set())
        for component, entry in style.components.items():
            tags |= {tag for tag, variants in entry["tags"].items() if chosen[component] in variants}
        for option, entry in style.colours.items():
            tags |= self._colour_tags(entry, option, chosen, resolved)
        chosen["framing"] = framing
        tags |= _turn_tags(abs(float(resolved.get("rotate", 0.0))))
        return tags - self._hidden(style, chosen)

    def every_tag(self) -> dict[str, int]:
        """Every tag that a dump can hold, antecedents of aliases included, with its category."""
        data = self.data
        found: set[str] = {*self.aliases, *self.aliases.values()}
        for section in ("backdrops", "effects"):
            found |= {tag for entry in data[section].values() for tag in entry["tags"]}
        for palette in self.palettes.values():
            found |= palette.all_tags()
        for style in self.styles.values():
            found |= _style_tags(style, self.palettes)
        found |= {*COUNTS.values(), DUTCH_ANGLE, UPSIDE_DOWN}
        categories = dict.fromkeys(found, 0)
        categories |= dict.fromkeys(data["characters"], CHARACTER) | {data["copyright"]: COPYRIGHT}
        categories |= dict.fromkeys(data["noise"], META)
        return categories | {artist_tag(name): ARTIST for name in self.styles}

    def _colour_tags(
        self, entry: Mapping[str, Any], option: str, chosen: Mapping[str, Any], resolved: Mapping[str, Any]
    ) -> set[str]:
        if "same" in entry or not resolved.get(f"{option}Color"):
            return set()
        if _matches(entry.get("unseen"), chosen) or not _matches(entry.get("only", {}), chosen):
            return set()
        palette = self.palettes[entry["palette"]]
        colour = resolved[f"{option}Color"][0]
        tag = palette.tag(colour)
        named = palette.nearest(colour)
        worn = {pattern.format(named) for pattern, where in entry.get("as", {}).items() if _matches(where, chosen)}
        return worn | ({tag} if tag else set())

    def _hidden(self, style: StyleMap, chosen: Mapping[str, Any]) -> set[str]:
        hidden: set[str] = set()
        for component, by_variant in style.hides.items():
            for name in by_variant.get(chosen.get(component) or "", ()):
                hidden |= self.groups.get(name, frozenset({name}))
        return hidden

    def _expand(self, tags: Iterable[str]) -> Iterable[str]:
        for tag in tags:
            yield from (tag.format(name) for name in self.palettes["things"].colours) if "{}" in tag else (tag,)


def artist_tag(style: str) -> str:
    """A style stands for an artist: "open-peeps" becomes `open_peeps_(dicebear)`."""
    return f"{style.replace('-', '_')}_(dicebear)"


def catalogue_text() -> str:
    return files("efuda.demo").joinpath("tags.json").read_text("utf-8")


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    return Catalogue(json.loads(catalogue_text()))


def _palette(entry: Mapping[str, Any]) -> Palette:
    colours = entry["colours"]
    return Palette(
        {name: value[0] for name, value in colours.items()},
        {name: value[1] for name, value in colours.items()},
        entry.get("tag"),
        entry.get("tags", {}),
    )


def _style(name: str, entry: Mapping[str, Any]) -> StyleMap:
    return StyleMap(
        name=name,
        share=entry["share"],
        held_out=entry.get("held_out", False),
        human=entry.get("human", True),
        loose=entry["loose"],
        own_background=entry.get("own_background", False),
        always=tuple(entry.get("tags", ())),
        framing={tag: tuple(values) for tag, values in entry["framing"].items()},
        framing_tags=entry.get("framing_tags", {}),
        fixed=entry.get("fixed", {}),
        components=entry["components"],
        colours=entry["colours"],
        hides=entry["hides"],
    )


def _style_tags(style: StyleMap, palettes: Mapping[str, Palette]) -> set[str]:
    """Every tag that pictures of a style can have, but for the colours of hair, eyes, skin and background."""
    found = {*style.always, *(tag for tag in style.framing if tag)}
    found |= {tag for tags in style.framing_tags.values() for tag in tags}
    found |= {tag for entry in style.components.values() for tag in entry["tags"]}
    for entry in style.colours.values():
        names = palettes[entry["palette"]].colours if "as" in entry else ()
        found |= {pattern.format(name) for pattern in entry.get("as", {}) for name in names}
    return found


def _matches(where: Mapping[str, list[str]] | None, chosen: Mapping[str, Any]) -> bool:
    """Whether one of the named components shows one of the named variants; true for {} and false for None."""
    if where is None:
        return False
    return not where or any(chosen.get(component) in variants for component, variants in where.items())


def _turn_tags(degrees: float) -> set[str]:
    """A picture turned by less than 12 degrees has no tag for it."""
    if degrees >= 150:
        return {UPSIDE_DOWN}
    return {DUTCH_ANGLE} if degrees >= 12 else set()


def _outside(value: float, low: float, high: float) -> float:
    return max(low - value, value - high, 0.0)


def _rgb(hex_colour: str) -> tuple[int, int, int]:
    digits = hex_colour.lstrip("#")
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def _distance(a: tuple[int, int, int], b: tuple[int, int, int]) -> int:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
