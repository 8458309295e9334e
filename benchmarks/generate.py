"""Dumps of invented posts with the real distribution of tags, for benchmarks.

    python benchmarks/generate.py posts.json --posts 300000                     # fields of Danbooru2021
    python benchmarks/generate.py posts.json.gz --posts 300000 --schema 2017    # fields of Danbooru2017 to 2020

Names, categories and counts come from a tag list CSV as a1111's tagcomplete has it (`name,category,count,aliases`, no
header). A tag is drawn for a post with the probability that it has on the site; posts have about 30 tags, 5 to 80, as
many artists, copyrights and characters as is usual. Tags are independent of each other, which real ones are not. Such
lists end at 25 posts a tag; --rare adds that many invented tags below. The same seed gives the same bytes (of one
version of numpy). Columns are made a block at a time in numpy and put together by Arrow: 3 million posts take about a
minute on one core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
from numpy.typing import NDArray
from taglist import CATEGORIES, MOST_TAGS, Drawer, Drawn, Ints, TagList, draw_tags

ROOT = Path(__file__).resolve().parent.parent
TAG_LIST = Path(os.environ.get("EFUDA_TAG_LIST", ROOT.parent / "shared" / "data" / "taglists" / "danbooru_tags.csv"))
BLOCK = 50_000
RATINGS, RATING_SHARES = ("s", "q", "e"), (0.76, 0.15, 0.09)
EXTENSIONS, EXTENSION_SHARES = ("jpg", "png", "gif", "webm", "mp4", "zip"), (0.72, 0.26, 0.01, 0.004, 0.003, 0.003)
WIDTHS = (600, 707, 800, 850, 1000, 1200, 1240, 1280, 1500, 1654, 1920, 2048, 2480, 2894, 3000, 3507, 4096)
FIRST_POST, LAST_POST = np.datetime64("2005-05-24T03:35:31", "us"), np.datetime64("2021-11-21T00:00:00", "us")
HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


@dataclass(frozen=True)
class _Posts:
    """What must be known of all posts before the first is written."""

    ids: Ints
    created: NDArray[np.datetime64]
    parents: Ints  # 0: none
    has_children: NDArray[np.bool_]

    @classmethod
    def draw(cls, posts: int, rng: np.random.Generator) -> _Posts:
        gaps = 1 + (rng.random(posts) < 0.03) * rng.geometric(0.4, posts)
        ids = np.cumsum(gaps)
        span = (LAST_POST - FIRST_POST).astype(np.int64) / max(posts, 1)
        waits = 1000 + np.maximum(rng.exponential(span - 1000, posts).astype(np.int64) // 1000 * 1000, 0)
        nearness = rng.geometric(0.3, posts)
        numbers = np.arange(posts)
        has_parent = (rng.random(posts) < 0.12) & (numbers >= nearness)
        parents = np.where(has_parent, numbers - nearness, 0)
        has_children = np.zeros(posts, bool)
        has_children[parents[has_parent]] = True
        return cls(ids, FIRST_POST + np.cumsum(waits), np.where(has_parent, ids[parents], 0), has_children)

    def __getitem__(self, part: slice) -> _Posts:
        return _Posts(self.ids[part], self.created[part], self.parents[part], self.has_children[part])


class Generator:
    """Blocks of lines; every block has a seed of its own."""

    def __init__(self, tags: TagList, schema: int, posts: int, seed: int) -> None:
        self.tags, self.schema, self.seed = tags, schema, seed
        self.drawers = {category: Drawer(tags, category) for category in CATEGORIES}
        self.posts = _Posts.draw(posts, np.random.default_rng([seed, 0]))

    def blocks(self) -> Iterator[memoryview]:
        """The bytes of the lines, `BLOCK` posts at a time."""
        write = _lines_2017 if self.schema == 2017 else _lines_2021
        for number, start in enumerate(range(0, len(self.posts.ids), BLOCK), start=1):
            posts = self.posts[start : start + BLOCK]
            rng = np.random.default_rng([self.seed, number])
            drawn = draw_tags(len(posts.ids), self.drawers, rng)
            lines = write(posts, drawn, self.tags, rng)
            ends = np.frombuffer(lines.buffers()[1], np.int32)
            yield memoryview(lines.buffers()[2])[int(ends[lines.offset]) : int(ends[lines.offset + len(lines)])]


def _fields(posts: _Posts, rng: np.random.Generator) -> dict[str, Any]:
    """The fields that both schemas have, as strings without quotes."""
    rows = len(posts.ids)
    md5 = _hex(rng.integers(0, 256, (rows, 16), np.uint8))
    pixiv = np.where(rng.random(rows) < 0.6, 10_000_000 + posts.ids * 17, 0)
    tweet = arrow.array(1_000_000_000_000_000_000 + posts.ids * 90_001_234_567)
    moment = compute.strftime(arrow.array(posts.created.astype("datetime64[s]")), "%Y/%m/%d/%H/%M/%S")
    sources = [
        _join("https://i.pximg.net/img-original/img/", moment, "/", _text(pixiv), "_p0.png"),
        _join("https://twitter.com/i/web/status/", compute.cast(tweet, arrow.string())),
        arrow.array([""] * rows),
    ]
    which = np.where(pixiv > 0, 0, 1 + (rng.random(rows) < 0.15))
    up = rng.geometric(0.06, rows) - 1
    down = -(rng.random(rows) < 0.05).astype(np.int64) * rng.integers(1, 4, rows)
    width = rng.choice(WIDTHS, rows)
    height = (width * rng.choice((0.5625, 0.7, 1.0, 1.0, 1.33, 1.414, 1.414, 1.5, 1.778), rows)).astype(np.int64)
    lag = rng.exponential(400 * 86400e6, rows).astype(np.int64) // 1000 * 1000 + 60_000_000
    commented = rng.random(rows) < 0.12
    return {
        "id": _text(posts.ids),
        "created": posts.created,
        "updated": posts.created + lag,
        "uploader_id": _text(rng.integers(1, 700_000, rows)),
        "approver_id": _text(rng.integers(1, 700_000, rows)),
        "approved": rng.random(rows) < 0.4,
        "score": _text(up + down),
        "up_score": _text(up),
        "down_score": _text(down),
        "fav_count": _text((up * 1.4).astype(np.int64)),
        "source": compute.choose(arrow.array(which), *sources),
        "md5": md5,
        "rating": _one_of(RATINGS, RATING_SHARES, rows, rng),
        "width": _text(width),
        "height": _text(height),
        "large": _truth(width > 850),
        "ext": _one_of(EXTENSIONS, EXTENSION_SHARES, rows, rng),
        "size": _text((width * height * rng.uniform(0.1, 1.6, rows)).astype(np.int64)),
        "parents": posts.parents,
        "children": _truth(posts.has_children),
        "pixiv": pixiv,
        "deleted": _truth(rng.random(rows) < 0.05),
        "banned": _truth(rng.random(rows) < 0.012),
        "commented": commented,
        "comment": posts.created + lag // 3,
        "noted": rng.random(rows) < 0.07,
    }


def _lines_2021(posts: _Posts, drawn: Drawn, tags: TagList, rng: np.random.Generator) -> Any:
    f = _fields(posts, rng)
    by = {name: drawn.only(tags.categories[drawn.codes] == number) for number, name in CATEGORIES.items()}
    url = _join(compute.utf8_slice_codeunits(f["md5"], 0, 2), "/", compute.utf8_slice_codeunits(f["md5"], 2, 4), "/")
    file = _join(url, f["md5"])
    comment = _or_null(f["commented"], _join('"', _iso(f["comment"]), '"'))
    parts = [
        ('{"id":', f["id"]),
        (',"created_at":"', _iso(f["created"])),
        ('","uploader_id":', f["uploader_id"]),
        (',"score":', f["score"]),
        (',"source":"', f["source"]),
        ('","md5":"', f["md5"]),
        ('","last_comment_bumped_at":', comment),
        (',"rating":"', f["rating"]),
        ('","image_width":', f["width"]),
        (',"image_height":', f["height"]),
        (',"tag_string":"', drawn.join(tags.escaped, " ")),
        ('","is_note_locked":false,"fav_count":', f["fav_count"]),
        (',"file_ext":"', f["ext"]),
        ('","last_noted_at":', _or_null(f["noted"], _join('"', _iso(f["updated"]), '"'))),
        (',"is_rating_locked":false,"parent_id":', _or_null(f["parents"] > 0, _text(f["parents"]))),
        (',"has_children":', f["children"]),
        (',"approver_id":', _or_null(f["approved"], f["approver_id"])),
        *(
            (f',"tag_count_{name}":', _text(by[name].amounts))
            for name in ("general", "artist", "character", "copyright")
        ),
        (',"file_size":', f["size"]),
        (',"is_status_locked":false,"up_score":', f["up_score"]),
        (',"down_score":', f["down_score"]),
        (',"is_pending":false,"is_flagged":false,"is_deleted":', f["deleted"]),
        (',"tag_count":', _text(drawn.amounts)),
        (',"updated_at":"', _iso(f["updated"])),
        ('","is_banned":', f["banned"]),
        (',"pixiv_id":', _or_null(f["pixiv"] > 0, _text(f["pixiv"]))),
        (',"last_commented_at":', comment),
        (',"has_active_children":', f["children"]),
        (',"bit_flags":0,"tag_count_meta":', _text(by["meta"].amounts)),
        (',"has_large":', f["large"]),
        (',"has_visible_children":', f["children"]),
        *(
            (f'{"" if first else chr(34)},"tag_string_{name}":"', by[name].join(tags.escaped, " "))
            for first, name in (
                (True, "general"),
                *((False, one) for one in ("character", "copyright", "artist", "meta")),
            )
        ),
        ('","file_url":"https://cdn.donmai.us/original/', _join(file, ".", f["ext"])),
        ('","large_file_url":"https://cdn.donmai.us/sample/', _join(url, "sample-", f["md5"])),
        ('.jpg","preview_file_url":"https://cdn.donmai.us/preview/', file),
    ]
    return _join(*(piece for part in parts for piece in part), '.jpg"}\n')


def _lines_2017(posts: _Posts, drawn: Drawn, tags: TagList, rng: np.random.Generator) -> Any:
    f = _fields(posts, rng)
    rows = len(posts.ids)
    fans = rng.poisson(rng.exponential(9, rows))
    favs = Drawn(np.concatenate([[0], np.cumsum(fans)]), rng.integers(0, 600_000, int(fans.sum())))
    never = arrow.array(["1970-01-01 00:00:00 UTC"] * rows)
    comment = compute.if_else(arrow.array(f["commented"]), _utc(f["comment"]), never)
    parts = [
        ('{"id":"', f["id"]),
        ('","created_at":"', _utc(f["created"])),
        ('","uploader_id":"', f["uploader_id"]),
        ('","score":"', f["score"]),
        ('","source":"', f["source"]),
        ('","md5":"', f["md5"]),
        ('","last_commented_at":"', comment),
        ('","rating":"', f["rating"]),
        ('","image_width":"', f["width"]),
        ('","image_height":"', f["height"]),
        ('","is_note_locked":false,"file_ext":"', f["ext"]),
        ('","last_noted_at":"', compute.if_else(arrow.array(f["noted"]), _utc(f["updated"]), never)),
        ('","is_rating_locked":false,"parent_id":"', _text(f["parents"])),
        ('","has_children":', f["children"]),
        (',"approver_id":"', compute.if_else(arrow.array(f["approved"]), f["approver_id"], "0")),
        ('","file_size":"', f["size"]),
        ('","is_status_locked":false,"up_score":"', f["up_score"]),
        ('","down_score":"', f["down_score"]),
        ('","is_pending":false,"is_flagged":false,"is_deleted":', f["deleted"]),
        (',"updated_at":"', _utc(f["updated"])),
        ('","is_banned":', f["banned"]),
        (',"pixiv_id":"', _text(f["pixiv"])),
        ('","tags":[', drawn.join(tags.objects, ",")),
        ('],"pools":[],"favs":[', favs.join(_users(), ",")),
    ]
    return _join(*(piece for part in parts for piece in part), "]}\n")


@cache
def _users() -> Any:
    return arrow.array([f'"{number}"' for number in range(600_000)])


def _join(*parts: Any) -> Any:
    return compute.binary_join_element_wise(*parts, "")


def _text(numbers: NDArray[Any]) -> Any:
    return compute.cast(arrow.array(numbers), arrow.string())


def _truth(values: NDArray[np.bool_]) -> Any:
    return compute.if_else(arrow.array(values), "true", "false")


def _or_null(where: NDArray[np.bool_], values: Any) -> Any:
    return compute.if_else(arrow.array(where), values, "null")


def _one_of(words: tuple[str, ...], shares: tuple[float, ...], rows: int, rng: np.random.Generator) -> Any:
    return arrow.array(words).take(arrow.array(rng.choice(len(words), rows, p=shares)))


def _hex(values: NDArray[np.uint8]) -> Any:
    digits = HEX[np.stack([values >> 4, values & 15], axis=-1)].reshape(len(values), -1)
    starts = np.arange(len(values) + 1, dtype=np.int32) * digits.shape[1]
    return arrow.StringArray.from_buffers(len(values), arrow.py_buffer(starts), arrow.py_buffer(digits.tobytes()))


def _iso(times: NDArray[np.datetime64]) -> Any:
    text = compute.cast(arrow.array(times.astype("datetime64[ms]")), arrow.string())
    return _join(compute.binary_replace_slice(text, 10, 11, "T"), "-05:00")


def _utc(times: NDArray[np.datetime64]) -> Any:
    return _join(compute.binary_replace_slice(compute.cast(arrow.array(times), arrow.string()), 25, 26, " UTC"))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file to write, compressed as its name says."""
    if path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=6) as packed:
            yield packed
    elif path.suffix == ".zst":
        with arrow.CompressedOutputStream(str(path), "zstd") as packed:
            yield packed
    else:
        with path.open("wb") as file:
            yield file


