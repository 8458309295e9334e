"""Keeping a collection: scan its folders, watch them, back it up, restore it, check it, and export what it says."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final

import typer

from efuda.cli.console import output
from efuda.cli.outcomes import finish, number_of
from efuda.cli.scoring import Scoring, scored
from efuda.errors import UsageError

if TYPE_CHECKING:
    from efuda.collection import Collection
    from efuda.collection.scanning import Scanned
    from efuda.tagging import Chosen, Failed

__all__ = ["register"]

CollectionPath = Annotated[Path, typer.Argument(help="The collection's file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
_BESIDE: Final = ("txt", "json", "xmp", "hydrus")
_ONE_FILE: Final = ("jsonl", "csv", "parquet", "kohya")
_LINES: Final = ("posts", "record")
_FRAMES: Final = 5  # as efuda tag
_BATCH: Final = 64
_SHOWN: Final = 20
_COUNTS: Final = {
    "added": "new",
    "moved": "moved",
    "copied": "copies of known ones",
    "changed": "changed",
    "returned": "back again",
    "missing": "missing",
    "touched": "with another time",
    "unchanged": "unchanged",
}


def register(app: typer.Typer) -> None:
    """Add the commands to `efuda collection`."""
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    collection = groups["collection"]
    assert collection is not None
    for command in (scan, watch, backup, restore, check, export):
        collection.command(rich_help_panel="Keep")(command)


def scan(
    collection: CollectionPath,
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="These folders, which are remembered; all that are known by default.", show_default=False),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Mark files as missing also where a whole folder seems gone.")
    ] = False,
    forget: Annotated[
        Path | None, typer.Option(help="Look through this folder no more; its pictures stay.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Look for new, moved, changed and missing files in the collection's folders; no model is needed.

    Pictures are known by content: what was moved or renamed stays what it is, the same picture twice is one, and a
    file that is gone is kept and marked. New pictures are known from then on, and tagged by efuda collection add.
    """
    from efuda.collection import Collection
    from efuda.collection.scanning import forget_folder

    with Collection.open(collection, create=bool(folders) and not dry_run) as opened:
        if forget is not None:
            forget_folder(opened.record, forget)
            return output.result({"forgotten": str(forget)}, as_json=json, text=f"{forget} is looked through no more.")
        with output.progress() as progress:
            done = opened.scan(folders or [], dry_run=dry_run, trust=yes, progress=progress)
            if not dry_run:
                opened.make_previews(progress=progress)
    return _finish_scan(done, dry_run, json)


def watch(
    collection: CollectionPath,
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="These folders, which are remembered; all that are known by default.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Tag new pictures with this model, as efuda collection add would."),
    ] = None,
    every: Annotated[float, typer.Option(min=1, help="Seconds from one look through everything to the next.")] = 600,
) -> None:
    """Scan, and then note what happens in the folders as it happens, until Ctrl-C.

    With watchfiles installed (pip install watchfiles) the system tells of changes at once; without, and on shares of
    the network, the folders are looked at again and again.
    """
    from efuda.collection import Collection

    with Collection.open(collection, create=bool(folders)) as opened, _tagging(opened, model) as tag:
        for done in opened.watch(folders or [], every=every):
            for sentence in done.withheld:
                output.complain(sentence)
            for one in done.failed:
                output.complain(f"skipped {one.path}: {one.reason}")
            output.say(_said(done))
            tag()


def backup(
    collection: CollectionPath,
    to: Annotated[
        Path,
        typer.Argument(help="A folder, where each backup is named by its time, or a new file.", show_default=False),
    ],
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Keep so many of this collection's backups in the folder; the oldest are deleted."),
    ] = None,
    json: Json = False,
) -> None:
    """Copy the collection while it is in use; the copy is checked, and the earlier ones stay until it is whole.

    Pictures are not copied: they are yours to back up. Thumbnails and indexes are made anew.
    """
    from efuda.collection.backups import backup as make

    with output.progress() as progress:
        made = make(collection, to, keep=keep, progress=progress)
    size = made.stat().st_size
    output.result({"backup": str(made), "bytes": size}, as_json=json, text=f"{made} ({size / 1e6:,.1f} MB), checked.")


