"""Which tags a picture gets, by every rule; expectations worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tagging_world import GENERAL, VOCABULARY, choose, fake_tagger, names, tagged

from efuda.errors import ArtifactError, InputError, UsageError
from efuda.metrics import Calibration
from efuda.tagging import Chooser, Rules, Tagged, Tagger
from efuda.tagging.exclusive import Exclusive, Group, read_groups
from efuda.tagging.implications import Implications, Present, read_pairs
from efuda.tagging.policies import policy_thresholds, write_policies
from efuda.tagging.wording import expanded, spelled, split_replacements, split_tags
from efuda.vocabulary import Category

MIKU = {"hatsune_miku": 0.6, "1girl": 0.99, "long_hair": 0.9, "smile": 0.3, "general": 0.7, "sensitive": 0.2}

# Thresholds


def test_the_models_own_thresholds_best_first() -> None:
    chosen = choose(MIKU)
    assert [(name, category) for name, _, category in chosen.tags] == [
        ("1girl", Category.GENERAL),
        ("long_hair", Category.GENERAL),
        ("hatsune_miku", Category.CHARACTER),
    ]
    assert [score for _, score, _ in chosen.tags] == [0.99, 0.9, 0.6]
    assert chosen.ratings == {"general": 0.7, "sensitive": 0.2, "questionable": 0, "explicit": 0}
    assert (chosen.rating, chosen.size, chosen.path) == ("general", (30, 20), Path("a.jpg"))


def test_a_score_on_its_threshold_is_said_and_equal_scores_keep_the_vocabularys_order() -> None:
    assert names({"smile": 0.5, "1girl": 0.5, "blue_eyes": 0.49999}) == ["1girl", "smile"]


def test_a_picture_of_which_nothing_is_known() -> None:
    chosen = choose({})
    assert (list(chosen.tags), chosen.rating) == ([], None)
    assert Chooser(fake_tagger()).choose([]) == []


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(threshold=0.2), ["1girl", "long_hair", "hatsune_miku", "smile"]),
        (Rules(category_thresholds={Category.CHARACTER: 0.7}), ["1girl", "long_hair"]),
        (Rules(threshold=0.95, category_thresholds={Category.CHARACTER: 0.6}), ["1girl", "hatsune_miku"]),
        (Rules(threshold=0.2, category_thresholds={Category.GENERAL: 1.1}), ["hatsune_miku"]),
        (Rules(policy="fixed=.3"), ["1girl", "long_hair", "hatsune_miku", "smile"]),
        (Rules(policy="mcut"), ["1girl", "long_hair", "hatsune_miku"]),  # the widest gap: 0.9 to 0.3
        (Rules(top=1), ["1girl"]),
        (Rules(top=4), ["1girl", "long_hair", "hatsune_miku", "smile"]),
        (Rules(top=2, undesired=["1girl"]), ["long_hair", "hatsune_miku"]),
        (Rules(max_tags=2), ["1girl", "long_hair"]),
        (Rules(max_tags=2, character_tags_first=True), ["1girl", "long_hair"]),
        (Rules(max_tags=3, character_tags_first=True), ["hatsune_miku", "1girl", "long_hair"]),
        (Rules(max_tags=1, rating_tag="last"), ["1girl", "general"]),  # a rating does not count
    ],
    ids=str,
)
def test_thresholds_by_rule(rules: Rules, expected: list[str]) -> None:
    assert names(MIKU, rules) == expected


def test_rules_that_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="--top and --max-tags"):
        Chooser(fake_tagger(), Rules(top=3, max_tags=3))
    with pytest.raises(UsageError, match="leave out --threshold"):
        Chooser(fake_tagger(), Rules(policy="mcut", threshold=0.3))
    with pytest.raises(UsageError, match="has no tags of quality"):
        Chooser(fake_tagger(), Rules(quality_tag="first"))


def test_policies_are_read_from_the_models_directory(tmp_path: Path) -> None:
    tagger = fake_tagger(tmp_path)
    with pytest.raises(UsageError, match=r"no thresholds for the policy 'p=r'. It has: fixed=NUMBER, mcut\."):
        policy_thresholds(tagger, "p=r")
    high = np.full(len(VOCABULARY), 0.95, np.float32)
    high[VOCABULARY.index["1girl"]] = np.inf
    write_policies(tmp_path, VOCABULARY, {"p=r": np.full(len(VOCABULARY), 0.3, np.float32), "precision>=0.95": high})
    assert names(MIKU, Rules(policy="p=r"), tagger) == ["1girl", "long_hair", "hatsune_miku", "smile"]
    assert names(MIKU, Rules(policy="precision >= .95"), tagger) == []
    (tmp_path / "thresholds.csv").write_text(
        "category,name,threshold\n" + "".join(f"{int(one)},x,{0.8 if one == 0 else 0.5}\n" for one in Category)
    )
    assert names(MIKU, Rules(policy="per-category"), tagger) == ["1girl", "long_hair", "hatsune_miku"]
    (tmp_path / "tag_policies.csv").write_text("name,p=r\nother,0.5\n")
    with pytest.raises(ArtifactError, match="lists other tags than the model"):
        policy_thresholds(tagger, "p=r")


def test_a_calibrated_models_own_policy_has_a_name(model: object, tmp_path: Path) -> None:
    tagger = Tagger.open(model.root, threads=1)  # type: ignore[attr-defined]
    own = json.loads((tagger.root / "calibration.json").read_text())["policy"]
    assert (policy_thresholds(tagger, own) == tagger.thresholds).all()
    assert len(policy_thresholds(tagger, "per-category")) == len(tagger.vocabulary)
    file = tmp_path / "ground.toml"
    file.write_text('[ground]\none_of = ["red_background", "blue_background"]\n')
    scores = np.zeros(len(tagger.vocabulary), np.float32)
    scores[[tagger.vocabulary.index[f"{colour}_background"] for colour in ("red", "blue")]] = 0.99, 0.9
    (chosen,) = Chooser(tagger, Rules(threshold=0.5, exclusive=file)).choose([Tagged.of(file, (1, 1), scores)])
    assert len(chosen.tags) == 1, "of the two the one that is likelier by the model's own calibration"


# Spelling and order


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("long_hair", "long hair"),
        ("^_^", "^_^"),
        ("o_o", "o_o"),
        ("||_||", "||_||"),
        ("(o)_(o)", "(o)_(o)"),
        ("x_y_", "x_y_"),
        ("saber_(fate)", "saber (fate)"),
        ("d_b_ab", "d b ab"),
    ],
)
def test_spaces_for_underscores_but_not_in_faces(name: str, written: str) -> None:
    assert spelled(name) == written


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("saber_(fate)", ("saber", "fate")),
        ("rin_(swimsuit)_(fate)", ("rin_(swimsuit)", "fate")),
        ("hatsune_miku", None),
        ("(fate)", None),
        ("odd)", None),
        ("a_()", None),
    ],
)
def test_characters_name_their_series(name: str, parts: tuple[str, str] | None) -> None:
    assert expanded(name) == parts


def test_lists_and_replacements_as_people_type_them() -> None:
    assert split_tags(" 1girl, long hair ,,") == ["1girl", "long hair"]
    assert split_tags("a;b,c", "; ") == ["a", "b,c"]
    assert split_tags("a,b", " ") == ["a", "b"]
    assert split_replacements(r"1girl,girl; :\,),smile\;;") == {"1girl": "girl", ":,)": "smile;"}
    for wrong in ("a", "a,b,c", ",b"):
        with pytest.raises(UsageError, match="is not source,target"):
            split_replacements(wrong)


SPOKEN = {"rin_(swimsuit)_(fate)": 0.9, "saber_(fate)": 0.8, "long_hair": 0.95, "^_^": 0.7, "explicit": 0.9}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(remove_underscore=True), ["long hair", "rin (swimsuit) (fate)", "saber (fate)", "^_^"]),
        (Rules(character_tag_expand=True), ["long_hair", "rin_(swimsuit)", "fate", "saber", "^_^"]),
        (
            Rules(character_tag_expand=True, remove_underscore=True, character_tags_first=True),
            ["rin (swimsuit)", "fate", "saber", "long hair", "^_^"],
        ),
        (Rules(rating_tag="first", max_tags=1), ["explicit", "long_hair"]),
        (Rules(rating_tag="last", max_tags=1), ["long_hair", "explicit"]),
        (Rules(rating_tag="first", undesired=["explicit"], max_tags=1), ["long_hair"]),
        (Rules(always_first=["^_^", "1girl", "saber_(fate)"], max_tags=4), ["saber_(fate)", "^_^", "long_hair"]),
        (Rules(undesired=["long hair", "^_^"], remove_underscore=True), ["rin (swimsuit) (fate)", "saber (fate)"]),
        (Rules(undesired=["fate"], character_tag_expand=True), ["long_hair", "rin_(swimsuit)", "saber", "^_^"]),
        (Rules(replacements={"long_hair": "hair", "^_^": ""}), ["hair", "rin_(swimsuit)_(fate)", "saber_(fate)"]),
        (Rules(replacements={"saber_(fate)": "long_hair"}), ["long_hair", "rin_(swimsuit)_(fate)", "^_^"]),
        (
            Rules(replacements={"long hair": "Long Hair"}, remove_underscore=True, character_tags_first=True),
            ["rin (swimsuit) (fate)", "saber (fate)", "Long Hair", "^_^"],
        ),
    ],
    ids=str,
)
def test_spelling_and_order(rules: Rules, expected: list[str]) -> None:
    said = names(SPOKEN, rules)
    if rules.max_tags == 4:
        said.remove("rin_(swimsuit)_(fate)")
    assert said == expected


def test_an_expanded_series_is_a_series() -> None:
    chosen = choose({"saber_(fate)": 0.8}, Rules(character_tag_expand=True))
    assert list(chosen.tags) == [("saber", 0.8, Category.CHARACTER), ("fate", 0.8, Category.COPYRIGHT)]


def test_ratings_are_the_likeliest_whatever_their_score() -> None:
    chosen = choose({"questionable": 0.02, "sensitive": 0.03}, Rules(rating_tag="last"))
    assert [(name, category) for name, _, category in chosen.tags] == [("sensitive", Category.RATING)]


# Implications

CHAIN = [("very_long_hair", "hair_longer"), ("hair_longer", "long_hair"), ("blue_eyes", "red_eyes")]
CIRCLE = [("red_eyes", "green_eyes"), ("green_eyes", "red_eyes")]


def implied(tmp_path: Path, how: str) -> Rules:
    file = tmp_path / "implications.csv"
    file.write_text("".join(f"{a},{b}\n" for a, b in CHAIN + CIRCLE))
    return Rules(implications=how, implications_file=file)


def test_closed(tmp_path: Path) -> None:
    chosen = choose(
        {"very_long_hair": 0.9, "long_hair": 0.2, "red_eyes": 0.6, "green_eyes": 0.7}, implied(tmp_path, "closed")
    )
    assert [(name, score) for name, score, _ in chosen.tags] == [
        ("long_hair", 0.9),  # over a tag that the model lacks, and as likely as what implies it
        ("very_long_hair", 0.9),
        ("red_eyes", 0.7),
        ("green_eyes", 0.7),
    ]


def test_reduced_and_a_circle_loses_nothing(tmp_path: Path) -> None:
    scores = {"very_long_hair": 0.9, "long_hair": 0.95, "red_eyes": 0.6, "green_eyes": 0.7}
    assert names(scores, implied(tmp_path, "reduced")) == ["very_long_hair", "green_eyes", "red_eyes"]
    assert names({**scores, "blue_eyes": 0.8}, implied(tmp_path, "reduced")) == ["very_long_hair", "blue_eyes"]


def test_an_undesired_tag_still_implies_but_is_not_implied(tmp_path: Path) -> None:
    rules = implied(tmp_path, "closed")
    hidden = Rules(implications="closed", implications_file=rules.implications_file, undesired=["very_long_hair"])
    assert names({"very_long_hair": 0.9}, hidden) == ["long_hair"]


@pytest.mark.parametrize(
    "text",
    [
        "very_long_hair,long_hair\n",
        "antecedent_name,consequent_name,status\nvery_long_hair,long_hair,active\n1girl,x,deleted\n",
        '[{"antecedent_name": "very_long_hair", "consequent_name": "long_hair", "status": "active"}]',
        '{"antecedent_name": "very_long_hair", "consequent_name": "long_hair"}\n{"status": "deleted"}\n',
    ],
)
def test_files_of_implications(text: str, tmp_path: Path) -> None:
    (tmp_path / "tag_implications.json").write_text("\ufeff" + text, encoding="utf-8")
    assert read_pairs(tmp_path / "tag_implications.json") == [("very_long_hair", "long_hair")]
    assert names({"very_long_hair": 0.9}, Rules(implications="closed"), fake_tagger(tmp_path)) == [
        "long_hair",
        "very_long_hair",
    ]


def test_no_implications_or_a_wrong_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no file of implications"):
        Chooser(fake_tagger(tmp_path), Rules(implications="closed"))
    with pytest.raises(UsageError, match="choose closed, reduced or as-is"):
        Chooser(fake_tagger(), Rules(implications="open"))
    for text in ("nothing", "{", "[1]"):
        (tmp_path / "wrong.csv").write_text(text)
        with pytest.raises(InputError):
            read_pairs(tmp_path / "wrong.csv")


@settings(deadline=None)
@given(
    pairs=st.lists(st.tuples(st.sampled_from(GENERAL), st.sampled_from(GENERAL)), max_size=12),
    said=st.sets(st.sampled_from(GENERAL), max_size=6),
)
def test_closing_is_complete_and_reducing_undoes_no_more_than_it(pairs: list[tuple[str, str]], said: set[str]) -> None:
    implications = Implications.of(pairs, VOCABULARY)
    rows = np.array(sorted(VOCABULARY.index[name] for name in said), dtype=np.int64)
    present = Present(np.zeros_like(rows), rows, np.full_like(rows, 60_000))
    closed = implications.closed(present)
    names = {VOCABULARY.names[row] for row in closed.rows}
    assert said <= names and all(b in names for a, b in pairs if a in names)
    reduced = implications.reduced(closed)
    assert set(implications.closed(reduced).rows) == set(closed.rows)


# Exclusive groups


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"1girl": 0.99, "blue_eyes": 0.8, "red_eyes": 0.7}, ["1girl", "blue_eyes"]),
        ({"blue_eyes": 0.8, "red_eyes": 0.7, "heterochromia": 0.6}, ["blue_eyes", "red_eyes", "heterochromia"]),
        ({"2girls": 0.9, "blue_eyes": 0.8, "red_eyes": 0.7}, ["2girls", "blue_eyes", "red_eyes"]),
        ({"1girl": 0.9, "1boy": 0.85, "blue_eyes": 0.8, "red_eyes": 0.7}, ["1girl", "1boy", "blue_eyes", "red_eyes"]),
        # long and very long belong together, and are stronger together than neither
        ({"long_hair": 0.6, "very_long_hair": 0.9, "short_hair": 0.8}, ["very_long_hair", "long_hair"]),
        ({"short_hair": 0.8, "red_eyes": 0.6}, ["short_hair", "red_eyes"]),
    ],
)
def test_one_of_a_group(scores: dict[str, float], expected: list[str]) -> None:
    assert names(scores, Rules(exclusive="danbooru")) == expected


def test_the_calibrated_score_decides() -> None:
    knots = np.array([-10, 10], np.float32)
    logits = np.tile(knots, (len(VOCABULARY), 1))
    logits[VOCABULARY.index["blue_eyes"]] -= 5  # says more than it knows
    calibration = Calibration(VOCABULARY.names, np.zeros(len(VOCABULARY), np.uint8), knots, logits)
    group = Group("eyes", (("blue_eyes",), ("red_eyes",)))
    rows = np.array([VOCABULARY.index[name] for name in ("blue_eyes", "red_eyes")], dtype=np.int64)
    present = Present(np.zeros(2, np.int64), rows, np.array([60_000, 40_000], dtype=np.int64))
    plain = Exclusive.of([group], VOCABULARY, None).apply(present, 1)
    assert [VOCABULARY.names[row] for row in plain.rows] == ["blue_eyes"]
    fitted = Exclusive.of([group], VOCABULARY, calibration).apply(present, 1)
    assert [VOCABULARY.names[row] for row in fitted.rows] == ["red_eyes"]


# Probabilities


def calibrated_tagger(root: Path, monkeypatch: pytest.MonkeyPatch, **shifts: float) -> object:
    """Curves that add to a tag's logit; lines, so that expectations can be worked out by hand."""
    knots = np.array([-10, 10], np.float32)
    logits = np.tile(knots, (len(VOCABULARY), 1))
    for name, shift in shifts.items():
        logits[VOCABULARY.index[name]] += shift
    curves = Calibration(VOCABULARY.names, np.zeros(len(VOCABULARY), np.uint8), knots, logits)
    monkeypatch.setattr("efuda.tagging.choosing._calibration", lambda tagger: curves)
    return fake_tagger(root)