def generate(out: Path, tags: TagList, *, posts: int, schema: int = 2021, seed: int = 0, check: bool = True) -> int:
    """Write `posts` posts as JSON lines; returns the bytes before compression.

    Args:
        schema: 2021 for the fields of the API, 2017 for those of 2017 to 2020.
        check: parse every 97th line of each block again, and compare its tags.
    """
    size = 0
    with _opened(out) as file:
        for block in Generator(tags, schema, posts, seed).blocks():
            file.write(block)
            size += len(block)
            if check:
                check_lines(bytes(block).splitlines()[::97], schema)
    return size


def check_lines(lines: list[bytes], schema: int) -> None:
    """Every line is JSON, and its tags agree with each other and are of the right kind."""
    for line in lines:
        post = json.loads(line)
        if schema == 2017:
            tags = [tag["name"] for tag in post["tags"]]
            assert all(isinstance(post[name], str) for name in ("id", "score", "parent_id", "pixiv_id")), line
        else:
            tags = post["tag_string"].split()
            parts = {name: post[f"tag_string_{name}"].split() for name in CATEGORIES.values()}
            assert sorted(tags) == sorted(tag for part in parts.values() for tag in part), line
            assert all(post[f"tag_count_{name}"] == len(part) for name, part in parts.items()), line
        assert tags and len(set(tags)) == len(tags) <= MOST_TAGS and len(post["md5"]) == 32, line


