"""Writes the demo's data: a dump shaped like Danbooru2021, rendered on the spot from DiceBear's styles.

    dump = render_dump(Path("demo/dump"), posts=5000, seed=0)

    metadata/posts000000000000.json, …01.json   2021's schema, some lines without an id (banned posts)
    metadata/posts000000000002.json             2017–2020's schema, some tags spelt as an alias
    metadata/tag_aliases000000000000.json       one alias is deleted and must not be followed
    512px/0ddd/id.jpg                           one in a hundred each is missing, cut short, or of a wrong size
    CREDITS.md                                  whose styles these are
    dump.json                                   written last: the parameters and the counts

`posts` counts the lines with an id; about 1 % of lines without one come on top. Everything follows from the seed and a
post's number, so that the files are the same at any number of workers. A second call goes on where the first ended.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from typing import Any

from efuda.demo.pictures import jpeg, paint, resolve, scene_tags
from efuda.demo.posts import FIRST_DAY, Post, alias_rows, banned_row, row_2017, row_2021
from efuda.demo.scenes import Scene, draw_scene, style_definition, variation
from efuda.demo.styles import artist_tag, catalogue, catalogue_text
from efuda.errors import MissingExtra, OutputError, Stopped
from efuda.progress import Progress, silent

__all__ = ["Credit", "Dump", "render_dump"]

MARKER = "dump.json"
STARTED = "dump.started.json"
DEFECTS = ("missing", "truncated", "wrong-size")
FILES = ((0.0, 0.4), (0.4, 0.7), (0.7, 1.0))  # shares of the posts; the last is in the old schema
BATCH = 50  # pictures of one style that a worker makes in one go
PACKAGES = ("dicebear-core", "dicebear-styles", "resvg-py", "pillow")


@dataclass(frozen=True)
class Credit:
    """Whose style it is, as the style's own file says."""

    style: str
    artist: str
    source: str
    licence: str
    licence_url: str


@dataclass(frozen=True)
class Dump:
    """A finished dump."""

    root: Path  # holds metadata/, 512px/ and CREDITS.md
    posts: int  # metadata lines written
    images: int  # images written
    credits: tuple[Credit, ...]
    held_out: tuple[str, ...]  # the artist tags of the styles that no model shall see in training


@dataclass(frozen=True)
class Plan:
    """One post before its picture is made."""

    number: int
    id: int
    scene: Scene
    parent: int | None  # id
    children: bool
    defect: str | None
    noise: tuple[str, ...]  # tags about the post and not about the picture
    deleted: bool


@dataclass(frozen=True)
class Painted:
    """What a worker reports of a picture; the hash is of the whole JPEG, also where the file is cut or absent."""

    number: int
    tags: tuple[str, ...]
    md5: str
    bytes: int


def render_dump(
    out: Path,
    *,
    posts: int = 5000,
    seed: int = 0,
    size: int = 512,
    workers: int | None = None,
    progress: Progress = silent,
) -> Dump:
    """Write the dump into `out`, or return at once where the same dump stands there complete."""
    parameters = _parameters(posts, seed, size)
    finished = _finished(out, parameters)
    if finished:
        return finished
    try:
        (out / "metadata").mkdir(parents=True, exist_ok=True)
        _write(out / STARTED, json.dumps(parameters, indent=1) + "\n")
        plans = _plan(posts, seed)
        painted = _paint_all(out, plans, size, seed, workers or os.cpu_count() or 1, progress)
        lines = _write_metadata(out / "metadata", plans, painted, size, seed)
        return _finish(out, parameters, lines, sum(plan.defect != "missing" for plan in plans))
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error}. Choose another directory.") from error


def _parameters(posts: int, seed: int, size: int) -> dict[str, Any]:
    versions: dict[str, str] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError as error:
            raise MissingExtra("Rendering the demo's pictures", "demo", package) from error
    labels = hashlib.sha256(catalogue_text().encode()).hexdigest()[:12]
    return {"posts": posts, "seed": seed, "size": size, "labels": labels, **versions}


def _finished(out: Path, parameters: Mapping[str, Any]) -> Dump | None:
    """The dump that stands complete in `out`; an error where it, or a begun one, is another dump."""
    for name in (MARKER, STARTED):
        if not (out / name).exists():
            continue
        marker = json.loads((out / name).read_text("utf-8"))
        there = marker["parameters"] if name == MARKER else marker
        differing = [key for key in parameters if there.get(key) != parameters[key]]
        if differing:
            was = ", ".join(f"{key} {there.get(key)}" for key in differing)
            wanted = ", ".join(f"{key} {parameters[key]}" for key in differing)
            raise OutputError(
                f"{out} holds a demo dump with {was}; wanted is one with {wanted}. "
                "Delete it or choose another directory."
            )
        if name == MARKER:
            credits = tuple(Credit(**entry) for entry in marker["credits"])
            return Dump(out, marker["posts"], marker["images"], credits, tuple(marker["held_out"]))
    return None


