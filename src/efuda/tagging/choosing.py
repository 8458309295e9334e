"""From scores to the tags of a picture: thresholds, implications, exclusive groups, order and spelling, by `Rules`.

    chooser = Chooser(tagger, Rules(remove_underscore=True, implications="closed"))
    for chosen in chooser.choose(batch):            # a batch of Tagged
        print(chosen.path, [name for name, score, category in chosen.tags], chosen.rating)

A batch is chosen at once, in columns: with 100 kept scores and 25 present tags a picture takes a few microseconds, so
tags are written again from stored scores, with other rules, as fast as files can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import Model
from efuda.errors import UsageError
from efuda.metrics import Calibration, maximum_cut
from efuda.tagging.chosen import DIGITS, Choices, Lexicon, Said
from efuda.tagging.exclusive import Exclusive, read_groups
from efuda.tagging.implications import Implications, Present, find_file, read_pairs
from efuda.tagging.policies import MCUT, policy_thresholds
from efuda.tagging.tagged import STEPS, Handful, Tagged, rounded
from efuda.tagging.tagger import Tagger
from efuda.tagging.wording import expanded, spelled
from efuda.vocabulary import Category

__all__ = ["Chooser", "Rules"]

Place = Literal["first", "last"] | None
_Form = tuple[tuple[str, Category], ...]
_MCUT_CHARACTER: Final = 0.15  # the floor that WD's demo has for characters
# A tag in one number that sorts as tags are listed: picture (19 bits), rank (8), falling score (16), output (20).
_PICTURE, _RANK, _SCORE, _ROW = 44, 36, 20, (1 << 20) - 1
_MOST_FIRST: Final = 200
_SHOWN: Final = np.rint(np.arange(STEPS + 1) / STEPS * DIGITS).astype(np.int64)


@dataclass(frozen=True)
class Rules:
    """How tags are chosen; the default is the model's own thresholds, everything as it is.

    Attributes:
        threshold: one for all tags.
        category_thresholds: one for a category, before the one for all; above 1 nothing of it is said.
        policy: a policy's thresholds, by name; see `policies`.
        top: so many of the best, whatever the thresholds.
        max_tags: of those at their thresholds, the best so many.
        undesired: never said; by Danbooru's name or as written.
        replacements: name or written form → what is written.
        remove_underscore: spaces for underscores, except in faces.
        character_tag_expand: `name_(series)` becomes two tags.
        character_tags_first: before all others.
        always_first: moved to the front where they are present; as in kohya's script, the last named is first.
        rating_tag, quality_tag: whether and where the likeliest rating and quality are said as tags.
        implications: "closed" adds what tags imply, "reduced" takes away what others imply.
        implications_file: instead of the model's own.
        exclusive: a file of groups, or "danbooru".
        probabilities: what is at its threshold has its calibrated probability as score, ratings too; by it the best
            are taken and listed, and implied tags get it.
    """

    threshold: float | None = None
    category_thresholds: Mapping[Category, float] = field(default_factory=dict)
    policy: str | None = None
    top: int | None = None
    max_tags: int | None = None
    undesired: Sequence[str] = ()
    replacements: Mapping[str, str] = field(default_factory=dict)
    remove_underscore: bool = False
    character_tag_expand: bool = False
    character_tags_first: bool = False
    always_first: Sequence[str] = ()
    rating_tag: Place = None
    quality_tag: Place = None
    implications: str = "as-is"
    implications_file: Path | None = None
    exclusive: str | Path | None = None
    probabilities: bool = False


class Chooser:
    """Rules, ready for a tagger.

    Raises:
        UsageError: rules that do not go together, or that the model has nothing for.
        InputError: a file of implications or groups that cannot be read.
    """

    def __init__(self, tagger: Tagger, rules: Rules | None = None) -> None:
        self.tagger, self.rules = tagger, rules or Rules()
        tags = tagger.vocabulary
        assert len(tags) <= _ROW + 1
        self._limits = rounded(_thresholds(tagger, self.rules))
        self._ratings = _Scale(tagger, "rating", self.rules.rating_tag)
        self._quality = _Scale(tagger, "quality", self.rules.quality_tag)
        if self.rules.quality_tag and not self._quality.names:
            raise UsageError(f"--use-quality-tags: {tagger.name} has no tags of quality.")
        self._scales = np.isin(np.arange(len(tags)), [*self._ratings.rows, *self._quality.rows])
        self._limits[self._scales] = -1  # always looked at, all together
        self._forms = [_form(tag.name, tag.category, self.rules) for tag in tags]
        self._hidden = np.array([not form for form in self._forms], dtype=np.bool_)
        self._ranks = _ranks(tagger, self._forms, self.rules)
        self._wording = _Wording.of(self._forms, self._ratings.names)
        self._implications = _implications(tagger, self.rules)
        self._exclusive = None
        curves = _calibration(tagger) if self.rules.exclusive or self.rules.probabilities else None
        if self.rules.exclusive:
            self._exclusive = Exclusive.of(read_groups(self.rules.exclusive), tags, curves)
        self._curves = curves if self.rules.probabilities else None
        if self.rules.probabilities and curves is None:
            raise UsageError(
                f"--probabilities: {tagger.name} has no calibrated probabilities. A model that efuda export wrote gets "
                "them with: efuda calibrate MODEL DATASET"
            )

    def choose(self, batch: Sequence[Tagged]) -> Choices:
        """What is said of each picture, in order."""
        batch = Handful.of(batch)
        present = self._probable(self._present(batch), self._scales)
        present, rated = self._ratings.take(present, len(batch))
        present, _ = self._quality.take(present, len(batch))
        if self._exclusive:
            present = self._exclusive.apply(present, len(batch))
        present = self._probable(present, ~self._scales)
        if self._implications:
            closed = self.rules.implications == "closed"
            present = self._implications.closed(present) if closed else self._implications.reduced(present)
        if self._hidden.any():
            present = present.where(~self._hidden[present.rows])
        if self.rules.max_tags is not None:
            present = present.where(self._best(present, self.rules.max_tags))
        wording = self._wording
        tags, ratings = wording.said(self._sorted(present), len(batch)), wording.rated(rated)
        return Choices(batch.paths, batch.sizes, wording.lexicon, tags, ratings, self._ratings.likeliest(rated))

    def _present(self, batch: Handful) -> Present:
        """What reaches its threshold, and every rating."""
        kept = np.flatnonzero(batch.scores >= self._limits.take(batch.rows))
        pictures = np.repeat(np.arange(len(batch)), batch.counts).take(kept)
        steps = np.rint(batch.scores.take(kept) * np.float32(STEPS)).astype(np.int64)
        present = Present(pictures, batch.rows.take(kept).astype(np.int64), steps)
        if self.rules.top is not None:
            present = present.where(~self._hidden[present.rows])
            return present.where(self._best(self._probable(present, ~self._scales), self.rules.top))
        if self.rules.policy == MCUT:
            return present.where(self._scales[present.rows] | _over_the_gap(self.tagger, batch, present))
        return present

    def _probable(self, present: Present, which: NDArray[np.bool_]) -> Present:
        """With probabilities as scores where they are asked for, and the tag is among `which`, bool [tags]."""
        if self._curves is None:
            return present
        mine = which[present.rows]
        steps = present.steps.copy()
        likely = self._curves.at(present.rows[mine], (steps[mine] / STEPS).astype(np.float32))
        steps[mine] = np.maximum(np.rint(likely * np.float32(STEPS)), 1)
        return present._replace(steps=steps)

    def _best(self, present: Present, most: int) -> NDArray[np.bool_]:
        """Which are of their picture's best so many, bool [present]; ratings and quality do not count."""
        order = np.lexsort((present.rows, -present.steps, self._scales[present.rows], present.pictures))
        pictures, scales = present.pictures[order], self._scales[present.rows][order]
        counted = np.cumsum(~scales)
        before = np.concatenate([[0], counted])[np.searchsorted(pictures, pictures)]
        kept = np.zeros(len(order), dtype=np.bool_)
        kept[order] = scales | (counted - before <= most)
        return kept

    def _sorted(self, present: Present) -> Present:
        """In the order in which tags are listed, picture by picture."""
        keys = present.pictures << _PICTURE
        keys |= self._ranks.take(present.rows)
        keys |= (STEPS - present.steps) << _SCORE
        keys |= present.rows
        keys.sort()
        return Present(keys >> _PICTURE, keys & _ROW, STEPS - (keys >> _SCORE & STEPS))


