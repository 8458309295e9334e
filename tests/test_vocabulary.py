"""The tags in output order: what WD clients rely on, and the file they read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efuda.errors import ArtifactError
from efuda.vocabulary import Category, Tag, Vocabulary, is_tag_name

ORDERED = [
    Tag("general", Category.RATING, 5),
    Tag("sensitive", Category.RATING, 90),
    Tag("questionable", Category.RATING, 1),
    Tag("explicit", Category.RATING, 70),
    Tag("1girl", Category.GENERAL, 80),
    Tag("glasses", Category.GENERAL, 12),
    Tag("hat", Category.GENERAL, 12),
    Tag("hatsune_miku", Category.CHARACTER, 3),
    Tag("vocaloid", Category.COPYRIGHT, 99),
    Tag("someone", Category.ARTIST, 100),
    Tag("highres", Category.META, 1000),
]

tag_names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).filter(is_tag_name)
tags = st.builds(Tag, tag_names, st.sampled_from(Category), st.integers(0, 10**9))


def test_wd_order_is_ratings_general_characters_then_the_rest() -> None:
    assert list(Vocabulary.in_wd_order(reversed(ORDERED))) == ORDERED


def test_lookups() -> None:
    vocabulary = Vocabulary(ORDERED)
    assert len(vocabulary) == 11
    assert vocabulary[4] == Tag("1girl", Category.GENERAL, 80)
    assert vocabulary.index["hatsune_miku"] == 7
    assert vocabulary.names[:2] == ("general", "sensitive")
    assert vocabulary.rows(Category.CHARACTER, Category.RATING) == [0, 1, 2, 3, 7]
    assert Category.GENERAL.label == "general"


def test_csv_as_wd_clients_read_it(tmp_path: Path) -> None:
    path = tmp_path / "selected_tags.csv"
    Vocabulary([Tag("1girl", Category.GENERAL, 80), Tag('o"o', Category.CHARACTER, 3)]).write_csv(path)
    assert path.read_bytes() == b'tag_id,name,category,count\n0,1girl,0,80\n1,"o""o",4,3\n'


@settings(max_examples=50, deadline=None)
@given(st.lists(tags, max_size=20))
def test_csv_round_trip(tmp_path_factory: pytest.TempPathFactory, listed: list[Tag]) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.csv"
    Vocabulary(listed).write_csv(path)
    assert list(Vocabulary.read_csv(path)) == listed


@given(st.lists(tags, max_size=20, unique_by=lambda tag: (tag.name, tag.category)), st.randoms())
def test_wd_order_does_not_depend_on_the_order_given(listed: list[Tag], rng: object) -> None:
    listed = [tag for tag in listed if tag.category is not Category.RATING]
    shuffled = list(listed)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert list(Vocabulary.in_wd_order(shuffled)) == list(Vocabulary.in_wd_order(listed))


def test_a_file_of_another_tagger_with_its_own_ids_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "selected_tags.csv"
    path.write_text("tag_id,name,category,count,extra\n470575,1girl,0,4225150,x\n9999999,explicit,9,\n")
    assert list(Vocabulary.read_csv(path)) == [
        Tag("1girl", Category.GENERAL, 4225150),
        Tag("explicit", Category.RATING),
    ]


def test_the_digest_is_over_names_and_categories_in_order_not_counts() -> None:
    one = Vocabulary([Tag("a", Category.GENERAL, 1), Tag("b", Category.ARTIST, 1)])
    assert one.digest == hashlib.sha256(b"a\t0\nb\t1\n").hexdigest()
    recounted = Vocabulary([Tag("a", Category.GENERAL, 7), Tag("b", Category.ARTIST, 7)])
    assert one == recounted and hash(one) == hash(recounted)
    assert one != Vocabulary([Tag("b", Category.ARTIST), Tag("a", Category.GENERAL)])
    assert one != Vocabulary([Tag("a", Category.GENERAL), Tag("b", Category.META)])


def test_a_difference_in_words() -> None:
    one, other = Vocabulary([Tag("a"), Tag("b")]), Vocabulary([Tag("a"), Tag("c"), Tag("d")])
    assert one.difference(other) == "2 tags against 3, for example b, c, d in only one of them"
    assert one.difference(Vocabulary([Tag("b"), Tag("a")])) == "the same 2 tags in another order or category"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tag_id,name,category,count\n0,a,0,1\n1,b,x,1\n", r"tags\.csv, line 3: not a tag row"),
        ("tag_id,name,category,count\n0,a,7,1\n", r"tags\.csv, line 2: not a tag row \(7 is not a valid Category\)"),
        ("tag_id,name,category,count\n0,a\n", r"tags\.csv, line 2: not a tag row"),
        ("tag_id,name,category,count\n0,a,0,many\n", r"tags\.csv, line 2: not a tag row"),
        ("tag_id,name,category,count\n0,,0,1\n", r"tags\.csv, line 2: not a tag row \(no name\)"),
        ("tag_id,label\n0,a\n", r"tags\.csv: the header lacks category, name"),
        ("", r"tags\.csv: the header lacks category, name"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tags.csv"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        Vocabulary.read_csv(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nothing\.csv: the tag list cannot be read"):
        Vocabulary.read_csv(tmp_path / "nothing.csv")
    (tmp_path / "latin.csv").write_bytes(b"tag_id,name,category,count\n0,caf\xe9,0,1\n")
    with pytest.raises(ArtifactError, match=r"latin\.csv: the tag list cannot be read"):
        Vocabulary.read_csv(tmp_path / "latin.csv")


@pytest.mark.parametrize(
    "name", ["^_^", ":)", ">:(", "o_o", ";)", "1girl", "fate/stay_night", "a", "!", "=_=", "+_+", "a" * 170, "dr._(x)"]
)
def test_names_danbooru_accepts(name: str) -> None:
    assert is_tag_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "~a",
        "_a",
        "(a",
        "/a",
        "%a",
        "`a",
        "a,b",
        "a*",
        "*",
        "a b",
        "a\n",
        "é",
        "絵",
        "a" * 171,
        ":" + "d" * 170,
    ],
)
def test_names_danbooru_refuses(name: str) -> None:
    assert not is_tag_name(name)
