"""Looking through the folders of a collection: what is new, moved, copied, changed, gone or back again.

    done = scan(record, [Path("art")])
    print(done.added, done.moved, done.missing, done.withheld)

A file of the same size and time is not read, so a look at what has not changed costs one question to the disk a file.
Everything else is known by its content, and no model is needed. A file that is gone is kept and marked with since when.
Where a whole folder seems gone, a drive is more likely unplugged than a collection thrown away: nothing of it is marked
unless that is asked.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from efuda.collection.adding import File, is_gone, link, new_picture, real_path, stored_path
from efuda.collection.record import Record, Writing, now, rows
from efuda.errors import CollectionError, ImageError
from efuda.images import SUFFIXES, read_size
from efuda.images.finding import files_beneath
from efuda.progress import Progress, silent
from efuda.tagging import Failed

__all__ = [
    "Folder",
    "Scanned",
    "folders_of",
    "forget_folder",
    "remember_folders",
    "scan",
    "scan_files",
    "untagged_files",
]

_READERS: Final = min(4, os.cpu_count() or 1)
_BATCH: Final = 200
_SECONDS: Final = 2.0
_MARKED_AT_ONCE: Final = 5_000
_MANY: Final = 100  # of so many files that are gone, and more than half, one asks first
_GONE: Final = (errno.ENOENT, errno.ENOTDIR)
_SIZE_BITS: Final = 48
Stored = str | bytes


class Folder(NamedTuple):
    """A folder that the collection looks through."""

    id: int
    path: Path
    recursive: bool


@dataclass(slots=True)
class Scanned:
    """What a scan found.

    Attributes:
        files: how many were looked at.
        unchanged: of the same size and time as before.
        added: new contents: a picture that no one has tagged yet.
        copied: contents that lie elsewhere, too.
        moved: contents whose file elsewhere is gone: moved or renamed.
        changed: other contents than before at a path.
        touched: the same contents with another time.
        returned: contents that were missing.
        missing: gone, and marked so.
        withheld: sentences on what seems gone and was not marked.
        failed: what could not be read, with the reason.
    """

    files: int = 0
    unchanged: int = 0
    added: int = 0
    copied: int = 0
    moved: int = 0
    changed: int = 0
    touched: int = 0
    returned: int = 0
    missing: int = 0
    withheld: list[str] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)


def scan(
    record: Record,
    folders: Sequence[Path] = (),
    *,
    dry_run: bool = False,
    trust: bool = False,
    progress: Progress = silent,
) -> Scanned:
    """Look through folders, and note what has changed.

    Args:
        folders: these, which are remembered; none for all that are remembered, and all files besides.
        dry_run: only say what would be noted.
        trust: mark what is gone also where a whole folder is.
        progress: told of files looked at, and of files read.

    Raises:
        CollectionError: no folder is known, or one given does not exist and holds nothing that is known.
    """
    if folders and not dry_run:
        remember_folders(record, [folder for folder in folders if folder.is_dir()])
    roots = _outermost([(_absolute(folder), True) for folder in folders]) if folders else _known_roots(record)
    if not roots and not _any_file(record):
        raise CollectionError(
            f"{record.path} knows no folder to look through. Name one: efuda collection scan {record.path} FOLDER"
        )
    job = _Scan(record, dry_run, progress)
    job.load([] if not folders else roots)
    held = {root: why for root, _ in roots if (why := _unreadable(root))}
    job.look(entry for root, recursive in roots if root not in held for entry in _pictures(root, recursive, job.tell))
    job.finish_reading()
    job.mark_missing([root for root, _ in roots], held, trust)
    return job.sum


def scan_files(record: Record, paths: Iterable[Path], *, progress: Progress = silent) -> Scanned:
    """Note what has become of these files only, for example of those that a watch names.

    Of a folder that is empty now nothing is marked as missing: `scan` decides on that.
    """
    job = _Scan(record, False, progress)
    places = [_stored(_absolute(path)) for path in paths]
    job.load_files(places)
    job.look(_Plain(real_path(place)) for place in places)
    job.finish_reading()
    job.mark_missing([], {}, False)
    return job.sum


def folders_of(record: Record) -> list[Folder]:
    """The folders that the collection looks through, in the order in which they came."""
    with record.read() as db:
        found = rows(db, "SELECT id, path, recursive FROM folders ORDER BY id")
    return [Folder(number, real_path(path), bool(recursive)) for number, path, recursive in found]


def remember_folders(record: Record, folders: Iterable[Path], *, recursive: bool = True) -> None:
    """Look through these folders from now on; one within a remembered one is there already."""
    known = [(str(one.path), one.recursive) for one in folders_of(record)]
    new = []
    for path in map(_absolute, folders):
        if not any(path == root or (deep and path.startswith(_beneath(root))) for root, deep in known):
            known.append((path, recursive))
            new.append(path)
    if new:
        with record.write() as writing:
            for path in new:
                values = (_stored(path), writing.at, int(recursive))
                writing.db.execute("INSERT INTO folders (path, added, recursive) VALUES (?, ?, ?)", values)


def forget_folder(record: Record, folder: Path) -> None:
    """Look through a folder no more; its pictures stay as they are.

    Raises:
        CollectionError: it is not one of those remembered.
    """
    with record.write() as writing:
        place = _stored(_absolute(folder))
        if not rows(writing.db, "DELETE FROM folders WHERE path = ? RETURNING id", (place,)):
            known = ", ".join(str(real_path(path)) for (path,) in rows(writing.db, "SELECT path FROM folders"))
            raise CollectionError(f"{folder} is none of the folders of {record.path}: {known or 'there are none'}.")


def untagged_files(record: Record, model: str) -> list[Path]:
    """One file of each picture that is there and that a model has yet to see.

    Args:
        model: `Tagger.identity`.
    """
    with record.read() as db:
        return [real_path(path) for (path,) in rows(db, _UNTAGGED, (model,))]


class _Plain:
    """A file by its name, where the walk would have an entry of a folder."""

    def __init__(self, path: Path) -> None:
        self.path, self._path = str(path), path

    def stat(self) -> os.stat_result:
        return self._path.stat()


Entry = os.DirEntry[str] | _Plain


class _Read(NamedTuple):
    path: Path
    file: File | None
    size: tuple[int, int] | None
    reason: str


class _Scan:
    """One look: what was known and has not been met yet, and what must be read."""

    def __init__(self, record: Record, dry_run: bool, progress: Progress) -> None:
        self.record, self.dry_run, self.progress = record, dry_run, progress
        self.sum = Scanned()
        self.known: dict[Stored, int | None] = {}  # time and size in one number; None where it is marked missing
        self.unread: list[str] = []
        self.gone: set[Stored] = set()
        self._fresh: set[bytes] = set()  # contents that a dry run would have added
        self._left: set[Stored] = set()  # where files were that have moved

    def tell(self, path: Path, reason: str) -> None:
        self.sum.failed.append(Failed(path, reason))

    def load(self, roots: Sequence[tuple[str, bool]]) -> None:
        """What is known: of all files, or of those at or beneath the roots."""
        with self.record.read() as db:
            if not roots:
                self._take(db, "", ())
            for root, recursive in roots:
                for low, high in _range(root):
                    self._take(db, "WHERE path >= ? AND path < ?", (low, high), None if recursive else low)

    def load_files(self, places: Sequence[Stored]) -> None:
        """What is known of these files."""
        with self.record.read() as db:
            for place in places:
                self._take(db, "WHERE path = ?", (place,))

    def _take(self, db: apsw.Connection, where: str, values: tuple[Any, ...], only_in: Stored | None = None) -> None:
        for path, mtime, size, missing in db.execute(f"{_KNOWN} {where}", values):
            if only_in is None or (b"/" if isinstance(path, bytes) else "/") not in path[len(only_in) :]:
                self.known[path] = None if missing else mtime << _SIZE_BITS | size

    def look(self, entries: Iterable[Entry]) -> None:
        """Pass over what is as it was, and note what must be read."""
        done = self.sum
        for entry in entries:
            try:
                stat = entry.stat()
            except OSError as error:
                if error.errno not in _GONE:
                    self.tell(Path(entry.path), _why(error))
                continue
            if stat.st_mode & 0o170000 != 0o100000:
                continue
            done.files += 1
            if self.known.pop(_stored(entry.path), -1) == stat.st_mtime_ns << _SIZE_BITS | stat.st_size:
                done.unchanged += 1
            else:
                self.unread.append(entry.path)
            if done.files % 1000 == 0:
                self.progress("look", done.files, unit="files", note=f"{len(self.unread):,} to read")

    def finish_reading(self) -> None:
        """Read what is new or other than it was, and note what it is, a batch a transaction."""
        for place in [*self.known]:  # known and not met: named otherwise than pictures are, hidden, or gone
            self._look_again(place)
        if self.sum.files:
            self.progress("look", self.sum.files, self.sum.files, unit="files", note=f"{len(self.unread):,} to read")
        batch: list[_Read] = []
        last = time.monotonic()
        for done, read in enumerate(_read_all(self.unread), start=1):
            batch.append(read)
            if len(batch) >= _BATCH or time.monotonic() - last > _SECONDS:
                self._note(batch)
                batch, last = [], time.monotonic()
            self.progress("read", done, len(self.unread), unit="files")
        self._note(batch)

    def _look_again(self, place: Stored) -> None:
        path = real_path(place)
        try:
            stat = path.stat()
        except OSError as error:
            if error.errno in _GONE:
                self.gone.add(place)
            return  # else it cannot be seen just now, which says nothing
        before = self.known.pop(place)
        self.sum.files += 1
        if before == stat.st_mtime_ns << _SIZE_BITS | stat.st_size:
            self.sum.unchanged += 1
        else:
            self.unread.append(str(path))

    def _note(self, batch: Sequence[_Read]) -> None:
        good = [(read.file, read) for read in batch if read.file is not None]
        self.sum.failed += [Failed(read.path, read.reason) for read in batch if read.file is None]
        if not good:
            return
        if self.dry_run:
            with self.record.read() as db:
                for file, read in good:
                    self._count(file, read, *self._kind(db, file))
            return
        kinds = []
        with self.record.write(durable=False) as writing:
            for file, read in good:
                kind, picture = self._kind(writing.db, file)
                if picture is None and read.size is not None:
                    picture = new_picture(writing, file, read.size)
                if picture is not None:
                    link(writing, file, picture)
                kinds.append((file, read, kind, picture))
        for one in kinds:
            self._count(*one)

    def _kind(self, db: apsw.Connection, file: File) -> tuple[str, int | None]:
        """What has become of a file: the name of a count, and the picture whose contents it has."""
        place = stored_path(file.path)
        found = rows(db, "SELECT id FROM pictures WHERE sha256 = ?", (file.sha256,))
        at = rows(db, "SELECT picture, missing FROM files WHERE path = ?", (place,))
        if not found:
            return ("copied" if file.sha256 in self._fresh else "changed" if at else "added"), None
        picture: int = found[0][0]
        if at and at[0][0] != picture:
            return "changed", picture
        if at:
            return ("returned" if at[0][1] else "touched"), picture
        others = rows(db, "SELECT path, missing FROM files WHERE picture = ?", (picture,))
        gone = [other for other, _ in others if is_gone(real_path(other))]
        self._left.update(gone)
        if all(missing for _, missing in others):
            return "returned", picture
        return ("moved" if gone else "copied"), picture

    def _count(self, file: File, read: _Read, kind: str, picture: int | None) -> None:
        if picture is None and read.size is None:
            self.sum.failed.append(Failed(read.path, read.reason))
            return
        if self.dry_run:
            self._fresh.add(file.sha256)
        setattr(self.sum, kind, getattr(self.sum, kind) + 1)

    def mark_missing(self, roots: Sequence[str], held: dict[str, str], trust: bool) -> None:
        """Mark what is gone, except where that is too much to be believed."""
        by_folder: dict[str, list[Stored]] = {}
        for place in self.gone:
            if self.known[place] is not None and place not in self._left:  # not marked before, and not moved
                by_folder.setdefault(_root_of(place, roots), []).append(place)
        todo: list[Stored] = []
        for folder, gone in by_folder.items():
            why = held.get(folder) or self._unlikely(folder, len(gone))
            if why and not trust:
                self.sum.withheld.append(_sentence(folder, why, len(gone)))
            else:
                todo += gone
        for folder, why in held.items():
            if folder not in by_folder:
                self.tell(Path(folder), why)
        self.sum.missing = len(todo)
        if not self.dry_run:
            for start in range(0, len(todo), _MARKED_AT_ONCE):
                self._mark(todo[start : start + _MARKED_AT_ONCE])

    def _unlikely(self, folder: str, gone: int) -> str:
        """Why so many files can hardly have been thrown away; empty where they can."""
        if not _holds_pictures(folder):
            return "holds no picture any more"
        with self.record.read() as db:
            before = sum(_there(db, low, high) for low, high in _range(folder))
        return "lacks most of its pictures" if gone > _MANY and gone > before / 2 else ""

    def _mark(self, places: Sequence[Stored]) -> None:
        with self.record.write(durable=False) as writing:
            for place in places:
                writing.touch(_marked(writing, place))


def _marked(writing: Writing, place: Stored) -> list[int]:
    statement = "UPDATE files SET missing = ? WHERE path = ? AND missing IS NULL RETURNING picture"
    return [picture for (picture,) in rows(writing.db, statement, (now(), place))]


def _read_all(paths: Sequence[str]) -> Iterator[_Read]:
    """In order; some at a time, since hashing lets other threads run."""
    todo = iter(paths)
    with ThreadPoolExecutor(_READERS) as pool:
        while some := list(islice(todo, 16 * _READERS)):
            yield from pool.map(_read, map(Path, some))


def _read(path: Path) -> _Read:
    try:
        file = File.read(path)
        stat = path.stat()
    except OSError as error:
        return _Read(path, None, None, _why(error))
    if (stat.st_size, stat.st_mtime_ns) != (file.bytes, file.mtime_ns):
        return _Read(path, None, None, "still being written")
    try:
        return _Read(path, file, read_size(path), "")
    except ImageError as error:
        return _Read(path, file, None, error.reason)


def _pictures(root: str, recursive: bool, tell: Any) -> Iterator[os.DirEntry[str]]:
    for entry in files_beneath(root, recursive, tell):
        if os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122 - a million of them
            yield entry


def _holds_pictures(folder: str) -> bool:
    return any(True for _ in _pictures(folder, True, lambda path, reason: None))


def _unreadable(root: str) -> str:
    """Why a folder cannot be looked through; empty where it can."""
    try:
        with os.scandir(root):
            return ""
    except OSError as error:
        return "is not there" if error.errno in _GONE else f"cannot be read ({_why(error)})"


def _sentence(folder: str, why: str, gone: int) -> str:
    files = f"{gone:,} file{'' if gone == 1 else 's'}"
    return (
        f"{folder} {why}: {files} of the collection would be marked as missing, and nothing of it was. "
        "Is a drive unplugged or a share not mounted? If they are gone indeed, scan again with --yes."
    )


def _known_roots(record: Record) -> list[tuple[str, bool]]:
    return _outermost([(str(folder.path), folder.recursive) for folder in folders_of(record)])


def _outermost(roots: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Without those that lie in another one that is looked through to any depth."""
    unique = dict.fromkeys(roots)
    return [
        (root, deep)
        for root, deep in unique
        if not any(other_deep and root.startswith(_beneath(other)) for other, other_deep in unique if other != root)
    ]


