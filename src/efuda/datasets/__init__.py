"""Datasets: posts of any source and their pictures in, a dataset directory out (docs/formats.md).

dataset = prepare(["metadata"], ["512px"], Path("dataset"), load_recipe("reference"))
dataset.funnel          # {"entries": 2963928, "sampled": 740982, "unique_tags": 206412, "kept_tags": 8266, …}
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from efuda.artifacts import Dataset, has_marker
from efuda.datasets.extending import Base, open_base
from efuda.datasets.reading import Entries, read_entries
from efuda.datasets.relations import Relations, find_relations, read_relations
from efuda.datasets.sampling import Sampling
from efuda.datasets.selection import Selection, choose_vocabulary, label_posts, select
from efuda.datasets.sources import Found, find_jobs
from efuda.datasets.writing import finish, inputs_of, source_lines, write_dataset
from efuda.errors import InputError, OutputError
from efuda.files import make_folder, remove_unfinished
from efuda.places import is_remote
from efuda.progress import Progress, silent
from efuda.recipes import Recipe
from efuda.vocabulary import Vocabulary
from efuda.workers import InProcess, LocalWorkers, Workers

__all__ = ["Dataset", "Metadata", "prepare", "read_metadata"]

WORK: Final = ".work"
Place = str | Path


@dataclass(frozen=True)
class Metadata:
    """What the metadata alone says; `posts` are labelled, their pictures not yet looked for.

    Attributes:
        found: the sources, with the names of their formats.
        posts: an Arrow table: id, rating, ext, md5, path, created, held_out, tags.
        counts_before_cut: int64 [unique tags], falling.
        funnel: step → how many were left: entries, bad_lines, sampled, unique_tags, kept_tags, posts.
    """

    found: Sequence[Found]
    entries: Entries
    relations: Relations
    selection: Selection
    vocabulary: Vocabulary
    posts: Any
    counts_before_cut: Any
    funnel: Mapping[str, int]

    @property
    def sources(self) -> Sequence[str]:
        """What was read, in words."""
        return source_lines(self.found)


def prepare(
    metadata: Place | Sequence[Place],
    images: Place | Sequence[Place],
    out: Path,
    recipe: Recipe,
    *,
    extend: Path | None = None,
    overwrite: bool = False,
    workers: Workers | int | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Make a dataset.

    Args:
        metadata: files, folders, patterns or URLs that hold posts; see `datasets.sources` for the formats.
        images: folders of pictures; may be empty where the metadata lies beside its pictures.
        out: the dataset; a finished one made from the same inputs is returned at once.
        recipe: its sections `posts`, `vocabulary`, `images` and `split`.
        extend: an earlier dataset: its metadata and images are read too, its posts keep their split and its tags
            their place in the vocabulary.
        overwrite: make a finished dataset of other inputs anew; pictures that did not change are not decoded again.
        workers: where the work is done: so many processes on this machine, one a core by default, or a cluster.

    Raises:
        MetadataError: no metadata, or too many bad lines.
        InputError: no pictures, or no tag left after the cut.
        OutputError: `out` cannot be written, or holds a dataset of other inputs.
    """
    base = open_base(extend, out) if extend else None
    places = _places(metadata, base.metadata if base else ())
    folders = _places(images, base.images if base else ())
    make_folder(out)
    found, jobs = find_jobs(places)
    relation_files = _relation_files(found, recipe)
    inputs = inputs_of(found, relation_files, folders, base)
    if has_marker(out) and not overwrite:
        return _unchanged(out, inputs, recipe)
    (out / "efuda.json").unlink(missing_ok=True)
    work = make_folder(out / WORK)
    with _at_work(work), _workers(workers) as hands:
        read = _read(found, jobs, relation_files, work, recipe, base, hands, progress)
        remove_unfinished(out)
        made = write_dataset(read, folders, out, recipe, base=base, workers=hands, progress=progress)
    finish(out, inputs, recipe, source_lines(found), places, folders, made, read.vocabulary, base)
    shutil.rmtree(work, ignore_errors=True)
    return Dataset.open(out)