def find_tags(options: argparse.Namespace) -> TagList:
    """The tag list that `options` ask for; ends the benchmark where there is none and no invented one is allowed."""
    if not options.tags.is_file() and not options.zipf:
        print(f"Not measured: no tag list at {options.tags}; name one with --tags, or pass --zipf for an invented one.")
        sys.exit(0)
    tags = TagList.read(options.tags) if options.tags.is_file() else TagList.zipf()
    return tags.with_rare(options.rare) if options.rare else tags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What generation may be told."""
    parser.add_argument("--schema", type=int, choices=(2021, 2017), default=2021, help="2017: as of 2017 to 2020")
    parser.add_argument(
        "--tags", type=Path, default=TAG_LIST, help="tag list CSV; EFUDA_TAG_LIST names another default"
    )
    parser.add_argument("--zipf", action="store_true", help="without a tag list, use invented tags")
    parser.add_argument("--rare", type=int, default=0, help="invented tags rarer than those of the list")
    parser.add_argument("--seed", type=int, default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="ends in .json, .gz or .zst")
    parser.add_argument("--posts", type=int, default=300_000)
    add_arguments(parser)
    options = parser.parse_args()
    tags = find_tags(options)
    began = time.perf_counter()
    size = generate(options.out, tags, posts=options.posts, schema=options.schema, seed=options.seed)
    took = time.perf_counter() - began
    print(
        f"{options.posts:,} posts, {size / 1e6:,.0f} MB, {size / max(options.posts, 1):,.0f} bytes a post, {took:.1f} s"
    )


if __name__ == "__main__":
    main()
