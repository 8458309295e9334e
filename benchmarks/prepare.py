"""What `efuda prepare` costs: its metadata stage beside a bare DuckDB copy of the same fields, and a second run.

    python benchmarks/prepare.py                           # 0.3 and 3 million posts of Danbooru2021's fields
    python benchmarks/prepare.py --posts 300000 --schema 2017 --packing gz
    python benchmarks/prepare.py --keep DIR                # keep the generated dumps there, and use them again

Both read the same file, in fresh processes, in turn, after it was read once (a file larger than memory is then cold for
both). Limits we set ourselves: at least 0.9 of the copy's speed; at most 1.5 GB, however many posts; a cost linear in
posts; a second run with nothing changed at most 3 % of the first. Memory is the largest PSS of all processes together,
sampled every 50 ms, and with it its part that no file backs. Processor seconds are those of all processes: they say
more than the clock where the machine has other work. Prints Markdown tables, or with --json the figures alone. For the
dumps see generate.py; they, the copy and the stage's own files want about 2.5 KB of disk a post.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from generate import add_arguments, find_tags, generate
from PIL import Image
from processes import Run, watch
from taglist import TagList

STAGES = ("copy", "efuda")
FIELDS = {
    "id": "BIGINT",
    "parent_id": "BIGINT",
    "rating": "VARCHAR",
    "is_deleted": "BOOLEAN",
    "is_banned": "BOOLEAN",
    "md5": "VARCHAR",
    "file_ext": "VARCHAR",
    "score": "INTEGER",
    "created_at": "VARCHAR",
    "updated_at": "VARCHAR",
}
TAG_FIELDS = {
    2021: {f"tag_string_{name}": "VARCHAR" for name in ("general", "artist", "copyright", "character", "meta")},
    2017: {"tags": "STRUCT(id VARCHAR, name VARCHAR, category VARCHAR)[]"},
}


def bare_copy(file: Path, folder: Path, schema: int) -> dict[str, Any]:
    """DuckDB with its own settings: the fields that efuda reads, from the dump to Parquet."""
    import duckdb

    columns = FIELDS | TAG_FIELDS[schema]
    rows = f"SELECT {', '.join(columns)} FROM read_json('{file}', format='newline_delimited', columns={columns})"
    out = folder / "copy.parquet"
    began = time.perf_counter()
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({rows}) TO '{out}' (FORMAT parquet)")
    seconds = time.perf_counter() - began
    with duckdb.connect() as connection:
        posts = connection.execute(f"SELECT count(*) FROM '{out}'").fetchone()
    return {"seconds": seconds, "posts": posts[0] if posts else 0}


def metadata_stage(file: Path, folder: Path, recipe_name: str) -> dict[str, Any]:
    """efuda's metadata stage: from the dump to sampled, labelled posts and the vocabulary."""
    from efuda.datasets import read_metadata
    from efuda.recipes import load_recipe

    recipe = load_recipe(recipe_name)
    began = time.perf_counter()
    with read_metadata([file], recipe, folder=folder) as metadata:
        funnel = dict(metadata.funnel)
    return {"seconds": time.perf_counter() - began, "posts": funnel["entries"], "funnel": funnel}


def stage_process(argument: str) -> None:
    """What a fresh process does: one stage on one file; prints a JSON object."""
    stage, file, folder, schema, recipe = json.loads(argument)
    before = processor_seconds()
    if stage == "copy":
        answer = bare_copy(Path(file), Path(folder), schema)
    else:
        answer = metadata_stage(Path(file), Path(folder), recipe)
    print(json.dumps(answer | {"processor": processor_seconds() - before}))


