"""What a collection says, for others: captions and sidecars, posts to learn from, and the whole record.

    for chosen in chosen_of(record, pictures):              # for the sinks of `efuda tag`
        sink.write_many([chosen])
    for post in posts_of(record, pictures):                 # as Danbooru's metadata, which `efuda prepare` reads
        print(json.dumps(post))
    for line in record_lines(record):                       # everything: tags, words, scores, the log
        print(json.dumps(line))

Tags are the effective ones: a person's word before an import's and a model's. `decided` leaves the models' out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import apsw

from efuda.collection.adding import real_path
from efuda.collection.pictures import Picture, TagOn, pictures_of
from efuda.collection.record import Record, rows
from efuda.collection.taggings import unpacked_scores
from efuda.files import make_folder
from efuda.tagging import Chosen
from efuda.tagging.wording import spelled
from efuda.vocabulary import Category

__all__ = ["chosen_of", "decided", "link_pictures", "posts_of", "read_pictures", "record_lines"]

_AT_ONCE: Final = 256


def read_pictures(record: Record, pictures: Sequence[int]) -> list[tuple[Picture, int]]:
    """Pictures and their revisions, all of one moment."""
    with record.read() as db:
        revisions = [db.execute("SELECT revision FROM pictures WHERE id = ?", (number,)).get for number in pictures]
        return list(zip(pictures_of(db, pictures), map(_int, revisions), strict=True))


def decided(picture: Picture, *, models: bool = False) -> list[TagOn]:
    """The tags of a picture on which persons or imports have decided, and what those imply; ratings left out.

    Args:
        models: models' tags too: then these are all that it carries.
    """
    if models:
        return list(picture.tags)
    sure = {tag.name for tag in picture.tags if tag.by in ("person", "import")}
    implied = [tag for tag in picture.tags if tag.by == "implied"]
    size = -1
    while len(sure) != size:  # what is implied may imply more
        size = len(sure)
        sure.update(tag.name for tag in implied if tag.source in sure)
    return [tag for tag in picture.tags if tag.name in sure]


def chosen_of(
    record: Record,
    pictures: Iterable[int],
    *,
    models: bool = True,
    remove_underscore: bool = False,
    every_file: bool = False,
    into: Path | None = None,
    folders: Sequence[Path] = (),
) -> Iterator[Chosen]:
    """Pictures as the sinks of `efuda tag` take them; pictures whose files are all missing are left out.

    Args:
        models: whether models' tags count.
        remove_underscore: spaces for underscores, except in faces.
        every_file: one for each file of a picture, not only for the first.
        into: a folder in which the files lie instead, as they do in `folders`.
        folders: what paths are relative to there.
    """
    todo = iter(pictures)
    while some := list(islice(todo, _AT_ONCE)):
        for picture, _ in read_pictures(record, some):
            if picture.missing is not None:
                continue
            tags = [_tag(tag, remove_underscore) for tag in decided(picture, models=models)]
            rating = picture.rating if models or picture.rating_by != "model" else None
            ratings = {name: round(score, 4) for name, score in picture.ratings.items()} if models else {}
            for path in _files(record, picture) if every_file else [picture.path]:
                place = path if into is None else into / _relative(path, folders)
                yield Chosen(place, (picture.width, picture.height), tags, ratings, rating)


def posts_of(record: Record, pictures: Iterable[int], *, models: bool = False) -> Iterator[dict[str, Any]]:
    """Pictures as posts of Danbooru's metadata: what was decided becomes labels.

    Beside Danbooru's fields a post has `file_path`, and in `tag_string_refused` the tags to which a person said no.
    """
    todo = iter(pictures)
    while some := list(islice(todo, _AT_ONCE)):
        for picture, _ in read_pictures(record, some):
            yield _post(picture, models)


def link_pictures(record: Record, pictures: Iterable[int], folder: Path) -> None:
    """Make links to the pictures' files, named by their numbers, as `efuda prepare --images` finds them.

    Raises:
        OutputError: the folder cannot be written.
    """
    make_folder(folder)
    todo = iter(pictures)
    while some := list(islice(todo, _AT_ONCE)):
        for picture, _ in read_pictures(record, some):
            if picture.missing is None:
                place = folder / f"{picture.id}.{picture.filetype}"
                place.unlink(missing_ok=True)
                place.symlink_to(picture.path)


def record_lines(record: Record) -> Iterator[dict[str, Any]]:
    """Everything, a line each: the collection, its sources, folders, tags, pictures and operations."""
    with record.read() as db:
        state = dict(rows(db, "SELECT key, value FROM state"))
        version = db.pragma("user_version")
        yield {"kind": "collection", "schema": version, "revision": state.get("revision"), "path": str(record.path)}
        names = dict(rows(db, "SELECT id, name FROM tags"))
        sources = {number: (kind, name) for number, kind, name in db.execute("SELECT id, kind, name FROM sources")}
        for kind, identity, name in db.execute("SELECT kind, identity, name FROM sources ORDER BY id"):
            yield {"kind": "source", "is": kind, "identity": identity, "name": name}
        for path, added, recursive in db.execute("SELECT path, added, recursive FROM folders ORDER BY id"):
            yield {"kind": "folder", "path": str(real_path(path)), "added": added, "recursive": bool(recursive)}
        yield from _tag_lines(db, names)
        for (number,) in rows(db, "SELECT id FROM pictures ORDER BY id"):
            yield _picture_line(db, number, names, sources)
        yield from _operation_lines(db, names, sources)


def _tag(tag: TagOn, remove_underscore: bool) -> tuple[str, float, Category]:
    name = spelled(tag.name) if remove_underscore else tag.name
    sure = tag.by in ("person", "import") or tag.score is None
    return name, 1.0 if sure or tag.score is None else round(tag.score, 4), tag.category


def _files(record: Record, picture: Picture) -> list[Path]:
    with record.read() as db:
        found = rows(db, "SELECT path FROM files WHERE picture = ? AND missing IS NULL ORDER BY path", (picture.id,))
    return [real_path(path) for (path,) in found]


def _relative(path: Path, folders: Sequence[Path]) -> Path:
    for folder in folders:
        if path.is_relative_to(folder):
            return Path(folder.name) / path.relative_to(folder) if len(folders) > 1 else path.relative_to(folder)
    return Path(path.name)


def _post(picture: Picture, models: bool) -> dict[str, Any]:
    tags = decided(picture, models=models)
    by_category = {
        f"tag_string_{category.label}": " ".join(tag.name for tag in tags if tag.category is category)
        for category in Category
        if category is not Category.RATING
    }
    refused = [tag.name for tag in picture.refused if tag.category is not Category.RATING]
    rating = picture.rating if models or picture.rating_by != "model" else None
    return {
        "id": picture.id,
        "created_at": picture.date,
        "md5": picture.md5,
        "rating": rating[0] if rating else None,
        "file_ext": picture.filetype,
        "file_size": picture.bytes,
        "image_width": picture.width,
        "image_height": picture.height,
        "source": picture.source or "",
        "parent_id": picture.parent,
        "is_deleted": picture.removed,
        "tag_string": " ".join(tag.name for tag in tags),
        **by_category,
        "tag_string_refused": " ".join(refused),
        "file_path": os.fsencode(picture.path).decode("utf-8", "backslashreplace"),
    }


def _tag_lines(db: apsw.Connection, names: dict[int, str]) -> Iterator[dict[str, Any]]:
    aliases: dict[int, list[str]] = {}
    for alias, tag in db.execute("SELECT name, tag FROM tag_aliases ORDER BY name"):
        aliases.setdefault(tag, []).append(alias)
    implied: dict[int, list[str]] = {}
    for tag, other in db.execute("SELECT tag, implied FROM implications ORDER BY tag, implied"):
        implied.setdefault(tag, []).append(names[other])
    for number, name, category in db.execute("SELECT id, name, category FROM tags ORDER BY name"):
        about = {"kind": "tag", "name": name, "category": Category(category).label}
        yield {**about, "aliases": aliases.get(number, []), "implies": implied.get(number, [])}


def _picture_line(
    db: apsw.Connection, number: int, names: dict[int, str], sources: dict[int, tuple[str, str]]
) -> dict[str, Any]:
    (row,) = rows(db, _PICTURE, (number,))
    line = dict(zip(_FIELDS, row, strict=True))
    for field in ("sha256", "md5", "pixels"):
        line[field] = None if line[field] is None else line[field].hex()
    line["removed"] = bool(line["removed"])
    files = rows(db, "SELECT path, missing FROM files WHERE picture = ? ORDER BY path", (number,))
    line["files"] = [{"path": str(real_path(path)), "missing": missing} for path, missing in files]
    line["words"] = [
        {"tag": names[tag], "says": "yes" if verdict > 0 else "no", "by": sources[source][1], "at": at, "operation": op}
        for tag, verdict, source, at, op in rows(db, _WORDS, (number,))
    ]
    line["taggings"] = [
        {
            "by": sources[source][1],
            "is": sources[source][0],
            "at": at,
            "operation": operation,
            "withdrawn": bool(withdrawn),
            **_scores(blob, names),
        }
        for source, at, operation, withdrawn, blob in rows(db, _TAGGINGS, (number,))
    ]
    return {"kind": "picture", **line}


def _scores(blob: bytes, names: dict[int, str]) -> dict[str, Any]:
    """Tag → score of 255, and which of them are present."""
    tags, scores, present = unpacked_scores(blob)
    named = [names.get(tag, str(tag)) for tag in tags.tolist()]
    return {
        "scores": dict(zip(named, scores.tolist(), strict=True)),
        "present": [name for name, is_present in zip(named, present.tolist(), strict=True) if is_present],
    }


def _operation_lines(
    db: apsw.Connection, names: dict[int, str], sources: dict[int, tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    for number, at, source, kind, summary, undoes in rows(db, _OPERATIONS):
        changes = []
        for picture, what, tag, before, after in rows(db, _CHANGES, (number,)):
            about: dict[str, Any] = {"picture": picture, "what": what}
            if what == "word":
                about["tag"] = names[tag]
            elif tag is not None:
                about["by"] = sources[tag][1]
            changes.append({**about, "before": _plain(before), "after": _plain(after)})
        yield {
            "kind": "operation",
            "id": number,
            "at": at,
            "by": sources[source][1],
            "does": kind,
            "summary": summary,
            "undoes": undoes,
            "changes": changes,
        }


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _int(value: Any) -> int:
    assert isinstance(value, int)
    return value


_FIELDS: Final = (
    *("id", "sha256", "md5", "bytes", "filetype", "width", "height", "added", "date", "duration_ms", "pixels", "phash"),
    *("source", "parent", "removed", "revision"),
)
_PICTURE: Final = f"SELECT {', '.join(_FIELDS)} FROM pictures WHERE id = ?"
_WORDS: Final = "SELECT tag, verdict, source, at, operation FROM words WHERE picture = ? ORDER BY tag"
_TAGGINGS: Final = """
SELECT source, at, operation, withdrawn, scores FROM taggings WHERE picture = ? ORDER BY id
"""
_OPERATIONS: Final = "SELECT id, at, source, kind, summary, undoes FROM operations ORDER BY id"
_CHANGES: Final = "SELECT picture, what, tag, before, after FROM changes WHERE operation = ? ORDER BY n"