LN3, LN9 = float(np.log(3)), float(np.log(9))


def test_probabilities_are_shown_and_thresholds_stay_on_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tagger = calibrated_tagger(
        tmp_path, monkeypatch, **{"1girl": -LN9, "smile": LN9, "blue_eyes": -LN3, "general": -LN9}
    )
    scores = {"1girl": 0.9, "blue_eyes": 0.75, "smile": 0.4, "long_hair": 0.6, "general": 0.9, "sensitive": 0.7}
    plain, likely = choose(scores, None, tagger), choose(scores, Rules(probabilities=True), tagger)
    # odds of 9 fall to 1, odds of 3 to 1; 0.6 stays; smile would have 0.857, but its score is below its threshold
    assert [(name, score) for name, score, _ in plain.tags] == [("1girl", 0.9), ("blue_eyes", 0.75), ("long_hair", 0.6)]
    assert [(name, score) for name, score, _ in likely.tags] == [("long_hair", 0.6), ("1girl", 0.5), ("blue_eyes", 0.5)]
    assert (plain.rating, likely.rating) == ("general", "sensitive")
    assert likely.ratings == {"general": 0.5, "sensitive": 0.7, "questionable": 0, "explicit": 0}


def test_the_best_are_the_likeliest_and_implied_tags_get_the_probability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagger = calibrated_tagger(tmp_path, monkeypatch, **{"1girl": -LN9, "smile": LN9, "very_long_hair": LN3})
    scores = {"1girl": 0.9, "smile": 0.4, "very_long_hair": 0.75}
    assert names(scores, Rules(probabilities=True, top=2), tagger) == ["very_long_hair", "smile"]  # 0.9, 6/7, 0.5
    assert names(scores, Rules(probabilities=True, max_tags=1), tagger) == ["very_long_hair"]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("very_long_hair,long_hair\n")
    closed = choose(scores, Rules(probabilities=True, implications="closed", implications_file=pairs), tagger)
    assert {name: score for name, score, _ in closed.tags} == {"very_long_hair": 0.9, "long_hair": 0.9, "1girl": 0.5}
    rated = choose({**scores, "general": 0.6}, Rules(probabilities=True, rating_tag="first"), tagger)
    assert rated.tags[0][:2] == ("general", 0.6)


