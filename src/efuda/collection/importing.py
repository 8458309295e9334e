"""Tags that lie in files beside the pictures become part of the collection, as an import of a name of one's choosing.

    done = import_tags(record, [Path("art")], name="danbooru")
    print(done.changed, done.tags, done.left_out)

Beside `a.jpg` may lie: `a.jpg.json` as gallery-dl writes it (tags by category, rating, source, date, parent),
`a.jpg.txt` as Hydrus writes it (a tag a line, with namespaces), `a.txt` or `a.caption` (captions for training, told
apart by what is in them), `a.jpg.xmp` or `a.xmp`. What several say is put together. An import stands beside what models
say; a person's word beats both. The whole import is one operation; importing again replaces what the same name said.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from efuda.collection.adding import RATING_PREFIX, real_path, stored_path
from efuda.collection.editing import known_tag
from efuda.collection.record import Record, Writing, rows
from efuda.collection.taggings import packed_scores, put_tagging, tagging_of
from efuda.progress import Progress, silent
from efuda.tagging import Failed
from efuda.tagging.reading import LONGEST, decoded, read_caption, read_list, with_category
from efuda.tagging.writing.places import Refused
from efuda.tagging.writing.xmp import read_tags
from efuda.vocabulary import RATINGS, Category, is_tag_name

__all__ = ["Imported", "Said", "import_tags"]

_AT_ONCE: Final = 500
_PRESENT: Final = 255
_CATEGORIES: Final = {
    "general": Category.GENERAL,
    "species": Category.GENERAL,
    "artist": Category.ARTIST,
    "copyright": Category.COPYRIGHT,
    "character": Category.CHARACTER,
    "meta": Category.META,
    "metadata": Category.META,
}
_NUMBERS: Final = {str(int(one)): one for one in Category if one is not Category.RATING}
_RATING_WORDS: Final = {"g": "general", "s": "sensitive", "safe": "sensitive", "q": "questionable", "e": "explicit"}


@dataclass(slots=True)
class Said:
    """What the files beside one picture say."""

    tags: dict[str, Category] = field(default_factory=dict)
    rating: str = ""
    source: str = ""
    date: str = ""
    number: int = 0  # of the post, where it came from
    parent: int = 0

    def add(self, tags: Iterable[tuple[str, Category]]) -> None:
        """More tags; one that is known with a category keeps it."""
        for text, category in tags:
            name = _whole(text).lower()
            if name.startswith(RATING_PREFIX):
                self.rate(name.removeprefix(RATING_PREFIX))
            elif self.tags.get(name, Category.GENERAL) is Category.GENERAL:
                self.tags[name] = category

    def rate(self, rating: object) -> None:
        """A rating, if it is one."""
        word = str(rating or "").strip().lower()
        word = _RATING_WORDS.get(word, word)
        self.rating = word if word in RATINGS else self.rating


@dataclass(slots=True)
class Imported:
    """What an import did.

    Attributes:
        operation: its number in the log; None where nothing changed.
        found: pictures beside which something lies.
        changed: pictures of which something changed.
        tags: tags given, over all pictures.
        new_tags: those that the collection did not know, and on how many pictures.
        left_out: words that cannot be tags, and on how many pictures.
        failed: files that could not be read.
    """

    operation: int | None = None
    found: int = 0
    changed: int = 0
    tags: int = 0
    new_tags: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    failed: list[Failed] = field(default_factory=list)


def import_tags(
    record: Record,
    paths: Sequence[Path] = (),
    *,
    name: str = "sidecars",
    dry_run: bool = False,
    progress: Progress = silent,
) -> Imported:
    """Read what lies beside the collection's pictures.

    Args:
        paths: folders or files; all pictures of the collection by default.
        name: of the import. Two names stand side by side; the same name replaces what it said before.
        dry_run: only say what would be done.
        progress: told of every picture.
    """
    run = _Run(record, name, dry_run)
    pictures = _pictures(record, paths)
    batch: list[tuple[int, Said]] = []
    for done, (path, picture) in enumerate(pictures, start=1):
        said = run.folder(path.parent).said(path, run.sum.failed)
        if said is not None:
            batch.append((picture, said))
        if len(batch) >= _AT_ONCE or done == len(pictures):
            run.write(batch)
            batch = []
        progress("import", done, len(pictures), unit="pictures")
    run.write_parents()
    return run.sum


class _Run:
    """One import: an operation, made when there is something to write."""

    def __init__(self, record: Record, name: str, dry_run: bool) -> None:
        self.record, self.name, self.dry_run = record, name, dry_run
        self.sum = Imported()
        self._folder = _Folder(None)
        self._tags: dict[tuple[str, Category], int] = {}
        self._new: set[str] = set()
        self._posts: dict[int, int] = {}  # number of a post → picture
        self._parents: dict[int, int] = {}  # picture → number of its parent's post

    def folder(self, path: Path) -> _Folder:
        if self._folder.path != path:
            self._folder = _Folder(path)
        return self._folder

    def write(self, batch: Sequence[tuple[int, Said]]) -> None:
        """Write what was read, as a whole."""
        self.sum.found += len(batch)
        new = len(self._new)
        with self._writing() as (writing, operation, source):
            changed = sum([self._write(writing, operation, source, *one) for one in batch])
            self._end(writing, operation, changed)
        if writing.discarded and len(self._new) > new:
            self._tags = {}  # the numbers of new tags went with them

    def write_parents(self) -> None:
        """Parents by the numbers that posts had, of those that are here."""
        known = [(picture, self._posts.get(post)) for picture, post in self._parents.items()]
        with self._writing() as (writing, operation, _):
            changed = sum(
                [writing.set(operation, picture, "parent", one) for picture, one in known if one not in (None, picture)]
            )
            self._end(writing, operation, changed)

    @contextmanager
    def _writing(self) -> Iterator[tuple[Writing, int, int]]:
        with self.record.write(durable=False) as writing:
            source = writing.source("import", self.name, self.name)
            operation = self.sum.operation or writing.operation("import", source, f"imported tags from {self.name}")
            yield writing, operation, source

    def _end(self, writing: Writing, operation: int, changed: int) -> None:
        writing.discarded = self.dry_run or not changed
        if not writing.discarded:
            self.sum.operation = operation

    def _write(self, writing: Writing, operation: int, source: int, picture: int, said: Said) -> bool:
        tags = {number for name, category in said.tags.items() if (number := self._tag(writing, name, category))}
        if said.rating:
            tags.add(writing.tag(RATING_PREFIX + said.rating, Category.RATING))
        scores = packed_scores(
            np.array(list(tags), dtype=np.int64), np.full(len(tags), _PRESENT), np.ones(len(tags), dtype=np.bool_)
        )
        before = tagging_of(writing, picture, source)
        changed = bool(tags) if before is None else (before.scores, before.withdrawn) != (scores, 0)
        if changed:
            put_tagging(writing, operation, picture, source, scores)
        if said.source:
            changed |= writing.set(operation, picture, "source", said.source)
        if said.date:
            changed |= writing.set(operation, picture, "date", said.date)
        self._note_post(picture, said)
        self.sum.tags += len(tags)
        self.sum.changed += changed
        return changed

    def _note_post(self, picture: int, said: Said) -> None:
        if said.number:
            self._posts[said.number] = picture
        if said.parent:
            self._parents[picture] = said.parent

    def _tag(self, writing: Writing, name: str, category: Category) -> int:
        """The number of a tag, 0 for what cannot be one."""
        if (name, category) not in self._tags:
            known = known_tag(writing, name)
            if known is None and not is_tag_name(name):
                self._tags[name, category] = 0
            else:
                self._new |= {name} if known is None else set()
                self._tags[name, category] = writing.tag(known[1] if known else name, category)
        number = self._tags[name, category]
        if not number:
            self.sum.left_out[name] += 1
        elif name in self._new:
            self.sum.new_tags[name] += 1
        return number


def _pictures(record: Record, paths: Sequence[Path]) -> list[tuple[Path, int]]:
    """(file, picture) of those that are there, folder by folder."""
    with record.read() as db:
        files = rows(db, "SELECT path, picture FROM files WHERE missing IS NULL ORDER BY path")
    wanted = [os.fspath(real_path(stored_path(path))) for path in paths]
    found = [(real_path(path), picture) for path, picture in files]
    if not wanted:
        return found
    return [one for one in found if any(_is_within(os.fspath(one[0]), root) for root in wanted)]


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


class _Folder:
    """What lies in a folder, listed once."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.names = path, frozenset[str]()
        if path is not None:
            with suppress(OSError):
                self.names = frozenset(entry.name for entry in path.iterdir())

    def said(self, picture: Path, failed: list[Failed]) -> Said | None:
        """What lies beside a picture says; None where nothing lies there."""
        name, stem = picture.name, picture.stem
        readers: tuple[tuple[str, _Reader], ...] = (
            (f"{name}.json", _read_post),
            (f"{name}.txt", _read_lines),
            (f"{stem}.txt", _read_caption),
            (f"{stem}.caption", _read_caption),
            (f"{name}.xmp", _read_xmp),
            (f"{stem}.xmp", _read_xmp),
        )
        said: Said | None = None
        for beside, reader in readers:
            if beside not in self.names:
                continue
            said = said or Said()
            try:
                with picture.with_name(beside).open("rb") as file:
                    reader(file.read(LONGEST + 1), said)
            except OSError as error:
                failed.append(Failed(picture.with_name(beside), (error.strerror or "cannot be read").lower()))
            except (ValueError, Refused) as error:
                failed.append(Failed(picture.with_name(beside), str(error)))
        return said


