"""Renders the demo's scenes: SVG by dicebear-core, pixels by resvg, backgrounds and effects by Pillow.

image, tags = paint(scene, 512)     # an RGB picture of 512×512 and the general tags of what it shows
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from efuda.demo.scenes import Figure, Scene, style_definition
from efuda.demo.styles import COUNTS, Catalogue, catalogue
from efuda.errors import MissingExtra

if TYPE_CHECKING:
    from dicebear import Style

__all__ = ["jpeg", "paint", "resolve", "scene_tags"]

JPEG_QUALITY = 92
CANVAS_CLIP = re.compile(
    r'<g clip-path="url\(#clip-[0-9a-f]+\)">'
)  # what the picture's edge does anyway, at twice the time
SHARES = {1: (1.0, (0.0,)), 2: (0.62, (-0.04, 0.42)), 3: (0.48, (-0.05, 0.26, 0.57))}  # of the width: size, places


def paint(scene: Scene, size: int) -> tuple[Image.Image, set[str]]:
    """The picture, `size` pixels square, and its general tags."""
    share, places = SHARES[len(scene.figures)]
    side = round(size * share)
    picture = _backdrop(scene, size)
    resolved: list[Mapping[str, Any]] = []
    for figure, place in zip(scene.figures, places, strict=True):
        svg, options = resolve(figure)
        layer = _pixels(svg, side)
        loose = catalogue().styles[figure.style].loose
        top = (size - side) // 2 if loose else size - side
        picture.paste(layer, (round(place * size), top), layer)
        resolved.append(options)
    return _with_effect(picture, scene.effect), scene_tags(scene, resolved)


def scene_tags(scene: Scene, resolved: list[Mapping[str, Any]]) -> set[str]:
    """The general tags of a scene whose figures were resolved."""
    known = catalogue()
    tags: set[str] = set()
    for figure, options in zip(scene.figures, resolved, strict=True):
        tags |= known.tags(figure.style, options)
    if known.styles[scene.style].human:
        tags |= {COUNTS[1]} if len(scene.figures) == 1 else {COUNTS[0], COUNTS[len(scene.figures)]}
    if scene.backdrop != "own":
        tags |= set(known.data["backdrops"][scene.backdrop]["tags"])
    if scene.backdrop == "plain":
        tags |= {known.palettes["background"].tag(scene.colours[0]) or ""}
    if scene.effect:
        tags |= set(known.data["effects"][scene.effect]["tags"])
        if "monochrome" in tags:
            tags -= _colour_words(known) - ({"white_background"} if scene.effect == "greyscale" else set())
    return tags


def resolve(figure: Figure) -> tuple[str, Mapping[str, Any]]:
    """An avatar's SVG and the options that the renderer resolved."""
    style = _built(figure.style)
    from dicebear import Avatar

    answer = Avatar(style, dict(figure.options)).to_json()
    return answer["svg"], answer["options"]


def jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


@lru_cache(maxsize=32)
def _built(style: str) -> Style:
    """A style, validated once in a process: that takes up to a second."""
    try:
        from dicebear import Style
    except ModuleNotFoundError as error:
        raise MissingExtra("Rendering the demo's pictures", "demo", "dicebear-core") from error
    return Style(style_definition(style))


def _pixels(svg: str, side: int) -> Image.Image:
    try:
        import resvg_py
    except ModuleNotFoundError as error:
        raise MissingExtra("Rendering the demo's pictures", "demo", "resvg-py") from error
    svg = CANVAS_CLIP.sub("<g>", svg, count=1)
    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True)
    return Image.open(io.BytesIO(png), formats=["PNG"]).convert("RGBA")