def processor_seconds() -> float:
    """Of this process and its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@dataclass(frozen=True)
class Measured:
    """The median run of one stage at one number of posts."""

    stage: str
    posts: int
    size_mb: float
    seconds: float
    lowest: float
    highest: float
    process_seconds: float
    processor: float
    memory_mb: float
    private_mb: float
    funnel: dict[str, int]

    @property
    def rate(self) -> float:
        """Posts a second."""
        return self.posts / self.seconds


def measure_stages(file: Path, posts: int, options: argparse.Namespace) -> list[Measured]:
    """Each stage `options.repeats` times, in turn."""
    runs: dict[str, list[Run]] = {stage: [] for stage in STAGES}
    read_once(file)
    for turn in range(options.repeats):
        for stage in STAGES if turn % 2 == 0 else STAGES[::-1]:
            with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
                argument = json.dumps([stage, str(file), folder, options.schema, options.recipe])
                run = watch([sys.executable, __file__, "--stage", argument])
            if run.answer["posts"] != posts:
                raise SystemExit(f"{stage} read {run.answer['posts']:,} posts of {file}, which holds {posts:,}.")
            runs[stage].append(run)
            say(options, f"{stage:5} {posts:>9,} posts {run.answer['seconds']:7.1f} s {run.memory_mb:6.0f} MB")
    return [summary(stage, posts, file, runs[stage]) for stage in STAGES]


def summary(stage: str, posts: int, file: Path, runs: Sequence[Run]) -> Measured:
    """Medians of time, the largest of memory."""
    seconds = [run.answer["seconds"] for run in runs]
    return Measured(
        stage=stage,
        posts=posts,
        size_mb=file.stat().st_size / 1e6,
        seconds=statistics.median(seconds),
        lowest=min(seconds),
        highest=max(seconds),
        process_seconds=statistics.median(run.seconds for run in runs),
        processor=statistics.median(run.answer["processor"] for run in runs),
        memory_mb=max(run.memory_mb for run in runs),
        private_mb=max(run.private_mb for run in runs),
        funnel=runs[-1].answer.get("funnel", {}),
    )


def measure_again(tags: TagList, options: argparse.Namespace) -> dict[str, float]:
    """`efuda prepare` of drawn pictures, twice: seconds of both, and of a process that only starts."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        generate(folder / "posts.json", tags, posts=options.pictures, schema=options.schema, seed=options.seed)
        draw_pictures(folder / "posts.json", folder / "512px", options.seed)
        command: list[str | Path] = [sys.executable, "-m", "efuda", "-q", "prepare", folder / "posts.json"]
        command += ["--images", folder / "512px", "--out", folder / "dataset", "--set", "vocabulary.minimum_count=20"]
        first, second = watch([*command, "--json"]), watch([*command, "--json"])
        start = min(watch([sys.executable, "-m", "efuda", "prepare", "--help"]).seconds for _ in range(3))
    say(options, f"prepare of {options.pictures:,} pictures {first.seconds:.1f} s, again {second.seconds:.2f} s")
    return {
        "pictures": options.pictures,
        "first": first.seconds,
        "second": second.seconds,
        "start": start,
        "share": second.seconds / first.seconds,
        "memory_mb": first.memory_mb,
    }