@dataclass(frozen=True)
class _Wording:
    """The words of each tag, as numbers of a lexicon.

    Attributes:
        counts: int64 [tags], how many words a tag has.
        starts: int64 [tags], where they begin in the lexicon.
        same: int64 [lexicon], the first word with the same text.
        plain: every tag has one word at most, and no other has the same: its number is the tag's.
        ratings: int64, words.
    """

    lexicon: Lexicon
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]
    same: NDArray[np.int64]
    plain: bool
    ratings: NDArray[np.int64]

    @classmethod
    def of(cls, forms: Sequence[_Form], ratings: Sequence[str]) -> _Wording:
        counts = np.array([len(form) for form in forms], dtype=np.int64)
        words = [*chain.from_iterable(form or (("", Category.GENERAL),) for form in forms)]
        starts = np.cumsum(np.maximum(counts, 1)) - np.maximum(counts, 1)
        first: dict[str, int] = {}
        same = np.array([first.setdefault(name, number) for number, (name, _) in enumerate(words)], dtype=np.int64)
        said = np.repeat(counts > 0, np.maximum(counts, 1))
        plain = len(words) == len(forms) and len(set(same[said].tolist())) == int(said.sum())
        rated = np.arange(len(words), len(words) + len(ratings), dtype=np.int64)
        words += [(name, Category.RATING) for name in ratings]
        lexicon = Lexicon(tuple(name for name, _ in words), tuple(category for _, category in words))
        return cls(lexicon, counts, starts, same, plain, rated)

    def said(self, listed: Present, pictures: int) -> Said:
        """Tags as words, none twice in a picture."""
        places, words, steps = listed
        if not self.plain:
            counts = self.counts[words]
            source = np.repeat(np.arange(len(words)), counts)
            within = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
            places, words, steps = places[source], self.starts[words[source]] + within, steps[source]
            _, once = np.unique(places * len(self.same) + self.same[words], return_index=True)
            once.sort()
            places, words, steps = places[once], words[once], steps[once]
        return Said(np.bincount(places, minlength=pictures), words, _SHOWN.take(steps))

    def rated(self, steps: NDArray[np.int64]) -> Said:
        """Every rating of every picture."""
        pictures, ratings = steps.shape
        counts = np.full(pictures, ratings, dtype=np.int64)
        return Said(counts, np.tile(self.ratings, pictures), _SHOWN.take(steps.ravel()))