_Reader = Callable[[bytes, Said], None]


def _read_lines(data: bytes, said: Said) -> None:
    text = decoded(data).strip()
    if "\n" not in text and "," in text:
        said.add(with_category(word) for word in read_caption(text))
        return
    tags, rating = read_list(text)
    said.add(tags)
    said.rate(rating)


def _read_caption(data: bytes, said: Said) -> None:
    said.add(with_category(word) for word in read_caption(decoded(data)))


def _read_xmp(data: bytes, said: Said) -> None:
    said.add(with_category(word) for word in read_tags(data))


def _read_post(data: bytes, said: Said) -> None:
    """A post as gallery-dl writes it, whichever site it is of.

    Raises:
        ValueError: it is none, in words.
    """
    try:
        post = json.loads(decoded(data))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError("not valid JSON") from error
    if not isinstance(post, dict):
        raise ValueError("not a JSON object with the tags of a post")
    tags = list(_tags_of(post))
    if not tags and not post.keys() & {"tags", "tag_string", "tag_string_general", "tags_general"}:
        raise ValueError("not a JSON object with the tags of a post")
    said.add(tags)
    said.rate(post.get("rating"))
    source = post.get("source") or next(iter(_words(post.get("sources"))), "")
    said.source = _whole(source).strip() if isinstance(source, str) else ""
    said.date = _date(post.get("created_at") or post.get("date"))
    said.number, said.parent = _number(post.get("id")), _number(post.get("parent_id"))