def _plan(posts: int, seed: int) -> list[Plan]:
    """Decide everything but the pixels, post by post."""
    known = catalogue()
    defects, noise = _scattered_defects(posts, seed), _scattered_noise(posts, seed)
    scenes: list[Scene] = []
    parents: dict[int, int] = {}
    ids: list[int] = []
    deleted: list[bool] = []
    last = 1000
    for number in range(posts):
        rng = Random(f"{seed}/{number}")
        last += 1 + int(rng.expovariate(0.5))
        scene = draw_scene(known, rng, f"{seed}/{number}")
        elder = number - 1 - int(rng.expovariate(1 / 12))
        wanted = rng.random() < 0.085
        if wanted and elder >= 0 and elder not in parents and _can_have_children(scenes[elder]):
            parents[number] = elder
            scene = variation(known, scenes[elder], rng, f"{seed}/{number}")
        scenes.append(scene)
        ids.append(last)
        deleted.append(rng.random() < 0.01)
    elders = set(parents.values())
    return [
        Plan(
            number,
            ids[number],
            scenes[number],
            ids[parents[number]] if number in parents else None,
            number in elders,
            defects.get(number),
            noise.get(number, ()),
            deleted[number],
        )
        for number in range(posts)
    ]


def _can_have_children(scene: Scene) -> bool:
    return len(scene.figures) == 1 and scene.effect is None and catalogue().styles[scene.style].human


def _scattered_defects(posts: int, seed: int) -> dict[int, str]:
    each = max(1, round(posts / 100))
    chosen = Random(f"{seed}/defects").sample(range(posts), min(posts, each * len(DEFECTS)))
    return {number: DEFECTS[at % len(DEFECTS)] for at, number in enumerate(chosen)}


def _scattered_noise(posts: int, seed: int) -> dict[int, tuple[str, ...]]:
    """Tags about the post (`translated`, `tagme`), each on fewer posts than any recipe's smallest count."""
    rng = Random(f"{seed}/noise")
    found: dict[int, tuple[str, ...]] = {}
    for tag, count in catalogue().data["noise"].items():
        for number in rng.sample(range(posts), min(count, max(1, round(count * posts / 5000)))):
            found[number] = (*found.get(number, ()), tag)
    return found


def _paint_all(
    out: Path, plans: Sequence[Plan], size: int, seed: int, workers: int, progress: Progress
) -> dict[int, Painted]:
    """Make every picture; a stop keeps those that were made."""
    painted: dict[int, Painted] = {}
    batches = list(_batches(plans))
    try:
        for made in _run(batches, out, size, seed, workers):
            painted |= {entry.number: entry for entry in made}
            progress("pictures", len(painted), len(plans), unit="pictures")
    except KeyboardInterrupt as error:
        raise Stopped(f"{len(painted)} of {len(plans)} pictures are made", "run the same command again") from error
    return painted