class _Scale:
    """Tags of which a picture has the likeliest one, whatever its score: ratings, and quality where a model has it."""

    def __init__(self, tagger: Tagger, label: str, place: Place) -> None:
        tags = tagger.vocabulary
        self.rows = [row for row, tag in enumerate(tags) if tag.category.label == label]
        self.names = [tags[row].name for row in self.rows]
        self.place = place
        self._outputs = np.array(self.rows, dtype=np.int64)
        self._columns: NDArray[np.int64] = np.full(len(tags), -1, dtype=np.int64)
        self._columns[self._outputs] = np.arange(len(self.rows))

    def take(self, present: Present, pictures: int) -> tuple[Present, NDArray[np.int64]]:
        """The others, the likeliest put back if it is to be said; and the steps of each, int64 [pictures, mine]."""
        steps = np.zeros((pictures, len(self.rows)), dtype=np.int64)
        if not self.rows:
            return present, steps
        columns = self._columns.take(present.rows)
        mine = columns >= 0
        steps[present.pictures[mine], columns[mine]] = present.steps[mine]
        others = present.where(~mine)
        if self.place:
            rated = np.flatnonzero(steps.any(axis=1))
            best = steps[rated].argmax(axis=1)
            added = Present(rated, self._outputs[best], steps[rated, best])
            others = Present(*(np.concatenate(pair) for pair in zip(others, added, strict=True)))
        return others, steps

    def likeliest(self, steps: NDArray[np.int64]) -> list[str | None]:
        """The name of each picture's likeliest one, None where none has a score."""
        if not self.rows:
            return [None] * len(steps)
        best = np.where(steps.any(axis=1), steps.argmax(axis=1), len(self.rows))
        found: list[str | None] = np.array([*self.names, None], dtype=object).take(best).tolist()
        return found