@lru_cache(maxsize=1)
def _colour_words(known: Catalogue) -> frozenset[str]:
    """Tags that name a colour, which a picture without colours does not have."""
    words = {"dark_skin"}
    for name in ("hair", "eyes", "background"):
        words |= known.palettes[name].all_tags()
    for style in known.styles.values():
        patterns = {pattern for entry in style.colours.values() for pattern in entry.get("as", ())}
        words |= {pattern.format(colour) for pattern in patterns for colour in known.palettes["things"].colours}
    return frozenset(words)


def _backdrop(scene: Scene, size: int) -> Image.Image:
    if scene.behind:
        return _pixels(resolve(scene.behind)[0], size).convert("RGB")
    if scene.backdrop == "own":
        return Image.new("RGB", (size, size), "white")
    picture = Image.new("RGB", (size, size), scene.colours[0])
    if scene.backdrop == "plain":
        return picture
    if scene.backdrop == "gradient":
        fade = Image.linear_gradient("L").resize((size, size))
        picture.paste(Image.new("RGB", (size, size), scene.colours[1]), mask=fade)
        return picture
    _draw_pattern(ImageDraw.Draw(picture), scene.backdrop, scene.colours[1], size)
    return picture


def _draw_pattern(draw: ImageDraw.ImageDraw, kind: str, colour: str, size: int) -> None:
    """Fill a picture with a pattern whose step is a share of its size, so that it looks alike at any size."""
    if kind == "two-tone":
        draw.polygon([(0, 0), (size, 0), (0, size)], fill=colour)
        return
    step = size / (14 if kind == "grid" else 8)
    for row in range(-1, 15):
        for column in range(-1, 15):
            x, y = column * step, row * step
            if kind == "polka_dot":
                x += step / 2 * (row % 2)
                draw.ellipse([x + 0.25 * step, y + 0.25 * step, x + 0.75 * step, y + 0.75 * step], fill=colour)
            elif kind == "heart":
                _draw_heart(draw, x + step / 2 + step / 2 * (row % 2), y + step / 2, 0.36 * step, colour)
            elif kind == "checkered" and (row + column) % 2:
                draw.rectangle([x, y, x + step - 1, y + step - 1], fill=colour)
            elif kind == "striped" and row == 0 and column % 2:
                draw.rectangle([x, 0, x + step - 1, size], fill=colour)
            elif kind == "grid":
                width = max(1, size // 170)
                draw.rectangle([x, 0, x + width, size], fill=colour)
                draw.rectangle([0, y, size, y + width], fill=colour)


def _draw_heart(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: str) -> None:
    half = radius * 0.55
    for side in (-1, 1):
        draw.ellipse([x + side * half - half, y - 2 * half, x + side * half + half, y], fill=colour)
    draw.polygon([(x - 1.9 * half, y - 0.6 * half), (x + 1.9 * half, y - 0.6 * half), (x, y + 1.6 * half)], fill=colour)


def _with_effect(picture: Image.Image, effect: str | None) -> Image.Image:
    size = picture.width
    if effect == "greyscale":
        return picture.convert("L").convert("RGB")
    if effect == "sepia":
        return ImageOps.colorize(picture.convert("L"), "#2a1606", "#fff0d0", mid="#a98254")
    if effect == "blurry":
        return picture.filter(ImageFilter.GaussianBlur(size / 130))
    if effect == "chromatic_aberration":
        red, green, blue = picture.split()
        return Image.merge(
            "RGB", (ImageChops.offset(red, size // 64, 0), green, ImageChops.offset(blue, -size // 64, 0))
        )
    if effect in ("white_border", "black_border"):
        return _framed(picture, effect.removesuffix("_border"), round(size * 0.045), round(size * 0.045))
    if effect == "letterboxed":
        return _framed(picture, "black", 0, round(size * 0.11))
    return picture


def _framed(picture: Image.Image, colour: str, across: int, along: int) -> Image.Image:
    """The picture with bars of so many pixels drawn over its edges."""
    inner = picture.crop((across, along, picture.width - across, picture.height - along))
    return ImageOps.expand(inner, (across, along), fill=colour)
