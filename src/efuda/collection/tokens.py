"""Where the words of a search begin and end: shared by the parser and by what completes the word at a cursor.

word_at("glasses -(hat or rib", 20)      # (17, 20): "rib"
word_at("(saber_(fate))", 5)             # (1, 13): the last parenthesis closes the first
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["BARE", "OF_TAGS", "PREFIX", "QUOTED", "SPACE", "WORD", "taken", "word_at"]

SPACE: Final = re.compile(r"\s*")
WORD: Final = re.compile(r"\S+")
PREFIX: Final = re.compile(r"([A-Za-z][A-Za-z0-9_]*):")
BARE: Final = re.compile(r"(?:\\ |\S)*")  # a value without quotation marks
QUOTED: Final = {quote: re.compile(rf"{quote}((?:\\{quote}|[^{quote}])*){quote}") for quote in "\"'"}
OF_TAGS: Final = frozenset({"tag", "ai", "src"})  # metatags whose values are tags, which end as tags do
_SMILEYS: Final = frozenset({":)", ":(", ";)", ";(", ">:)", ">:("})  # tags that end in a lone parenthesis


def taken(text: str, at: int, pattern: re.Pattern[str], opened: int, *, balance: bool) -> str:
    """The characters of a term, leaving the `)` at its end that close groups, of which `opened` are open.

    With `balance`, a `)` belongs to the term while its parentheses are balanced: (foo_(bar)) is foo_(bar).
    """
    match = pattern.match(text, at)
    assert match, "a term starts where a character is"
    word = match[0]
    for _ in range(opened):
        if not word.endswith(")") or (balance and (_is_balanced(word) or word in _SMILEYS)):
            break
        word = word[:-1]
    return word


def _is_balanced(word: str) -> bool:
    depth = 0
    for character in word:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0


def word_at(text: str, at: int, metatags: frozenset[str] = frozenset()) -> tuple[int, int]:
    """Where the term at a cursor begins and ends, without signs and parentheses; both `at` where there is none.

    Args:
        text: a search, perhaps half written.
        at: how many characters stand before the cursor.
        metatags: names whose values may be in quotation marks.
    """
    start, opened = 0, 0
    while start < len(text) and start <= at:
        character = text[start]
        if character.isspace() or character in "-~()":
            opened = max(0, opened + {"(": 1, ")": -1}.get(character, 0))
            start += 1
            continue
        end = _end(text, start, opened, metatags)
        if at <= end:
            return start, end
        start = end
    return at, at


def _end(text: str, start: int, opened: int, metatags: frozenset[str]) -> int:
    prefix = PREFIX.match(text, start)
    if not prefix or prefix[1].lower() not in metatags:
        return start + len(taken(text, start, WORD, opened, balance=True))
    value = prefix.end()
    if (quote := text[value : value + 1]) in QUOTED:
        match = QUOTED[quote].match(text, value)
        return match.end() if match else len(text)
    return value + len(taken(text, value, BARE, opened, balance=prefix[1].lower() in OF_TAGS))
