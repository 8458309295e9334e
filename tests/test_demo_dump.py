"""The demo's dump: one of 64 posts, drawn small, is read back as later stages will read a real one."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("dicebear")
pytest.importorskip("resvg_py")

from efuda.demo import dump as dump_module
from efuda.demo.dump import Dump, render_dump
from efuda.demo.scenes import JITTER, draw_scene, style_definition
from efuda.demo.styles import artist_tag, catalogue
from efuda.errors import MissingExtra, OutputError

POSTS, SIZE, SEED = 64, 128, 3


def words(text: str) -> set[str]:
    return set(text.split())


NEW_FILES = ("posts000000000000.json", "posts000000000001.json")
OLD_FILE = "posts000000000002.json"
NEW_KEYS = words(
    "id created_at uploader_id score source md5 last_comment_bumped_at rating image_width image_height tag_string "
    "fav_count file_ext last_noted_at parent_id has_children approver_id tag_count_general tag_count_artist "
    "tag_count_character tag_count_copyright file_size up_score down_score is_pending is_flagged is_deleted tag_count "
    "updated_at is_banned pixiv_id last_commented_at has_active_children bit_flags tag_count_meta has_large "
    "has_visible_children tag_string_general tag_string_character tag_string_copyright tag_string_artist "
    "tag_string_meta file_url large_file_url preview_file_url"
)
OLD_INTEGERS = words(
    "id score up_score down_score image_width image_height file_size uploader_id approver_id parent_id pixiv_id"
)
OLD_KEYS = OLD_INTEGERS | words(
    "created_at source md5 last_commented_at rating is_note_locked file_ext last_noted_at is_rating_locked "
    "has_children is_status_locked is_pending is_flagged is_deleted updated_at is_banned tags pools favs"
)


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Dump:
    return render_dump(tmp_path_factory.mktemp("demo") / "one", posts=POSTS, seed=SEED, size=SIZE, workers=1)


def rows(dump: Dump, name: str) -> list[dict[str, Any]]:
    text = (dump.root / "metadata" / name).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def posts(dump: Dump) -> list[dict[str, Any]]:
    """Every row that has an id, with id and parent as integers and the tags as a set of names."""
    found = []
    for row in itertools.chain.from_iterable(rows(dump, name) for name in (*NEW_FILES, OLD_FILE)):
        if "id" in row:
            tags = {tag["name"] for tag in row["tags"]} if "tags" in row else set(row["tag_string"].split())
            found.append(row | {"id": int(row["id"]), "parent_id": int(row["parent_id"] or 0), "names": tags})
    return found


def picture(dump: Dump, post_id: int) -> Path:
    return dump.root / "512px" / f"{post_id % 1000:04d}" / f"{post_id}.jpg"


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []

    def note(step: str, done: int, total: int | None = None, **_: str) -> None:
        steps.append((done, total))

    alone = render_dump(tmp_path / "alone", posts=24, seed=SEED, size=SIZE, workers=1)
    together = render_dump(tmp_path / "together", posts=24, seed=SEED, size=SIZE, workers=2, progress=note)
    assert contents(together.root) == contents(alone.root)
    assert steps[-1] == (24, 24)


def test_what_the_dump_says_of_itself(dump: Dump) -> None:
    lines = sum(len(rows(dump, name)) for name in (*NEW_FILES, OLD_FILE))
    assert (dump.posts, dump.images) == (lines, len(list(dump.root.rglob("*.jpg"))))
    assert dump.held_out == ("micah_(dicebear)", "toon_head_(dicebear)")
    assert len(posts(dump)) == POSTS


def test_2021_rows_have_the_fields_of_the_api(dump: Dump) -> None:
    for row in rows(dump, NEW_FILES[0]) + rows(dump, NEW_FILES[1]):
        assert set(row) == (NEW_KEYS if "id" in row else NEW_KEYS - {"id", "md5", *(k for k in NEW_KEYS if "url" in k)})
        assert all(isinstance(row[key], int) for key in ("score", "image_width", "file_size", "tag_count"))
        assert row["parent_id"] is None or isinstance(row["parent_id"], int)
        assert datetime.fromisoformat(row["created_at"]).utcoffset() is not None
        words = ["general", "artist", "character", "copyright", "meta"]
        parts = [row[f"tag_string_{word}"].split() for word in words]
        assert sorted(itertools.chain(*parts)) == sorted(row["tag_string"].split())
        assert [row[f"tag_count_{word}"] for word in words] == [len(part) for part in parts]
        assert row["tag_count"] == sum(map(len, parts))


def test_2017_rows_are_all_strings(dump: Dump) -> None:
    for row in rows(dump, OLD_FILE):
        assert set(row) == OLD_KEYS
        assert all(isinstance(row[key], str) and int(row[key]) is not None for key in OLD_INTEGERS)
        assert row["created_at"].endswith(" UTC")
        assert all(set(tag) == {"id", "name", "category"} for tag in row["tags"])
        assert all(isinstance(value, str) for tag in row["tags"] for value in tag.values())


def test_banned_rows_have_no_id(dump: Dump) -> None:
    for name in NEW_FILES:
        banned = [row for row in rows(dump, name) if "id" not in row]
        assert banned
        assert all(row["is_banned"] and row["tag_string"] for row in banned)


def test_ids_have_gaps_and_rise_with_the_dates(dump: Dump) -> None:
    ids = [post["id"] for post in posts(dump)]
    assert ids == sorted(set(ids))
    assert max(after - before for before, after in itertools.pairwise(ids)) > 1
    dates = [datetime.fromisoformat(post["created_at"].replace(" UTC", "+00:00")) for post in posts(dump)]
    assert dates == sorted(dates)


def test_parents_exist_and_know_their_children(dump: Dump) -> None:
    by_id = {post["id"]: post for post in posts(dump)}
    children = [post for post in by_id.values() if post["parent_id"]]
    assert children
    for child in children:
        parent = by_id[child["parent_id"]]
        assert parent["id"] < child["id"]
        assert parent["has_children"]
        assert child["md5"] != parent["md5"]
        styles = {artist_tag(name) for name in catalogue().styles}
        assert child["names"] & styles == parent["names"] & styles
    assert {post["id"] for post in by_id.values() if post["has_children"]} == {post["parent_id"] for post in children}


def test_md5_is_the_file_where_the_file_is_whole(dump: Dump) -> None:
    missing, cut, odd, whole = [], [], [], []
    for post in posts(dump):
        path = picture(dump, post["id"])
        if not path.exists():
            missing.append(post)
            continue
        data = path.read_bytes()
        if hashlib.md5(data).hexdigest() != post["md5"]:
            assert 0.35 < len(data) / int(post["file_size"]) < 0.95
            cut.append(post)
            with pytest.raises(OSError), Image.open(io.BytesIO(data)) as image:
                image.load()
            continue
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            (whole if image.size == (SIZE, SIZE) else odd).append(post)
    assert all([missing, cut, odd])
    assert len(whole) >= POSTS - 3


def test_ratings_are_safe_and_no_tag_is_on_every_post(dump: Dump) -> None:
    assert {post["rating"] for post in posts(dump)} == {"s"}
    names = [post["names"] for post in posts(dump)]
    assert not set.intersection(*names)
    assert sum("solo" in tags for tags in names) < 0.97 * POSTS


def test_aliases_and_one_that_was_deleted(dump: Dump) -> None:
    aliases = rows(dump, "tag_aliases000000000000.json")
    active = {row["antecedent_name"]: row["consequent_name"] for row in aliases if row["status"] == "active"}
    assert active["blond_hair"] == "blonde_hair"
    deleted = [row for row in aliases if row["status"] == "deleted"]
    assert [row["antecedent_name"] for row in deleted] == ["robot"]
    spelt = {tag["name"] for row in rows(dump, OLD_FILE) for tag in row["tags"]}
    assert spelt & set(active)
    assert not {name for file in NEW_FILES for row in rows(dump, file) for name in row["tag_string"].split()} & set(
        active
    )


def test_a_tag_has_one_id_and_one_category(dump: Dump) -> None:
    tags = [tag for row in rows(dump, OLD_FILE) for tag in row["tags"]]
    assert len({tag["name"] for tag in tags}) == len({tag["id"] for tag in tags})
    assert len({tag["name"] for tag in tags}) == len({(tag["name"], tag["category"]) for tag in tags})
    assert {"0", "1"} <= {tag["category"] for tag in tags}


def test_a_finished_dump_is_returned_and_another_refused(dump: Dump) -> None:
    before = contents(dump.root)
    assert render_dump(dump.root, posts=POSTS, seed=SEED, size=SIZE) == dump
    assert contents(dump.root) == before
    with pytest.raises(
        OutputError, match=r"holds a demo dump with posts 64, seed 3; wanted is one with posts 65, seed 4"
    ):
        render_dump(dump.root, posts=65, seed=4, size=SIZE)


def test_an_interrupted_dump_goes_on(dump: Dump, tmp_path: Path) -> None:
    before = contents(dump.root)
    for name, data in before.items():
        if name.startswith("512px"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
    whole = [post["id"] for post in posts(dump) if picture(dump, post["id"]).exists()]
    marked = tmp_path / picture(dump, whole[0]).relative_to(dump.root)
    marked.unlink()
    again = render_dump(tmp_path, posts=POSTS, seed=SEED, size=SIZE, workers=1)
    assert contents(again.root) == before


def test_credits_name_every_style(dump: Dump) -> None:
    text = (dump.root / "CREDITS.md").read_text("utf-8")
    assert {credit.style for credit in dump.credits} == set(catalogue().styles)
    for credit in dump.credits:
        meta = style_definition(credit.style)["meta"]
        assert (credit.artist, credit.licence) == (meta["creator"]["name"], meta["license"]["name"])
        assert all(part in text for part in (credit.style, credit.artist, credit.source, credit.licence_url))


def test_a_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(dump_module, "version", absent)
    with pytest.raises(MissingExtra, match=r'pip install "efuda\[demo\]"'):
        render_dump(tmp_path / "out", posts=1)


def test_every_tag_is_a_name_that_danbooru_allows() -> None:
    for tag in catalogue().every_tag():
        assert 0 < len(tag) <= 170
        assert re.fullmatch(r"[!-~]+", tag)
        assert not re.search(r"[*,]", tag)
        assert not re.match(r"[-~_`%(){}\[\]/]", tag)


def named_variants() -> Iterator[tuple[str, str, str]]:
    for name, style in catalogue().styles.items():
        for component, entry in style.components.items():
            lists = [*entry["tags"].values(), entry.get("leave_out", []), list(entry.get("weights", {}))]
            lists += [list(style.hides.get(component, {}))]
            for other in style.components.values():
                where = other.get("not_with", {}).get(component, [])
                lists.append([] if where == "*" else where)
            for colour in style.colours.values():
                for where in (colour.get("unseen", {}), colour.get("only", {}), *colour.get("as", {}).values()):
                    lists.append(where.get(component, []))
            for variants in lists:
                yield from ((name, component, variant) for variant in variants)


def test_every_variant_and_colour_of_the_catalogue_exists() -> None:
    for style, component, variant in named_variants():
        assert variant in style_definition(style)["components"][component]["variants"], (style, component, variant)
    for name, style in catalogue().styles.items():
        assert set(style.colours) <= set(style_definition(name)["colors"])
        drawn = {v for entry in style.components.values() for v in entry.get("leave_out", ())}
        tagged = {v for entry in style.components.values() for vs in entry["tags"].values() for v in vs}
        assert len(style.components) == 1 or tagged, drawn
    for name, character in catalogue().data["characters"].items():
        style = catalogue().styles[character["style"]]
        assert set(character["variants"]) <= set(style.components), name
        assert set(character["colours"]) <= set(style.colours), name


def test_what_is_left_out_carries_no_tag() -> None:
    for name, style in catalogue().styles.items():
        for component, entry in style.components.items():
            tagged = {variant for variants in entry["tags"].values() for variant in variants}
            assert not tagged & set(entry.get("leave_out", ())), (name, component)


def test_a_moved_colour_keeps_its_name() -> None:
    for palette in catalogue().palettes.values():
        for name, colour in palette.colours.items():
            base = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
            for moves in itertools.product((-JITTER, JITTER), repeat=3):
                moved = [min(255, max(0, channel + move)) for channel, move in zip(base, moves, strict=True)]
                assert palette.nearest("#" + "".join(f"{channel:02x}" for channel in moved)) == name


ADVENTURER = {
    "hairVariant": "long15",
    "hairColor": ["#f090b4"],
    "eyesVariant": "variant23",
    "eyesColor": ["#2a9a44"],
    "mouthVariant": "variant01",
    "skinColor": ["#7d4a2a"],
    "scale": 0.9,
    "rotate": 2.0,
}


def test_tags_come_from_what_was_resolved() -> None:
    tags = catalogue().tags("adventurer", ADVENTURER)
    assert tags == words(
        "portrait twintails blunt_bangs pink_hair sparkling_eyes green_eyes open_mouth smile dark_skin"
    )
    turned = catalogue().tags("adventurer", ADVENTURER | {"rotate": -20})
    assert turned - tags == {"dutch_angle"}
    assert catalogue().tags("adventurer", ADVENTURER | {"scale": 1.5}) - tags == {"close-up"}


@pytest.mark.parametrize(
    ("style", "change", "gone", "there"),
    [
        ("adventurer", {"glassesVariant": "variant01"}, {"sparkling_eyes", "green_eyes"}, {"sunglasses", "smile"}),
        ("adventurer", {"hairVariant": "short19"}, {"pink_hair", "twintails"}, {"bald"}),
        ("adventurer", {"eyesVariant": "variant19"}, {"green_eyes"}, {"closed_eyes"}),
    ],
)
def test_what_hides_what_in_adventurer(style: str, change: dict[str, str], gone: set[str], there: set[str]) -> None:
    before, after = catalogue().tags(style, ADVENTURER), catalogue().tags(style, ADVENTURER | change)
    assert gone <= before - after
    assert there <= after


@pytest.mark.parametrize(
    ("style", "shown", "hiding", "gone"),
    [
        ("lorelei", {"mouthVariant": "happy01"}, {"beardVariant": "variant01"}, {"smile", "closed_mouth"}),
        ("open-peeps", {"expressionVariant": "smileLOL"}, {"maskVariant": "medicalMask"}, {"smile", "open_mouth"}),
        ("open-peeps", {"expressionVariant": "smileLOL"}, {"accessoriesVariant": "sunglasses"}, {"closed_eyes"}),
        ("avataaars", {"topVariant": "bob", "hairColor": ["#f090b4"]}, {"topVariant": "hijab"}, {"pink_hair"}),
        ("big-smile", {"eyesVariant": "winking"}, {"accessoriesVariant": "sleepMask"}, {"one_eye_closed"}),
        ("toon-head", {"hairVariant": "spiky"}, {"rearHairVariant": "longWavy"}, {"short_hair"}),
        ("voxel-art", {"outfitVariant": "suit", "scale": 0.95}, {"scale": 1.65}, {"suit", "full_body"}),
    ],
)
def test_what_hides_what(style: str, shown: dict[str, Any], hiding: dict[str, Any], gone: set[str]) -> None:
    known = catalogue()
    assert gone <= known.tags(style, shown)
    assert not gone & known.tags(style, shown | hiding)


def test_noise_stays_below_any_smallest_count() -> None:
    assert max(catalogue().data["noise"].values()) < 20
    for count in (60, 100_000):
        noise = dump_module._scattered_noise(count, 0)
        tags = list(itertools.chain.from_iterable(noise.values()))
        assert set(tags) == set(catalogue().data["noise"])
        assert max(map(tags.count, tags)) < 20


def test_scenes_follow_from_their_seed() -> None:
    known = catalogue()
    scenes = [draw_scene(known, Random(f"5/{number}"), f"5/{number}") for number in range(300)]
    assert scenes == [draw_scene(known, Random(f"5/{number}"), f"5/{number}") for number in range(300)]
    assert {len(scene.figures) for scene in scenes} >= {1, 2}
    for scene in scenes:
        for figure in scene.figures:
            for component, entry in known.styles[figure.style].components.items():
                assert figure.options.get(f"{component}Variant") not in entry.get("leave_out", ())
