"""Pictures into a collection, by a model."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from efuda.cli.collection import CollectionPath, Json, collection
from efuda.cli.console import output
from efuda.cli.outcomes import counted, finish, number_of, summary
from efuda.cli.scoring import FEW, Scoring, scored
from efuda.cli.sources import find
from efuda.errors import UsageError

if TYPE_CHECKING:
    from efuda.tagging import Failed

__all__ = ["register"]

Paths = Annotated[
    list[str],
    typer.Argument(
        help="Pictures, or folders of them; - reads paths from standard input, one a line or with NUL between them.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="A model directory of any known layout, hf://OWNER/NAME, or a name of efuda models."
    ),
]
_FRAMES: Final = 5  # as efuda tag, whose kept scores are used, too
Threshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="One threshold for all tags instead of the model's own.")
]


def register(app: typer.Typer) -> None:
    """Add the commands; after those of `cli.collection`."""
    collection.command(rich_help_panel="Fill")(add)


def add(
    collection: CollectionPath,
    paths: Paths,
    model: ModelOption,
    threshold: Threshold = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Where scores are kept, so that a picture is looked at once; the cache by default."),
    ] = None,
    no_scores: Annotated[bool, typer.Option("--no-scores", help="Neither keep scores nor use kept ones.")] = False,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", "--batch-size", min=1, help="Pictures the model sees at once; 4 by default, 16 on a GPU."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes; one a core by default.")] = None,
    json: Json = False,
) -> None:
    """Tag pictures and add them to a collection, which is created if need be.

    Pictures stay where they are. Those that the collection already has from this model, unchanged, are left alone,
    so the same command goes on where it was stopped, and picks up what is new. Scores that efuda tag has kept are
    used, and the other way round.
    """
    from efuda.collection import Collection
    from efuda.tagging import Tagger, default_folder

    failed: list[Failed] = []
    found = _files(paths, failed)
    tagger = Tagger.open(model, threads=None if 0 < len(found) < FEW else 1)
    if threshold is not None:
        tagger = tagger.with_threshold(threshold)
    kept_in = None if no_scores else scores or default_folder()
    how = Scoring(_FRAMES, False, kept_in, batch, workers, None, embeddings=True)
    with Collection.open(collection, create=True) as opened, output.progress() as progress:
        opened.remember([Path(path) for path in paths if Path(path).is_dir()])
        todo = list(opened.untagged(found, tagger.identity, vectors=tagger.embeds))
        with scored(tagger, model, how) as scoring:
            results = chain.from_iterable(scoring.run(todo))
            done = opened.add(counted(results, len(todo), progress), tagger)
        opened.make_previews(progress=progress)
        opened.build_likeness(progress=progress)
    kept = len(found) - len(todo)
    text = f"{number_of(done.added, 'picture')} added, {done.updated:,} updated"
    text += f", {scoring.reused:,} by scores kept from before" if scoring.reused else ""
    counts = {"found": len(found), "added": done.added, "updated": done.updated, "kept": kept}
    counts["from_kept_scores"] = scoring.reused
    text = f'{summary(text, kept, "unchanged")}\nSearch them: efuda search {collection} "TAG -TAG"'
    finish(counts, text, failed + done.failed, json)


def _files(paths: list[str], failed: list[Failed]) -> list[Path]:
    """The pictures that are files of their own, since a collection holds no others.

    An archive that is named outright is among the failed, one in a folder is said to be left out.
    """
    from efuda.images.archives import archive_of
    from efuda.places import is_remote
    from efuda.tagging import Failed

    if far := next((path for path in paths if is_remote(path)), None):
        raise UsageError(f"A collection holds files of this machine, not {far}: fetch them first.")
    files, archives = list[Path](), dict[Path, None]()
    for path in find(paths, recursive=True, videos=False, skipped=lambda *what: failed.append(Failed(*what))):
        within = archive_of(path) if not path.exists() else None
        if within is None:
            files.append(path)
        else:
            archives[within[0]] = None
    for archive in archives:
        reason = "a collection holds files, not pages of archives: unpack it first"
        if str(archive) in map(os.path.normpath, paths):
            failed.append(Failed(archive, reason))
        else:
            output.say(f"left out {archive}: {reason}")
    return files