def _thresholds(tagger: Tagger, rules: Rules) -> NDArray[np.float32]:
    if rules.top is not None and rules.max_tags is not None:
        raise UsageError("--top and --max-tags do not go together: --top ignores thresholds, --max-tags keeps them.")
    if rules.policy is not None and (rules.threshold is not None or rules.top is not None):
        raise UsageError("--policy sets the thresholds: leave out --threshold and --top.")
    if (rules.top is not None or rules.policy == MCUT) and (rules.threshold is not None or rules.category_thresholds):
        raise UsageError("--top and --policy mcut know no thresholds: leave those out.")
    if rules.top is not None or rules.policy == MCUT:
        return np.zeros(len(tagger.vocabulary), dtype=np.float32)
    if rules.policy is not None:
        limits = policy_thresholds(tagger, rules.policy).copy()
    elif rules.threshold is not None:
        limits = np.full(len(tagger.vocabulary), rules.threshold, dtype=np.float32)
    else:
        limits = tagger.thresholds.copy()
    for category, threshold in rules.category_thresholds.items():
        limits[tagger.vocabulary.rows(category)] = threshold
    return limits


def _over_the_gap(tagger: Tagger, batch: Handful, present: Present) -> NDArray[np.bool_]:
    """What MCut says, per picture and category; characters from 0.15 up."""
    tags = tagger.vocabulary
    dense = np.zeros((len(batch), len(tags)), dtype=np.float32)
    dense[np.repeat(np.arange(len(batch)), batch.counts), batch.rows] = batch.scores
    over = np.zeros(dense.shape, dtype=np.bool_)
    for category in {tag.category for tag in tags}:
        rows = tags.rows(category)
        floor = _MCUT_CHARACTER if category is Category.CHARACTER else 0
        over[:, rows] = dense[:, rows] >= np.maximum(maximum_cut(dense[:, rows]), np.float32(floor))[:, None]
    return over[present.pictures, present.rows]


def _form(name: str, category: Category, rules: Rules) -> _Form:
    """What is written for a tag; nothing where it is not desired."""

    def written(text: str) -> str:
        return spelled(text) if rules.remove_underscore else text

    pair = expanded(name) if rules.character_tag_expand and category is Category.CHARACTER else None
    form: _Form = ((written(name), category),)
    if pair:
        form = ((written(pair[0]), category), (written(pair[1]), Category.COPYRIGHT))
    known = (name, written(name), *(text for text, _ in form))
    undesired = set(rules.undesired)
    if undesired & {name, written(name)}:
        return ()
    source = next((text for text in known if text in rules.replacements), None)
    if source in (name, written(name)):
        form = ((rules.replacements[source], category),)
    elif source is not None:
        form = tuple((rules.replacements.get(text, text), kind) for text, kind in form)
    return tuple((text, kind) for text, kind in form if text and text not in undesired)


def _ranks(tagger: Tagger, forms: Sequence[_Form], rules: Rules) -> NDArray[np.int64]:
    """Where in a list a tag stands, whatever its score; shifted to its place in a key."""
    if len(rules.always_first) > _MOST_FIRST:
        raise UsageError(f"--always-first-tags takes up to {_MOST_FIRST} tags.")
    first = {name: len(rules.always_first) - 1 - place for place, name in enumerate(rules.always_first)}
    after = len(first)
    edges = {
        "rating": {"first": after, "last": after + 5, None: after + 3}[rules.rating_tag],
        "quality": {"first": after + 1, "last": after + 4, None: after + 3}[rules.quality_tag],
        "character": after + 2 if rules.character_tags_first else after + 3,
    }
    ranks = np.empty(len(forms), dtype=np.int64)
    for row, (tag, form) in enumerate(zip(tagger.vocabulary, forms, strict=True)):
        named = [first[name] for name in (tag.name, *(text for text, _ in form)) if name in first]
        ranks[row] = min(named, default=edges.get(tag.category.label, after + 3))
    return ranks << _RANK


def _implications(tagger: Tagger, rules: Rules) -> Implications | None:
    if rules.implications not in ("as-is", "closed", "reduced"):
        raise UsageError(f"--implications {rules.implications} is not known; choose closed, reduced or as-is.")
    if rules.implications == "as-is":
        if rules.implications_file:
            raise UsageError("--implications-file goes with --implications closed or reduced.")
        return None
    file = rules.implications_file or find_file(tagger.root)
    if file is None:
        raise UsageError(
            f"--implications {rules.implications}: {tagger.name} has no file of implications. "
            "Name one with --implications-file, for example Danbooru's tag_implications."
        )
    return Implications.of(read_pairs(file), tagger.vocabulary)


def _calibration(tagger: Tagger) -> Calibration | None:
    return Model.open(tagger.root).calibration() if tagger.layout == "efuda" else None
