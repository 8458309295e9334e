"""A dataset's report.html from files made by hand: its numbers are those that can be counted below."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from efuda.datasets.report import Change, Findings, write_report
from efuda.recipes import Recipe, load_recipe

TAGS = [("solo", 0), ("$_$", 0), ("<script>alert(1)</script>", 0), ("hana", 4), ("general", 9)]
# id, split, group, rating, phash, tags
POSTS: list[tuple[int, str, int, str | None, int, list[int]]] = [
    (1, "train", 1, "g", 0b0000, [0, 1, 4]),
    (2, "train", 1, "g", 0b0011, [0, 1]),  # two bits from post 1: a near-duplicate
    (3, "train", 1, "s", 0xFFFF0000, [0, 2]),  # only a relative
    (4, "validation", 4, "e", 0xFF00FF00, [0, 3]),
    (5, "test", 5, None, 0xF0F0F0F0, []),
    (6, "test", 6, "q", 0xAAAAAAAA, [1]),
]
FUNNEL = {
    "entries": 40, "bad_lines": 2, "sampled": 20, "unique_tags": 12_500, "kept_tags": 5, "posts": 10,
    "images_found": 8, "images_verified": 7, "train": 3, "validation": 1, "test": 2,
}  # fmt: skip
FINDINGS = Findings(["Danbooru 2021 JSON lines: 12 files"], counts_before_cut=np.array([400, 200, 100, 50, 1, 1]))
REJECTED = [
    (7, "images", "20×32 instead of 512×512", "0007/7.jpg"),
    (8, "images", "640×480 instead of 512×512", "0008/8.jpg"),
    (9, "images", "missing", None),
    (None, "metadata", "not JSON", "posts.json:3"),
    (None, "metadata", "not JSON", "<b>.json:4"),
]


def jpeg(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(data, "JPEG")
    return data.getvalue()


def write_tags(out: Path, tags: Sequence[tuple[str, int]], carried: dict[str, list[int]]) -> None:
    columns = {
        "index": arrow.array(range(len(tags)), arrow.int32()),
        "name": [name for name, _ in tags],
        "category": arrow.array([category for _, category in tags], arrow.int32()),
        "count": arrow.array([1000 * (len(tags) - row) for row in range(len(tags))], arrow.int64()),
        **{name: arrow.array(counts, arrow.int64()) for name, counts in carried.items()},
        "aliases": arrow.array([["alone"]] + [[]] * (len(tags) - 1), arrow.list_(arrow.string())),
    }
    parquet.write_table(arrow.table(columns), out / "tags.parquet")


def write_posts(out: Path, posts: Sequence[tuple[Any, ...]] = POSTS, **places: Any) -> None:
    ids, splits, groups, ratings, hashes, tags = zip(*posts, strict=True)
    columns = {
        "id": arrow.array(ids, arrow.int64()),
        "split": arrow.array(splits),
        "group": arrow.array(groups, arrow.int64()),
        "rating": arrow.array(ratings, arrow.string()),
        "path": arrow.array([f"{number}.jpg" for number in ids]),
        "phash": arrow.array(hashes, arrow.uint64()),
        "shard": arrow.array(places.get("shard", [-1] * len(ids)), arrow.int32()),
        "offset": arrow.array(places.get("offset", [0] * len(ids)), arrow.int64()),
        "length": arrow.array(places.get("length", [0] * len(ids)), arrow.int64()),
        "tags": arrow.array(tags, arrow.list_(arrow.int32())),
    }
    parquet.write_table(arrow.table(columns), out / "posts.parquet", row_group_size=2)


def write_rejected(out: Path, rows: Sequence[tuple[Any, ...]] = REJECTED) -> None:
    types = {"id": arrow.int64(), "stage": arrow.string(), "reason": arrow.string(), "path": arrow.string()}
    columns = list(zip(*rows, strict=True)) or [()] * 4
    table = {name: arrow.array(column, kind) for (name, kind), column in zip(types.items(), columns, strict=True)}
    parquet.write_table(arrow.table(table), out / "rejected.parquet")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Pictures 1, 2, 4 and 5 lie in place; 3 and 6 are nowhere."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    carried = {"train": [3, 2, 1, 0, 1], "validation": [1, 0, 0, 1, 0], "test": [0, 1, 0, 0, 0], "unseen": [0] * 5}
    write_tags(folder, TAGS, carried)
    write_posts(folder)
    write_rejected(folder)
    (folder / "funnel.json").write_text(json.dumps(FUNNEL))
    for number in (1, 2, 4, 5):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg("teal"))
    return folder


def page(out: Path, findings: Findings = FINDINGS, recipe: Recipe | None = None) -> str:
    write_report(out, recipe or load_recipe(None), findings, str(out.parent))
    return (out / "report.html").read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """The markup of one section."""
    found = re.search(rf"<h2>{re.escape(title)}</h2>(.*?)</section>", text, re.DOTALL)
    assert found, f"no section {title!r}: {re.findall('<h2>(.*?)</h2>', text)}"
    return found[1]


def words(markup: str) -> str:
    """What a reader sees, parts divided by one space."""
    return html.unescape(" ".join(re.sub(r"<title>.*?</title>|<[^>]+>", " ", markup).split()))


def test_the_funnel_in_counts_shares_and_widths(out: Path) -> None:
    funnel = section(page(out), "From entries to posts")
    assert "entries in the metadata 40 100.0% sampled 20 50.0% · −20" in words(funnel)
    assert "pictures found 8 20.0% · −2 pictures verified 7 17.5% · −1 in a split 6 15.0% · −1" in words(funnel)
    assert re.findall(r'<b style="width:([\d.]+)%', funnel) == [
        "100.000",
        "50.000",
        "25.000",
        "20.000",
        "17.500",
        "15.000",
    ]
    assert "“posts that pass the filters”: 10, 25.0% of all entries" in words(funnel)
    assert "different tags 12,500 100.0% kept 5 <0.1%" in words(section(page(out), "From names to outputs"))


def test_tags_curve_and_lengths(out: Path) -> None:
    told = words(section(page(out), "How often tags occur"))
    # 400 + 200 + 100 of 752 occurrences lie at or above the cut of 100; lengths are 3, 2, 2, 2, 0, 1
    assert "cut at 100: 3 tags above" in told
    assert "all tags: 3 of 6 occur at least 100 times, and those make up 93.1% of all" in told
    assert "half of the posts have at most 2 tags, the longest list has 3. Posts without any: 1;" in told
    without = words(section(page(out, replace(FINDINGS, counts_before_cut=None)), "How often tags occur"))
    assert "the kept tags (the others were not counted): 5 of 5" in without


def test_shares_of_categories_and_ratings(out: Path) -> None:
    told = words(section(page(out), "Categories and ratings"))
    assert "Tags general 3 60.0% character 1 20.0% rating 1 20.0%" in told
    assert "What posts carry general 8 80.0% character 1 10.0% rating 1 10.0%" in told
    assert "general 2 33.3% sensitive 1 16.7% questionable 1 16.7% explicit 1 16.7% not said 1 16.7%" in told


def test_what_stands_together(out: Path) -> None:
    heat = section(page(out), "Which tags stand together")
    hints = [html.unescape(hint) for hint in re.findall(r"<title>(.*?)</title>", heat)]
    assert "50.0% of the posts with solo also carry $_$" in hints  # posts 1 and 2 of 1, 2, 3, 4
    assert "66.7% of the posts with $_$ also carry solo" in hints  # 1 and 2 of 1, 2, 6
    assert "25.0% of the posts with solo also carry hana" in hints
    assert "100.0% of the posts with hana also carry solo" in hints
    assert "0.0% of the posts with hana also carry $_$" in hints
    assert len(hints) == 4 * 3
    assert not any("general" in hint for hint in hints)  # ratings are left out


def test_reasons_are_one_where_only_numbers_differ(out: Path) -> None:
    rejected = words(section(page(out), "What was left out"))
    assert "images N×N instead of 512×512 2 40.0% 7 0007/7.jpg, 8 0008/8.jpg" in rejected
    assert "metadata not JSON 2 40.0% posts.json:3, <b>.json:4" in rejected
    assert "images missing 1 20.0% 9" in rejected
    write_rejected(out, [])
    assert "Nothing." in section(page(out), "What was left out")


def test_splits_and_what_they_lack(out: Path) -> None:
    findings = replace(FINDINGS, uncovered={"hana": ("train", "test")}, moved=1234)
    text = page(out, findings)
    told = words(section(text, "Splits"))
    assert "Posts train 3 50.0% validation 1 16.7% test 2 33.3%" in told
    assert "carries train 4 80.0% validation 2 40.0% test 1 20.0%" in told
    assert "Split by hash; the recipe asks for 64% train, 16% validation, 20% test. Posts moved, so that" in told
    assert "a positive in every split: 1,234." in told
    assert "hana character 2,000 0 1 0 train, test" in words(section(text, "Tags that lack a positive in a split: 1"))
    plain = page(out)
    assert "lack a positive" not in plain and "no usable picture carries" not in plain
    write_tags(out, TAGS, {name: [1, 1, 0, 0, 1] for name in ("train", "validation", "test", "unseen")})
    bare = "Tags that no usable picture carries: 2, for example <script>alert(1)</script>, hana;"
    assert bare in words(section(page(out), "Splits"))


def test_groups(out: Path) -> None:
    told = words(section(page(out), "Groups"))
    assert told.startswith("4 groups 1 with several posts 3 posts in those 3 posts in the largest 2 posts with a near")
    assert "differ in at most 4 bits. None stands in several splits" in told
    crossing = words(section(page(out, replace(FINDINGS, crossing=1500)), "Groups"))
    assert "Groups that stand in several splits: 1,500. Pictures that were learned from have relatives" in crossing
    alone = words(section(page(out, recipe=load_recipe(None, ["split.near_duplicates=none"])), "Groups"))
    assert "near-duplicate" not in alone and "A group joins parents and children. " in alone


def test_pictures_that_anyone_may_see(out: Path) -> None:
    shown = section(page(out), "Some of the posts")
    assert re.findall("<h3>(.*?)</h3>", shown) == ["1 · train", "2 · train", "5 · test"]  # not 4, which is explicit
    assert re.findall(r'chip ([\w]+)">(.*?)<', shown)[:2] == [("general", "solo"), ("general", "$_$")]
    assert "only posts rated general, or not at all, are shown" in words(shown)


def test_in_a_dump_without_general_the_safe_are_shown(out: Path) -> None:
    posts = [
        (number, split, group, "s" if rating == "g" else rating, *rest) for number, split, group, rating, *rest in POSTS
    ]
    write_posts(out, posts)
    text = page(out)
    assert text.count("<article>") == 3
    assert "safe or sensitive 3 50.0%" in words(section(text, "Categories and ratings"))
    write_rejected(out, [(9, "posts", "rating g", None)])  # the dump has "general", so "s" is sensitive there
    assert page(out).count("<article>") == 1


def test_pictures_from_shards_and_by_hand(out: Path) -> None:
    (out / "shards").mkdir()
    (out / "shards" / "000002.tar").write_bytes(b"x" * 512 + jpeg("red"))
    size = len(jpeg("red"))
    write_posts(out, shard=[2, 2, -1, -1, -1, -1], offset=[512, 600, 0, 0, 0, 0], length=[size, size, 0, 0, 0, 0])
    assert re.findall("<h3>(.*?)</h3>", page(out)) == ["1 · train", "5 · test"]  # the second begins in the middle
    asked: list[int] = []
    by_hand = replace(FINDINGS, read=lambda row: asked.append(row) or jpeg("red"))  # type: ignore[func-returns-value]
    assert page(out, by_hand).count("<article>") == 3
    assert asked == [0, 1, 4]


def test_other_posts_stand_in_for_unreadable_pictures(out: Path) -> None:
    posts = [(number, "train", number, "g", number << 20, [0]) for number in range(1, 101)]
    write_posts(out, posts)
    for number in range(1, 101):
        (out.parent / f"{number}.jpg").write_bytes(jpeg("navy") if number % 2 else b"no picture")
    shown = [int(title.split()[0]) for title in re.findall("<h3>(.*?)</h3>", page(out))]
    assert len(shown) == 24 and shown == sorted(set(shown)) and all(number % 2 for number in shown)
    assert shown[0] < 10 and shown[-1] > 90


def test_what_changed(out: Path) -> None:
    change = Change(
        "old/dataset", {"train": 1, "test": 2}, {"train": 3, "validation": 1, "test": 2}, ["hana"], ["gone"], 7
    )
    text = page(out, replace(FINDINGS, change=change))
    told = words(section(text, "What changed"))
    assert "train 1 3 2 validation 0 1 1 test 2 2 0 all 3 6 3 Extends old/dataset." in told
    assert "New posts left out: 7; their relatives stand in different splits" in told
    assert "hana character 2,000 0" in words(section(text, "New tags: 1"))
    assert words(section(text, "Tags gone: 1")) == "gone"
    assert "What changed" not in page(out)


def test_a_long_vocabulary_is_cut(out: Path) -> None:
    assert section(page(out), "Every tag").count("<tr>") == 1 + 5
    names = [(f"tag_{number}", 0) for number in range(2001)]
    write_tags(out, names, {name: [1] * 2001 for name in ("train", "validation", "test", "unseen")})
    tags = section(page(out), "Tags")
    assert tags.count("<tr>") == 1 + 2000
    assert "Filter 2,000 rows" in tags
    assert "The first 2,000 of 2,001; all are in tags.parquet." in words(tags)


def test_names_and_paths_are_escaped(out: Path) -> None:
    change = Change("<i>", {}, {"train": 3}, [TAGS[2][0]], ["<script>gone"], 0)
    text = page(out, Findings(["<script>source"], uncovered={TAGS[2][0]: ("test",)}, change=change))
    assert text.count("<script>") == text.count("</script>") == 1  # the page's own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<b>.json" not in text and "<i>." not in text


def test_deterministic_and_self_contained(out: Path) -> None:
    first = page(out)
    assert page(out) == first
    assert not re.search(r"""(src|href|srcset)\s*=\s*["']?\s*(https?:)?//""", first)
    assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//|<link|<iframe", first)


def test_one_tag_and_one_post(out: Path) -> None:
    write_tags(out, [("solo", 0)], {"train": [1], "validation": [0], "test": [0], "unseen": [0]})
    write_posts(out, [(1, "train", 1, "g", 0, [0])])
    text = page(out, replace(FINDINGS, counts_before_cut=np.array([5])))
    assert "Which tags stand together" not in text
    assert "0 of 1 occur at least 100 times" in words(section(text, "How often tags occur"))
    page(out, replace(FINDINGS, counts_before_cut=np.zeros(0, np.int64)))
