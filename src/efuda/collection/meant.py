"""What a search may have meant by a name that there is not: the error that says so, pointing at it.

raise unknown_tag("glases", lexicon, names, counts, text="hat -glases", at=5)     # …; did you mean glasses?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from efuda.collection.complete import written
from efuda.collection.lexicon import Lexicon
from efuda.collection.metatags import METATAGS
from efuda.errors import QueryError
from efuda.vocabulary import Category

__all__ = ["unknown_picture", "unknown_source", "unknown_tag"]

_SUGGESTED: Final = 3
_NEAR: Final = 60  # names at least this similar, of 100, are suggested
_PREFIXES: Final = frozenset({*(category.label for category in Category), "series", "char", "copy", "art", "gen"})


def unknown_tag(
    name: str, lexicon: Lexicon, names: Sequence[str], counts: NDArray[Any], *, text: str, at: int
) -> QueryError:
    """A tag that no picture has."""
    prefix, colon, rest = name.partition(":")
    if colon and prefix in _PREFIXES and rest:
        tags = [*(tag for tag in [rest] if tag in names), *_likely(rest, lexicon, names, counts)]
        what, tags = f"there is no {prefix}: before tags here", list(dict.fromkeys(tags))[:_SUGGESTED]
    elif colon and prefix.isalpha() and len(prefix) > 1:
        what, tags = f"there is no metatag {prefix}: and no tag {name}", []
        if not (near := _near(prefix, list(METATAGS), 1)):
            what += f"; metatags are {', '.join(f'{one}:' for one in METATAGS)}"
        return _meant(what, [f"{one}:" for one in near], text, at)
    elif name == "not":
        return QueryError('there is no "not"; write -tag', text, at)
    else:
        what, tags = f"no picture has the tag {name}", _likely(name, lexicon, names, counts)
    return _meant(what, [word for tag in tags if (word := written(tag))], text, at)


def _likely(name: str, lexicon: Lexicon, names: Sequence[str], counts: NDArray[Any]) -> list[str]:
    matches = lexicon.matches(name, counts, 2 * _SUGGESTED)
    return [names[match.tag] for match in matches if counts[match.tag] and not names[match.tag].startswith("rating:")]


def unknown_source(name: str, known: list[str], *, text: str, at: int) -> QueryError:
    """A person, model or import that has never said anything."""
    begun = [one for one in known if one.startswith(name)]
    return _meant(f"nobody called {name} has said anything", begun or _near(name, known, 2) or known, text, at)


def unknown_picture(picture: int, *, text: str, at: int) -> QueryError:
    """The number of no picture."""
    return QueryError(f"there is no picture {picture} in the collection", text, at)


def _near(name: str, known: list[str], limit: int) -> list[str]:
    return [found for found, _, _ in process.extract(name, known, scorer=fuzz.ratio, limit=limit, score_cutoff=_NEAR)]


def _meant(what: str, words: list[str], text: str, at: int) -> QueryError:
    some = words[:_SUGGESTED]
    hint = f"; did you mean {' or '.join(some)}?" if some else ""
    return QueryError(what + hint, text, at)