def restore(
    collection: CollectionPath,
    backup: Annotated[Path, typer.Argument(help="A backup; it stays as it is.", show_default=False)],
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Put a backup in the collection's place; the collection that is there is kept beside it under another name."""
    from efuda.collection.backups import restore as put_back

    with output.progress() as progress:
        aside = put_back(backup, collection, dry_run=dry_run, progress=progress)
    facts = {"restored": None if dry_run else str(collection), "kept": str(aside) if aside else None}
    text = f"{collection} is what {backup} was" + (f"; what it was before is {aside}." if aside else ".")
    output.result(facts, as_json=json, text=f"{backup} is whole and could be restored." if dry_run else text)


def check(
    collection: CollectionPath,
    files: Annotated[
        bool, typer.Option("--files", help="Read every file, too, and compare its content with the record.")
    ] = False,
    json: Json = False,
) -> None:
    """Prove that a collection is whole: the file, its references, the log, the scores, and the files by content.

    Exits with 1 where something is wrong, and says what to do.
    """
    from efuda.collection import Collection

    with Collection.open(collection) as opened, output.progress() as progress:
        problems = opened.check(files=files, progress=progress)
    text = "\n".join(problems) or f"{collection} is whole."
    output.result({"problems": problems}, as_json=json, text=text)
    if problems:
        raise typer.Exit(1)


def export(
    collection: CollectionPath,
    query: Annotated[str, typer.Argument(help="Which pictures; all by default.", show_default=False)] = "",
    to: Annotated[
        str,
        typer.Option(
            help="txt, json, xmp or hydrus: a file beside each picture. jsonl, csv, parquet, kohya: one file of tags. "
            "posts: Danbooru's metadata, for efuda prepare. record: everything, as JSON lines."
        ),
    ] = "record",
    out: Annotated[
        Path | None,
        typer.Option(help="That one file, or a folder for the files that would lie beside the pictures."),
    ] = None,
    decided: Annotated[
        bool, typer.Option("--decided", help="Only tags that persons or imports decided on, and what those imply.")
    ] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Add what is missing to the files that are there.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write anew what exists; old files are kept as .bak.")
    ] = False,
    remove_underscore: Annotated[
        bool, typer.Option("--remove-underscore", help="Spaces for underscores, except in faces such as ^_^.")
    ] = False,
    links: Annotated[
        Path | None,
        typer.Option(
            help="With posts: a folder for links to the pictures, named as efuda prepare --images finds them."
        ),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write what the collection says: captions, XMP that Immich and digiKam read, posts to learn from, or everything.

    Tags are the effective ones: persons' words before imports' and models'. Files that are there stay, unless --merge
    or --replace is given.
    """
    from efuda.collection import Collection
    from efuda.collection.exporting import link_pictures

    if to not in (*_BESIDE, *_ONE_FILE, *_LINES):
        raise UsageError(f"--to {to} is not known; choose one of {', '.join((*_BESIDE, *_ONE_FILE, *_LINES))}.")
    if merge and replace:
        raise UsageError("--merge and --replace do not go together: add to what is there, or write it anew.")
    if json and out is None and to in ("jsonl", "csv", *_LINES):
        raise UsageError(f"--json and --to {to} would both print to standard output: name a file with --out.")
    if links is not None and to != "posts":
        raise UsageError("--links goes with --to posts.")
    if to == "record" and (query or decided):
        raise UsageError("--to record is of everything; a query and --decided go with the others.")
    with Collection.open(collection) as opened:
        pictures = [] if to == "record" else [int(number) for number in opened.ids(query)]
        if to in _LINES:
            _export_lines(opened, pictures, to, out, decided, replace, dry_run, json)
            return None if links is None or dry_run else link_pictures(opened.record, pictures, links)
        existing = "merge" if merge else "replace" if replace else "skip"
        _export_tags(opened, pictures, to, out, existing, decided, remove_underscore, dry_run, json)
    return None


def _export_lines(
    opened: Collection,
    pictures: list[int],
    to: str,
    out: Path | None,
    decided: bool,
    replace: bool,
    dry_run: bool,
    json: bool,
) -> None:
    """Posts or the record; a file is there whole or not at all."""
    from efuda.collection.exporting import posts_of, record_lines
    from efuda.files import replacing

    if out is not None and out.exists() and not replace:
        raise UsageError(f"{out} exists. Choose another --out, or --replace it.")
    lines = record_lines(opened.record) if to == "record" else posts_of(opened.record, pictures, models=not decided)
    written = 0
    if dry_run:
        written = sum(1 for _ in lines)
    elif out is None:
        written = _write_lines(lines, sys.stdout)
    else:
        with replacing(out) as made, made.open("w", encoding="utf-8", newline="\n") as file:
            written = _write_lines(lines, file)
    text = f"{number_of(written, 'line')} {'would be ' if dry_run else ''}written" + (f" to {out}." if out else ".")
    finish({"lines": written}, text, [], json, quiet=out is None and not dry_run)


def _write_lines(lines: Iterable[dict[str, Any]], file: IO[str]) -> int:
    written = 0
    for line in lines:
        text = json_module.dumps(line, ensure_ascii=False)
        file.write((text if text.isprintable() else json_module.dumps(line)) + "\n")
        written += 1
    return written


def _export_tags(
    opened: Collection,
    pictures: list[int],
    to: str,
    out: Path | None,
    existing: str,
    decided: bool,
    remove_underscore: bool,
    dry_run: bool,
    json: bool,
) -> None:
    from efuda.collection.exporting import chosen_of
    from efuda.tagging import open_sink

    beside = to in _BESIDE
    folders = [one.path for one in opened.folders()]
    written, kept = 0, 0
    failed: list[Failed] = []
    sinking = open_sink(to, "efuda collection", out=None if beside else out, existing=existing)
    with sinking as sink, output.progress() as progress:
        batch: list[Chosen] = []
        chosen = chosen_of(
            opened.record,
            pictures,
            models=not decided,
            remove_underscore=remove_underscore,
            every_file=beside and out is None,
            into=out if beside else None,
            folders=folders,
        )
        for done, one in enumerate(chosen, start=1):
            if beside and out is not None and not dry_run:
                one.path.parent.mkdir(parents=True, exist_ok=True)
            if not sink.wants(one.path):
                kept += 1
            elif dry_run:
                written += 1
            else:
                batch.append(one)
            if len(batch) >= _BATCH:
                written += _write_batch(sink, batch, failed)
            progress("export", done, unit="files")
        written += _write_batch(sink, batch, failed)
    text = f"{number_of(written, 'file' if beside else 'picture')} {'would be ' if dry_run else ''}written"
    text += f", {kept:,} had tags already." if kept else "."
    facts = {"pictures": len(pictures), "written": written, "kept": kept}
    finish(facts, text, failed, json, quiet=out is None and to in ("jsonl", "csv") and not dry_run)


def _write_batch(sink: Any, batch: list[Chosen], failed: list[Failed]) -> int:
    if not batch:
        return 0
    lost = sink.write_many(batch)
    failed += lost
    written = len(batch) - len(lost)
    batch.clear()
    return written


@contextmanager
def _tagging(opened: Collection, model: str | None) -> Iterator[Any]:
    """What tags the pictures that this model has not seen; nothing without a model."""
    if model is None:
        yield lambda: None
        return
    from efuda.collection.scanning import untagged_files
    from efuda.tagging import Tagger, default_folder

    tagger = Tagger.open(model, threads=1)
    how = Scoring(_FRAMES, False, default_folder(), None, None, None, embeddings=True)
    given_up: set[Path] = set()
    with scored(tagger, model, how) as scoring:

        def tag() -> None:
            todo = [path for path in untagged_files(opened.record, tagger.identity) if path not in given_up]
            if todo:
                done = opened.add(chain.from_iterable(scoring.run(todo)), tagger)
                for one in done.failed:
                    given_up.add(one.path)
                    output.complain(f"skipped {one.path}: {one.reason}")
                output.say(f"{number_of(done.added + done.updated, 'picture')} tagged.")

        yield tag


def _finish_scan(done: Scanned, dry_run: bool, json: bool) -> None:
    facts = asdict(done)
    failed = [{"path": str(one.path), "reason": one.reason} for one in done.failed]
    text = f"{'Would be: ' if dry_run else ''}{_said(done)}"
    output.result({**facts, "failed": failed}, as_json=json, text=text)
    for one in failed[:_SHOWN]:
        output.complain(f"skipped {one['path']}: {one['reason']}")
    if len(failed) > _SHOWN:
        output.complain(f"… and {len(failed) - _SHOWN:,} more; --json lists them all.")
    for sentence in done.withheld:
        output.complain(sentence)
    if failed or done.withheld:
        raise typer.Exit(1)


def _said(done: Scanned) -> str:
    """12,000 files: 3 new, 1 moved, 11,996 unchanged."""
    counts = [f"{getattr(done, name):,} {words}" for name, words in _COUNTS.items() if getattr(done, name)]
    return f"{number_of(done.files, 'file')}: {', '.join(counts) or 'nothing new'}."
