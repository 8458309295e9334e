"""What a person decides, for one picture or thousands, as one operation of the log.

    operation = edit(record, [3, 7], add=["hat"], remove=["glasses"], rating="general", by="me")
    operation.changed, operation.new_tags

A yes or a no stands until a person says otherwise; no model changes it. `forget` withdraws what a person said, so that
models and imports count again. Aliases are followed, and a tag that the collection does not know is made, which the
operation says: it may be a new idea or a slip of the pen. `character:name` gives a new tag its category.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from efuda.collection.adding import RATING_PREFIX
from efuda.collection.history import Operation, operation_of
from efuda.collection.metatags import METATAGS
from efuda.collection.record import LARGEST, Record, Verdict, Writing, rows
from efuda.errors import CollectionError
from efuda.vocabulary import RATINGS, Category, is_tag_name

__all__ = ["edit", "known_tag", "remove"]

_CATEGORIES: Final = {
    "general": Category.GENERAL,
    "gen": Category.GENERAL,
    "artist": Category.ARTIST,
    "art": Category.ARTIST,
    "copyright": Category.COPYRIGHT,
    "copy": Category.COPYRIGHT,
    "character": Category.CHARACTER,
    "char": Category.CHARACTER,
    "meta": Category.META,
}
_WORDS: Final = ("and", "or", "not")
_NAMED: Final = 6  # tags in a summary; the others are counted


def edit(
    record: Record,
    pictures: Sequence[int],
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    forget: Sequence[str] = (),
    rating: str | None = None,
    by: str = "me",
    dry_run: bool = False,
) -> Operation:
    """Say of every one of these pictures what it shows and what not.

    Args:
        pictures: their numbers.
        add: tags that a person sees.
        remove: tags that are wrong, and are not to come back.
        forget: tags about which persons are to have said nothing.
        rating: one of the four, or its first letter.
        by: the person.
        dry_run: change nothing, and say what would be done.

    Raises:
        CollectionError: a picture is not there, or a tag cannot be one.
    """
    wanted = list(dict.fromkeys(pictures))
    with record.write() as writing:
        _check_there(writing, wanted)
        wish = _Wish(writing)
        wish.want(1, add)
        wish.want(-1, remove)
        wish.want(None, forget)
        wish.rate(rating)
        number = writing.operation("edit", by, wish.summary())
        for picture in wanted:
            for tag, verdict in wish.verdicts.items():
                writing.word(number, picture, tag, verdict)
        return replace(_done(writing, number, dry_run), new_tags=tuple(wish.new))


def remove(
    record: Record, pictures: Sequence[int], *, back: bool = False, by: str = "me", dry_run: bool = False
) -> Operation:
    """Take pictures out of the collection, or bring them back; their files are not touched.

    A picture that was taken out keeps its number and all that was said of it, and is not added again by itself.
    """
    wanted = list(dict.fromkeys(pictures))
    with record.write() as writing:
        _check_there(writing, wanted)
        number = writing.operation("remove", by, "brought back pictures" if back else "took pictures out")
        for picture in wanted:
            writing.set(number, picture, "removed", int(not back))
        return _done(writing, number, dry_run)


def _done(writing: Writing, number: int, dry_run: bool) -> Operation:
    """The operation; one that changes nothing, or only was to be tried, is not kept and has no number."""
    done = operation_of(writing.db, number)
    writing.discarded = dry_run or not done.changed
    return replace(done, id=0) if writing.discarded else done


def known_tag(writing: Writing, name: str) -> tuple[int, str] | None:
    """The number and name of a tag that the record knows by this name or alias; None where it knows none."""
    found = rows(writing.db, _KNOWN, (name, name))
    return (int(found[0][0]), str(found[0][1])) if found else None


class _Wish:
    """What is asked of every picture: tags and what to say of each."""

    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self.verdicts: dict[int, Verdict] = {}
        self.new: list[str] = []
        self._names: dict[Verdict, list[str]] = {1: [], -1: [], None: []}
        self._rating = ""

    def want(self, verdict: Verdict, names: Iterable[str]) -> None:
        """Ask for a verdict on tags, by name."""
        for text in names:
            plain = re.sub(r"\s+", "_", text.strip()).lower()
            if plain.startswith(RATING_PREFIX) and verdict == 1:
                self.rate(plain.removeprefix(RATING_PREFIX))
                continue
            if plain.startswith(RATING_PREFIX) and verdict == -1:
                raise CollectionError(f"{plain} is not removed but replaced: give another rating, or forget it.")
            tag, name = self._tag(text.strip(), plain, verdict)
            if self.verdicts.get(tag, verdict) != verdict:
                raise CollectionError(f"{name} is named twice. Either add it, remove it or forget it.")
            if tag not in self.verdicts:
                self.verdicts[tag] = verdict
                self._names[verdict].append(name)

    def rate(self, rating: str | None) -> None:
        """Ask for a rating, which takes the place of what persons said before."""
        if not rating:
            return
        name = next((one for one in RATINGS if rating.lower() in (one, one[0])), None)
        if name is None:
            raise CollectionError(f"{rating} is no rating. Say one of {', '.join(RATINGS)}.")
        if self._rating not in ("", name):
            raise CollectionError(f"A picture has one rating, not both {self._rating} and {name}. Choose one.")
        self._rating = name
        for one in RATINGS:
            tag = self.writing.tag(RATING_PREFIX + one, Category.RATING)
            self.verdicts[tag] = 1 if one == name else None

    def summary(self) -> str:
        """What is asked, in a phrase; raises CollectionError where that is nothing."""
        if not self.verdicts:
            raise CollectionError("There is nothing to do. Name tags to add, to remove or to forget, or a rating.")
        words = {1: "added", -1: "removed", None: "forgot"}
        parts = [f"{words[verdict]} {_listed(names)}" for verdict, names in self._names.items() if names]
        parts += [f"rated {self._rating}"] if self._rating else []
        return ", ".join(parts) + (f" (new: {_listed(self.new)})" if self.new else "")

    def _tag(self, text: str, plain: str, verdict: Verdict) -> tuple[int, str]:
        """A tag that is known by this name, its plain spelling or an alias; a new one only where it is to be added."""
        if known := known_tag(self.writing, text) or known_tag(self.writing, plain):
            return known
        prefix, colon, rest = plain.partition(":")
        category = _CATEGORIES.get(prefix) if colon else None
        name = plain if category is None else rest.lstrip("_")
        if category is not None and (known := known_tag(self.writing, name)):
            return known
        if verdict != 1:
            raise CollectionError(f"The collection has no tag {name}. Check its spelling.")
        start, colon, _ = name.partition(":")
        if not is_tag_name(name) or name in _WORDS or (colon and start in METATAGS):
            raise CollectionError(
                f'"{text}" cannot be a tag: at most 170 plain letters, digits and signs, without * or comma, and no '
                "word of the search language."
            )
        self.new.append(name)
        return self.writing.tag(name, category), name


def _check_there(writing: Writing, pictures: Sequence[int]) -> None:
    known = "SELECT 1 FROM pictures WHERE id = ?"
    for picture in pictures:
        if picture > LARGEST or writing.db.execute(known, (picture,)).get is None:
            raise CollectionError(f"There is no picture {picture} in the collection. Search for those that are there.")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


_KNOWN: Final = """
SELECT id, name FROM tags WHERE name = ?
UNION ALL SELECT tags.id, tags.name FROM tag_aliases JOIN tags ON tags.id = tag WHERE tag_aliases.name = ?
"""