def _root_of(place: Stored, roots: Sequence[str]) -> str:
    """The folder that is scanned and has the file in it, else its own folder."""
    path = str(real_path(place))
    return next((root for root in roots if path.startswith(_beneath(root))), os.path.split(path)[0])


def _range(root: str) -> Iterator[tuple[Stored, Stored]]:
    """From and to, between which the paths beneath a folder are; as text, and as bytes for names that are no text."""
    low = os.fsencode(_beneath(root))
    high = low[:-1] + b"0"  # the character behind "/"
    with suppress(UnicodeDecodeError):
        yield low.decode(), high.decode()
    yield low, high


def _there(db: apsw.Connection, low: Stored, high: Stored) -> int:
    statement = "SELECT count(*) FROM files WHERE path >= ? AND path < ? AND missing IS NULL"
    count = db.execute(statement, (low, high)).get
    assert isinstance(count, int)
    return count


def _any_file(record: Record) -> bool:
    with record.read() as db:
        return db.execute("SELECT 1 FROM files LIMIT 1").get is not None


def _beneath(root: str) -> str:
    return root if root.endswith("/") else f"{root}/"


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  (as stored_path)


def _stored(absolute: str) -> Stored:
    """As `stored_path`, for what is absolute already."""
    if absolute.isascii():
        return absolute
    try:
        absolute.encode()
    except UnicodeEncodeError:
        return os.fsencode(absolute)
    return absolute


def _why(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return (error.strerror or "cannot be read").lower()


_KNOWN: Final = """
SELECT path, mtime_ns, bytes, missing IS NOT NULL FROM files JOIN pictures ON pictures.id = files.picture
"""
_UNTAGGED: Final = """
SELECT min(path) FROM files JOIN pictures ON pictures.id = files.picture WHERE missing IS NULL AND NOT removed
AND NOT EXISTS (
    SELECT 1 FROM taggings JOIN sources ON sources.id = taggings.source
    WHERE picture = pictures.id AND kind = 'model' AND identity = ? AND NOT withdrawn)
GROUP BY pictures.id ORDER BY pictures.id
"""