def _run(batches: list[list[Plan]], out: Path, size: int, seed: int, workers: int) -> Iterator[list[Painted]]:
    if workers == 1:
        for batch in batches:
            yield _paint_batch(out, batch, size, seed)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts) as pool:
        futures = [pool.submit(_paint_batch, out, batch, size, seed) for batch in batches]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _ignore_interrupts() -> None:
    """Ctrl-C goes to the whole group; the parent alone decides what then happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _batches(plans: Iterable[Plan]) -> Iterator[list[Plan]]:
    """Posts of one style together, because a process needs up to a second to make a style ready."""
    by_style: dict[str, list[Plan]] = {}
    for plan in plans:
        by_style.setdefault(plan.scene.style, []).append(plan)
    for group in by_style.values():
        for start in range(0, len(group), BATCH):
            yield group[start : start + BATCH]


def _paint_batch(out: Path, plans: Sequence[Plan], size: int, seed: int) -> list[Painted]:
    return [_paint_one(out, plan, size, seed) for plan in plans]


def _paint_one(out: Path, plan: Plan, size: int, seed: int) -> Painted:
    """Write one picture, or take the one that an interrupted run has written."""
    path = out / _place(plan.id)
    if plan.defect is None and path.exists():
        tags = scene_tags(plan.scene, [resolve(figure)[1] for figure in plan.scene.figures])
        data = path.read_bytes()
    else:
        picture, tags = paint(plan.scene, size)
        rng = Random(f"{seed}/{plan.number}/defect")
        if plan.defect == "wrong-size":
            picture = picture.resize(rng.choice([(size, size * 5 // 8), (size // 2, size // 2), (size * 3 // 4, size)]))
        data = jpeg(picture)
        kept = data[: int(len(data) * rng.uniform(0.4, 0.9))] if plan.defect == "truncated" else data
        if plan.defect != "missing":
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, kept)
    names = {*tags, artist_tag(plan.scene.style), *plan.noise}
    if plan.scene.character:
        names |= {plan.scene.character, catalogue().data["copyright"]}
    return Painted(plan.number, tuple(sorted(names)), hashlib.md5(data, usedforsecurity=False).hexdigest(), len(data))


def _place(post_id: int) -> str:
    return f"512px/{post_id % 1000:04d}/{post_id}.jpg"


def _write_metadata(folder: Path, plans: Sequence[Plan], painted: Mapping[int, Painted], size: int, seed: int) -> int:
    """Write the three files of posts and the aliases; answers with the number of lines of posts."""
    known = catalogue()
    categories = known.every_tag()
    ids = {name: 400_000 + 7 * number for number, name in enumerate(sorted(categories))}
    spelt = {consequent: antecedent for antecedent, consequent in known.aliases.items()}
    posts = [_post(plan, painted[plan.number], size, seed) for plan in plans]
    lines = 0
    for part, (start, stop) in enumerate(FILES):
        rows: list[dict[str, Any]] = []
        for number in range(round(start * len(posts)), round(stop * len(posts))):
            rng = Random(f"{seed}/{number}/row")
            if part == len(FILES) - 1:
                rows.append(row_2017(posts[number], categories, ids, spelt, rng))
                continue
            rows.append(row_2021(posts[number], categories))
            if rng.random() < 0.014 or number == round(start * len(posts)):
                rows.append(banned_row(replace(rng.choice(posts), created=posts[number].created), categories))
        _write_lines(folder / f"posts{part:012d}.json", rows)
        lines += len(rows)
    _write_lines(folder / "tag_aliases000000000000.json", alias_rows(known.aliases, known.data["deleted_aliases"]))
    return lines


def _post(plan: Plan, painted: Painted, size: int, seed: int) -> Post:
    rng = Random(f"{seed}/{plan.number}/post")
    created = FIRST_DAY + timedelta(minutes=173 * plan.number + rng.randrange(170), microseconds=rng.randrange(10**6))
    up = int(rng.expovariate(0.12))
    scores = (up, -int(rng.expovariate(1.5)), int(up * rng.uniform(0.5, 1.5)))
    return Post(
        plan.id,
        created,
        painted.tags,
        painted.md5,
        painted.bytes,
        size,
        plan.parent,
        plan.children,
        plan.deleted,
        scores,
    )


def _finish(out: Path, parameters: Mapping[str, Any], lines: int, images: int) -> Dump:
    """Credits, then the marker, whose existence means that the dump is complete."""
    styles = catalogue().styles
    credits = tuple(_credit(name) for name in styles)
    held_out = tuple(artist_tag(name) for name, style in styles.items() if style.held_out)
    _write(out / "CREDITS.md", _credits_text(credits))
    marker = {
        "parameters": dict(parameters),
        "posts": lines,
        "images": images,
        "held_out": held_out,
        "credits": [asdict(credit) for credit in credits],
    }
    _write(out / MARKER, json.dumps(marker, indent=1, ensure_ascii=False) + "\n")
    (out / STARTED).unlink()
    return Dump(out, lines, images, credits, held_out)


def _credit(style: str) -> Credit:
    meta = style_definition(style)["meta"]
    source, licence = meta["source"], meta["license"]
    return Credit(style, meta["creator"]["name"], source["url"], licence["name"], licence["url"])


def _credits_text(credits: Iterable[Credit]) -> str:
    rows = [
        f"| {entry.style} | {entry.artist} | {entry.source} | [{entry.licence}]({entry.licence_url}) |"
        for entry in credits
    ]
    return "\n".join(
        [
            "# Whose styles the demo's pictures are drawn in",
            "",
            "Rendered by DiceBear (https://www.dicebear.com) from the package dicebear-styles. Colours, backgrounds,",
            "effects and pictures of several figures are efuda's: they are remixes under the licences named here.",
            "",
            "| style | artist | source | licence |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "In the words of the styles' own files:",
            "",
            *(f"* {style_definition(entry.style)['meta']['license']['text']}" for entry in credits),
            "",
        ]
    )


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    _write(path, "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows))


def _write(path: Path, content: str | bytes) -> None:
    """Write beside the name and rename, so that a file is whole or absent."""
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(content.encode() if isinstance(content, str) else content)
    beside.replace(path)