@contextmanager
def read_metadata(
    metadata: Place | Sequence[Place],
    recipe: Recipe,
    *,
    extend: Path | None = None,
    folder: Path | None = None,
    workers: Workers | int | None = None,
    progress: Progress = silent,
) -> Iterator[Metadata]:
    """The metadata stage alone, in a temporary folder: a dry run.

    Args:
        folder: where the temporary folder goes; it takes about a fifth of the size of the metadata.

    Raises:
        MetadataError, InputError: as `prepare`.
    """
    base = open_base(extend, None) if extend else None
    found, jobs = find_jobs(_places(metadata, base.metadata if base else ()))
    with tempfile.TemporaryDirectory(dir=folder, prefix="efuda-") as work, _workers(workers) as hands:
        yield _read(found, jobs, _relation_files(found, recipe), Path(work), recipe, base, hands, progress)


def _read(
    found: Sequence[Found],
    jobs: Any,
    relation_files: Sequence[str],
    work: Path,
    recipe: Recipe,
    base: Base | None,
    workers: Workers,
    progress: Progress,
) -> Metadata:
    relations = read_relations(relation_files)
    relations = Relations(
        relations.aliases if recipe.vocabulary.aliases else {},
        relations.implications if recipe.vocabulary.implications else {},
        relations.categories,
    )
    chunks = make_folder(work / "entries")
    entries = read_entries(
        jobs,
        chunks,
        relations,
        workers=workers,
        max_bad_lines=recipe.posts.max_bad_lines,
        sampling=Sampling(recipe.posts.every, recipe.posts.sample_by, base.ids if base else None),
        progress=progress,
    )
    progress("tags", 0, None, unit="tags")
    selection = select(entries, recipe, relations)
    vocabulary, unique, before = choose_vocabulary(
        entries, selection, recipe, relations, keep=base.vocabulary.tags if base else ()
    )
    posts = label_posts(entries, selection, vocabulary, work / "posts.arrow", times=recipe.split.method == "time")
    progress("tags", len(vocabulary), len(vocabulary), unit="tags")
    if not len(posts):
        raise InputError(f"None of {entries.total:,} entries can be used: see the filters in the recipe's [posts].")
    funnel = {
        "entries": entries.total,
        "bad_lines": entries.bad_count,
        "sampled": entries.sampled,
        "unique_tags": unique,
        "kept_tags": len(vocabulary),
        "posts": len(posts),
    }
    return Metadata(found, entries, relations, selection, vocabulary, posts, before, funnel)


def _relation_files(found: Sequence[Found], recipe: Recipe) -> list[str]:
    beside = find_relations(file for one in found for file in one.files)
    return list(dict.fromkeys([*beside, *recipe.vocabulary.relations]))


def _places(named: Place | Sequence[Place], earlier: Sequence[str]) -> list[str]:
    several = [named] if isinstance(named, (str, Path)) else named
    places = [place if is_remote(place) else os.path.abspath(place) for place in map(str, several)]
    return list(dict.fromkeys([*earlier, *places]))


@contextmanager
def _workers(given: Workers | int | None) -> Iterator[Workers]:
    if given == 1:
        yield InProcess()
    elif given is None or isinstance(given, int):
        with LocalWorkers(given) as own:
            yield own
    else:
        yield given


@contextmanager
def _at_work(work: Path) -> Iterator[None]:
    """Only one process prepares in one place; the lock goes with the process that holds it, however it ends."""
    import fcntl

    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(
                f"{work.parent} is in use: another efuda prepare is at work there. Wait for it, or choose another "
                "--out."
            ) from error
        yield


def _unchanged(out: Path, inputs: Mapping[str, str], recipe: Recipe) -> Dataset:
    dataset = Dataset.open(out)
    if dataset.marker.recipe != recipe.data():
        changed = "with another recipe"
    elif dict(dataset.marker.inputs) != dict(inputs):
        changed = "from other metadata or images"
    else:
        return dataset
    raise OutputError(
        f"{out} is a finished dataset, made {changed}. Choose another --out, or make it anew with --overwrite"
    )