def _tags_of(post: Mapping[str, Any]) -> Iterator[tuple[str, Category]]:
    """Tags under their category first, and then those of lists without one."""
    for label, category in _CATEGORIES.items():
        for key in (f"tag_string_{label}", f"tags_{label}"):
            yield from ((word, category) for word in _words(post.get(key)))
    tags = post.get("tags")
    if isinstance(tags, dict):  # e621: a list under each category
        for label, words in tags.items():
            yield from ((word, _CATEGORIES.get(label, Category.GENERAL)) for word in _words(words))
    elif isinstance(tags, list) and tags and isinstance(tags[0], dict):  # Danbooru's old dumps
        for tag in tags:
            if isinstance(tag, dict) and isinstance(tag.get("name"), str):
                yield tag["name"], _NUMBERS.get(str(tag.get("category")), Category.GENERAL)
    else:
        yield from ((word, Category.GENERAL) for word in _words(tags))
    yield from ((word, Category.GENERAL) for word in _words(post.get("tag_string")))


def _words(value: object) -> list[str]:
    """A list of names, or names in one string with spaces between them."""
    if isinstance(value, str):
        return value.split()
    return [word for word in value if isinstance(word, str) and word] if isinstance(value, list) else []


def _whole(text: str) -> str:
    """JSON may name half a character, which no file can hold."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _date(value: object) -> str:
    """A time as the record writes it; "" where it is none. Times without a zone are UTC, as gallery-dl writes them."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(float(value), UTC)  # type: ignore[arg-type]
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else 0
