"""Where posts come from: every format that people have, told apart by its contents, behind one interface.

found, jobs = find_jobs(["metadata"])
found[0].name                      # "Danbooru 2021 JSON lines"
for job in jobs: job.read()        # Parsed: a table of entries, and what could not be read

`records` knows the kinds of JSON posts, `lines` JSON files, `tables` CSV and Parquet, `sidecars` what lies beside a
picture.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from efuda.datasets.entries import Job
from efuda.datasets.sources.lines import BrokenJob, json_jobs, look_into
from efuda.datasets.sources.records import API, Kind
from efuda.datasets.sources.sidecars import FORMATS, find_sidecars, sidecar_jobs, site_of
from efuda.datasets.sources.tables import is_parquet, is_table, table_jobs
from efuda.datasets.sources.unpacking import PACKINGS, is_packed
from efuda.errors import MetadataError
from efuda.places import Stat, exists, expand, is_folder, is_remote, join, walk

__all__ = ["Found", "find_jobs"]

_NOT_POSTS: Final = ("tag", "artists", "pools", "notes")
_ENDINGS: Final = tuple(
    f".{kind}{packing}" for kind in ("json", "jsonl", "csv", "parquet") for packing in ("", *PACKINGS)
)
_EXPECTED: Final = "expected posts*.json files, one post a line, or pictures with sidecars."


@dataclass(frozen=True)
class Found:
    """A source: the name of its format, the place that was named, and its files, in order."""

    name: str
    place: str
    files: Sequence[str]
    kind: Kind | None = field(default=None, repr=False)
    format: str = ""
    sidecars: Sequence[tuple[str, str, Stat]] = field(default=(), repr=False)
    unreadable: Sequence[tuple[str, str]] = field(default=(), repr=False)

    def jobs(self) -> Iterator[Job]:
        """What there is to read."""
        if self.format:
            yield from sidecar_jobs(self.place, self.format, self.sidecars)
            for path, reason in self.unreadable:
                yield BrokenJob(path, f"{path} {reason}", f"the folder cannot be read ({reason})")
            return
        for file in self.files:
            if self.kind:
                yield from json_jobs(file, self.kind)
            else:
                yield from table_jobs(file)


def find_jobs(places: Sequence[str]) -> tuple[list[Found], Iterator[Job]]:
    """Find the sources at these places: files, folders, patterns, URLs.

    In a folder (or its `metadata/`) the files `posts*` are taken, or else all but those named as tags, artists, pools
    or notes; or else the sidecars beside its pictures.

    Raises:
        MetadataError: there are none, or a file holds no posts.
    """
    found = [one for place in places for one in _at(place)]
    if not found:
        raise MetadataError("No metadata file was named. Name the files or the folder of posts*.json.")
    return found, (job for one in found for job in one.jobs())


def _at(place: str) -> Iterator[Found]:
    several = expand(place)
    if not several:
        raise MetadataError(f"{place} matches no file. Name the files or the folder of posts*.json.")
    for one in several:
        if is_folder(one):
            yield from _in_folder(one)
        elif exists(one):
            yield from _grouped(one, [one])
        else:
            raise MetadataError(f"{one} does not exist. Name the files or the folder of posts*.json.")


def _in_folder(folder: str) -> Iterator[Found]:
    for inside in (folder, join(folder, "metadata")):
        files = _posts_in(inside)
        if not files:
            continue
        try:
            found = list(_grouped(folder, files))
        except MetadataError:
            if PurePosixPath(files[0]).name.startswith("posts") or not (beside := _beside(folder)):
                raise
            found = [beside]  # pictures with sidecars, and some other file among them
        yield from found
        return
    beside = _beside(folder)
    if not beside:
        raise MetadataError(f"{folder} holds no metadata: {_EXPECTED}")
    yield beside


def _beside(folder: str) -> Found | None:
    """The sidecars of the pictures beneath a folder."""
    unreadable: list[tuple[str, str]] = []
    everything = list(walk(folder, unreadable=lambda path, reason: unreadable.append((path, reason))))
    format, sidecars = find_sidecars(everything)
    if not format:
        return None
    site = site_of(folder, sidecars) if format == "gallery-dl" else ""
    name = f"{FORMATS[format]} ({site})" if site else FORMATS[format]
    files = [join(folder, sidecar) for sidecar, _, _ in sidecars]
    return Found(name, folder, files, format=format, sidecars=sidecars, unreadable=unreadable)


def _posts_in(folder: str) -> list[str]:
    if not is_folder(folder):
        return []
    pictures = set()
    named = []
    for name in _names(folder):
        if name.lower().endswith(_ENDINGS):
            named.append(name)
        else:
            pictures.add(name)
    named = [name for name in named if PurePosixPath(name).stem not in pictures]  # name.jpg.json lies beside name.jpg
    posts = [name for name in named if name.startswith("posts")]
    return [join(folder, name) for name in posts or (name for name in named if not name.startswith(_NOT_POSTS))]


def _names(folder: str) -> list[str]:
    """The files right in a folder, sorted."""
    if is_remote(folder):
        return [name for name, _ in walk(folder) if "/" not in name]
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if _is_file(entry))
    except OSError as error:
        raise MetadataError(f"{folder} cannot be read ({error.strerror}). Check its permissions.") from error


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) or Path(entry.path).is_file()  # which says no of a loop of links


def _grouped(place: str, files: Sequence[str]) -> Iterator[Found]:
    """Files of one format that stand together are one source."""
    run: list[str] = []
    before: tuple[str, Kind | None] | None = None
    for file in files:
        now = _format(file)
        if before is not None and now != before:
            yield Found(before[0], place if len(run) > 1 else run[0], run, before[1])
            run = []
        before = now
        run.append(file)
    if before is not None:
        yield Found(before[0], place if len(run) == len(files) else run[0], run, before[1])


def _format(file: str) -> tuple[str, Kind | None]:
    if is_table(file):
        return ("Parquet" if is_parquet(file) else "CSV"), None
    contents = look_into(file)
    if contents.kind is None:
        trouble = f" It ends early or is damaged ({contents.trouble})." if contents.trouble else ""
        raise MetadataError(
            f"{file} does not look like posts: none of its first lines is a JSON object with tags or "
            f"tag_string.{trouble}"
        )
    name = contents.kind.name
    if contents.kind is API and (contents.media or not contents.lines):
        name = "Danbooru API"
    packing = f", {file.rpartition('.')[2]}" if is_packed(file) else ""
    return f"{name} JSON{' lines' if contents.lines else ''}{packing}", contents.kind