def draw_pictures(posts: Path, folder: Path, seed: int) -> None:
    """A picture of 512×512 for each post: clouds of colour, no two alike, and noise for a usual size of file."""
    rng = np.random.default_rng([seed, 7])
    grain = rng.normal(0, 12, (1024, 1024, 1))
    for number in range(1000):
        (folder / f"{number:04d}").mkdir(parents=True, exist_ok=True)
    with posts.open(encoding="utf-8") as lines:
        ids = [int(json.loads(line)["id"]) for line in lines]
    for post in ids:
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        left, top = rng.integers(0, 512, 2)
        large = np.asarray(small.resize((512, 512), Image.Resampling.BICUBIC), np.float32)
        pixels = np.clip(large + grain[top : top + 512, left : left + 512], 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{post % 1000:04d}" / f"{post}.jpg", quality=90)


def dump(posts: int, tags: TagList, folder: Path, options: argparse.Namespace) -> Path:
    """The generated dump; one that `--keep` kept is used again."""
    suffix = "" if options.packing == "plain" else f".{options.packing}"
    seed = f"_{options.seed}" if options.seed else ""
    path = folder / f"posts_{posts}_{options.schema}{seed}.json{suffix}"
    if not path.is_file():
        say(options, f"generating {path.name}")
        unfinished = path.with_name(f"unfinished_{path.name}")
        generate(unfinished, tags, posts=posts, schema=options.schema, seed=options.seed)
        unfinished.replace(path)
    return path


def read_once(file: Path) -> None:
    """So that both find it in the disk cache."""
    with file.open("rb") as opened:
        while opened.read(1 << 24):
            pass


def table(measured: Sequence[Measured], again: dict[str, float], options: argparse.Namespace) -> str:
    """The Markdown for docs/benchmarks.md."""
    packing = "" if options.packing == "plain" else f", .{options.packing}"
    lines = [
        f"Fields of {'Danbooru2021' if options.schema == 2021 else 'Danbooru2017 to 2020'}{packing}, medians of "
        f"{options.repeats} runs in turn (lowest to highest in brackets), {versions()}.",
        "",
        "| posts | stage | seconds | posts/s | processor seconds | memory, all processes | of it anonymous |",
        "|---|---|---|---|---|---|---|",
        *map(table_row, measured),
    ]
    lines += ["", "| what | seen | limit we set |", "|---|---|---|"]
    figures = compared(measured)
    for posts, ratio in figures["ratios"].items():
        lines.append(f"| speed beside the bare copy, {posts:,} posts | {ratio:.2f} | ≥ 0.90 |")
    for posts, ratio in figures["processor_ratios"].items():
        lines.append(f"| the same in processor seconds, {posts:,} posts | {ratio:.2f} | – |")
    for posts, memory in figures["memory_mb"].items():
        lines.append(f"| peak memory, {posts:,} posts | {memory:,.0f} MB | ≤ 1,500 MB |")
    if "linearity" in figures:
        lines.append(f"| time a post, most posts against fewest | {figures['linearity']:.2f} | about 1 |")
    if again:
        lines.append(
            f"| second run, nothing changed, {again['pictures']:,} pictures (first {again['first']:.1f} s) | "
            f"{again['second']:.2f} s = {again['share']:.1%}; {again['start']:.2f} s of it is starting | ≤ 3 % |"
        )
    return "\n".join(lines)


def table_row(one: Measured) -> str:
    """One stage at one number of posts."""
    name = {"copy": "bare DuckDB copy", "efuda": "efuda, metadata stage"}[one.stage]
    return (
        f"| {one.posts:,} ({one.size_mb:,.0f} MB) | {name} | {one.seconds:.1f} ({one.lowest:.1f}–{one.highest:.1f}) "
        f"| {one.rate:,.0f} | {one.processor:.1f} | {one.memory_mb:,.0f} MB | {one.private_mb:,.0f} MB |"
    )


def compared(measured: Sequence[Measured]) -> dict[str, Any]:
    """What the limits are about: the ratios of the speeds, the memory, the growth of the time a post."""
    by = {(one.stage, one.posts): one for one in measured}
    sizes = sorted({one.posts for one in measured})
    found: dict[str, Any] = {
        "ratios": {posts: by["efuda", posts].rate / by["copy", posts].rate for posts in sizes},
        "processor_ratios": {posts: by["copy", posts].processor / by["efuda", posts].processor for posts in sizes},
        "memory_mb": {posts: by["efuda", posts].memory_mb for posts in sizes},
    }
    if len(sizes) > 1:
        found["linearity"] = by["efuda", sizes[0]].rate / by["efuda", sizes[-1]].rate
    return found


def versions() -> str:
    """What was compared."""
    import duckdb

    return f"DuckDB {duckdb.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores"


def say(options: argparse.Namespace, line: str) -> None:
    """To stderr, so that the table stands alone."""
    if not options.json:
        print(line, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, nargs="*", default=[300_000, 3_000_000])
    parser.add_argument("--pictures", type=int, default=2000, help="for the second run; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--packing", choices=("plain", "gz", "zst"), default="plain")
    parser.add_argument("--recipe", default="reference", help="for the metadata stage")
    parser.add_argument("--keep", type=Path, help="folder of dumps, made where absent and used again")
    parser.add_argument("--scratch", type=Path, help="folder for all that is temporary")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.stage:
        stage_process(options.stage)
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """All of it, and the tables."""
    tags = find_tags(options)
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for posts in sorted(options.posts):
            measured += measure_stages(dump(posts, tags, folder, options), posts, options)
    again = measure_again(tags, options) if options.pictures else {}
    if options.json:
        stages = [vars(one) | {"rate": one.rate} for one in measured]
        print(json.dumps({"stages": stages, "compared": compared(measured), "again": again}, indent=1))
    else:
        print(table(measured, again, options))


if __name__ == "__main__":
    main()