def test_probabilities_need_a_calibrated_model() -> None:
    with pytest.raises(UsageError, match=r"has no calibrated probabilities\. .*efuda calibrate"):
        Chooser(fake_tagger(), Rules(probabilities=True))


def test_the_shipped_groups_are_distinct_and_a_file_may_have_others(tmp_path: Path) -> None:
    shipped = read_groups("danbooru")
    assert [group.name for group in shipped] == ["eye_colour", "hair_colour", "hair_length", "breast_size"]
    tags = [tag for group in shipped for one in group.one_of for tag in one]
    assert len(set(tags)) == len(tags)
    file = tmp_path / "groups.toml"
    file.write_text('[mouth]\none_of = ["smile", "^_^"]\n')
    assert names({"smile": 0.8, "^_^": 0.7, "blue_eyes": 0.6, "red_eyes": 0.55}, Rules(exclusive=file)) == [
        "smile",
        "blue_eyes",
        "red_eyes",
    ]
    for wrong in ("[", 'mouth = "smile"', "[mouth]\n", "[mouth]\none_of = [1]\n", '[mouth]\none_of = []\nother = ""\n'):
        file.write_text(wrong)
        with pytest.raises(InputError, match="holds no exclusive groups"):
            read_groups(file)


# Together


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(VOCABULARY.names), st.floats(0, 1, width=32)), max_size=5))
def test_a_batch_is_its_pictures_and_default_rules_are_what_a_result_says_itself(many: list[dict[str, float]]) -> None:
    tagger, batch = fake_tagger(smile=0.01), [tagged(one) for one in many]
    for rules in (Rules(), Rules(exclusive="danbooru", max_tags=3, character_tag_expand=True, rating_tag="last")):
        chooser = Chooser(tagger, rules)
        assert chooser.choose(batch) == [chooser.choose([one])[0] for one in batch]
    for one, chosen in zip(batch, Chooser(tagger).choose(batch), strict=True):
        assert [(name, round(score, 4)) for name, score in one.present(tagger)] == [
            (name, score) for name, score, _ in chosen.tags
        ]
