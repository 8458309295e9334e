"""What a search can ask of a picture besides its tags: the parsed metatags, read by `metatags`, found by the engine.

    Numbers("width", (Interval(low=1000),))       # width:>=1000
    Score("hat", least=204)                       # ai:hat>=0.8

Each says exactly which pictures it means, in terms of the tables of docs/schema.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from efuda.collection.values import Interval

__all__ = [
    "By",
    "Condition",
    "Family",
    "FileTypes",
    "Hash",
    "Like",
    "Limit",
    "Numbers",
    "Order",
    "Parents",
    "PathText",
    "Ratings",
    "Sample",
    "Score",
    "Setting",
    "SourceText",
    "State",
]

_MANY_LIKE: Final = 100  # how many pictures `like:ID` finds


@dataclass(frozen=True, slots=True)
class Numbers:
    """A number of the picture lies in any of the intervals.

    The columns, all of them integers:
        id
        width, height       pixels
        mpixels             width × height, in pixels; the intervals are in pixels, too
        ratio               hundredths, half up: (200 × width + height) // (2 × height)
        filesize            bytes
        duration            milliseconds; 0 where nothing moves or it is not known
        date, added         Unix seconds, rounded down, of pictures.date and pictures.added; date falls back to added
        changed             Unix seconds of the last change: the latest of pictures.added, the `at` of its taggings, and
                            the `at` of operations with changes to it
        tagcount            effective tags, ratings left out; gentags arttags copytags chartags metatags: by category
        parent              the parent's id; 0 without one
        children            pictures whose parent it is, those that are missing or removed left out
        duplicates          other pictures with the same pixels or nearly the same look
    """

    column: str
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Ratings:
    """The rating is one of these; with None among them, also pictures without any."""

    names: frozenset[str | None]


@dataclass(frozen=True, slots=True)
class FileTypes:
    """pictures.filetype is one of these."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Hash:
    """pictures.md5 or pictures.sha256, as `kind` says, is one of these."""

    kind: str
    values: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class PathText:
    """Any path of the picture contains this, or with `*` in it matches it from beginning to end.

    Case makes no difference: the text is casefolded, and so should the path be.
    """

    text: str


@dataclass(frozen=True, slots=True)
class SourceText:
    """pictures.source begins with this, `*` standing for any characters; None: it is NULL or empty.

    Case makes no difference (the text is casefolded). A scheme and "www." may be left out: the text is compared with
    the whole source, with what follows its "://", and with what follows a "www." there. "*" needs some source.
    """

    text: str | None


@dataclass(frozen=True, slots=True)
class Family:
    """The picture itself, and those whose parent it is, as parent:ID on Danbooru."""

    picture: int


@dataclass(frozen=True, slots=True)
class Parents:
    """The parent of a picture: child:ID."""

    picture: int


@dataclass(frozen=True, slots=True)
class State:
    """ "removed": pictures.removed is set. "missing": it is not, and none of the files is there any more.

    A search with a State anywhere in it (`Query.everything`) looks at all pictures, whatever their state; any other
    looks only at those in neither state. "present" is that state, "any" all three.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Score:
    """The latest model's score × 255 for a tag (or the best of a wildcard's) is from `least` to `most`, both included.

    A score that is not recorded is 0, and so it is where no model has looked. `least` None asks instead whether the
    latest model says that the tag (or any of the wildcard's) is present. Persons and imports make no difference.
    """

    tag: str
    least: int | None
    most: int = 255


@dataclass(frozen=True, slots=True)
class By:
    """Somebody or something said that the picture has a tag (`no`: that it has not); without a tag, said anything.

    `source` is casefolded. "human", "model" and "import" are all sources of that kind; anything else is the sources
    whose name or identity is it, casefolded, whole or up to an "@". With none such: QueryError at the value.
    A person says a tag by its row in words, verdict 1 (`no`: -1). A model or an import says it by a tagging that is
    not withdrawn in which it is present (`no`: that exists, but in which it is not present). What is implied is not
    said. `tag` may have `*` in it.
    """

    source: str
    tag: str | None = None
    no: bool = False


@dataclass(frozen=True, slots=True)
class Like:
    """The `count` pictures most similar to one, without itself; or with `least`, those at least that similar (0 to 1).

    Among all pictures, not those the rest of the search finds. An id that there is not, or a picture without a vector:
    QueryError at the value.
    """

    picture: int
    count: int | None = _MANY_LIKE
    least: float | None = None


Condition = Numbers | Ratings | FileTypes | Hash | PathText | SourceText | Family | Parents | State | Score | By | Like


@dataclass(frozen=True, slots=True)
class Order:
    """Which pictures come first: the largest of a column if `falling`. Equal ones: the newest (largest id) first.

    Besides the columns of `Numbers`:
        score       the mean score of the tags that the latest model says are present
        md5         compared as bytes
        path        the least of its paths, compared as bytes
        random      a shuffle; with `seed` the same at every search, else another each time
        custom      those of `ids`, in that order; all others after them
        like        the most similar to picture ids[0]; those without a vector, and itself, last
    """

    column: str = "id"
    falling: bool = True
    ids: tuple[int, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """Pictures on a page."""

    count: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Of all that is found only so many, chosen at random at every search."""

    count: int


Setting = Order | Limit | Sample
