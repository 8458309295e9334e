"""Tag pictures: which tags, how they are spelled, and where they go.

Options that kohya's `tag_images_by_wd14_tagger.py` has bear its names, and may be written with underscores as there.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from efuda.cli.console import output
from efuda.cli.outcomes import complain, finish, number_of, shown, summary
from efuda.cli.scoring import FEW, Scoring, scored
from efuda.cli.sources import names, watched
from efuda.errors import UsageError

if TYPE_CHECKING:
    from efuda.tagging import Failed, Sink

__all__ = ["register"]

_WHERE, _WHICH, _HOW = "Where tags go", "Which tags", "How tags are written"
_LOOK, _HANDS = "How pictures are looked at", "Speed"
_STREAMS = ("jsonl", "csv")
_ONE_FILE = (*_STREAMS, "parquet", "kohya")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(context_settings={"token_normalize_func": _hyphens})(tag)


def _hyphens(option: str) -> str:
    """kohya's options have underscores, ours hyphens: both are understood."""
    return option.replace("_", "-")


def _option(panel: str, *names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=more.pop("show_default", False), **more)


def tag(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, folders, .zip and .cbz archives, URLs such as s3://bucket/art; - reads paths from standard "
            "input, one a line or with NUL between them.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A model directory of any known layout, hf://OWNER/NAME, or a name of efuda models."
        ),
    ],
    to: Annotated[
        str | None,
        _option(
            _WHERE,
            "--to",
            help="txt (the default), json, xmp or hydrus: a file beside each picture. embed: into its own file. "
            "jsonl, csv, parquet or kohya: one file for all.",
        ),
    ] = None,
    out: Annotated[
        Path | None, _option(_WHERE, "--out", help="That one file; for jsonl and csv standard output by default.")
    ] = None,
    output_path: Annotated[
        Path | None,
        _option(_WHERE, "--output-path", help="Captions in one .json or .jsonl of kohya's form: --to kohya --out."),
    ] = None,
    embed: Annotated[
        bool,
        _option(_WHERE, "--embed", help="Write XMP into jpg, png and webp files; pixels stay, file hashes change."),
    ] = False,
    keep_mtime: Annotated[
        bool, _option(_WHERE, "--keep-mtime", help="With --embed: the file's time of change stays.")
    ] = False,
    skip_existing: Annotated[
        bool, _option(_WHERE, "--skip-existing", help="Leave alone what has tags already. The default.")
    ] = False,
    merge: Annotated[
        bool,
        _option(
            _WHERE,
            "--merge",
            "--append-tags",
            help="Add what is missing behind the tags that are there.",
        ),
    ] = False,
    replace: Annotated[
        bool, _option(_WHERE, "--replace", help="Write anew what exists; old files are kept as .bak.")
    ] = False,
    caption_extension: Annotated[
        str,
        _option(_WHERE, "--caption-extension", "--caption-extention", help="Of txt files.", show_default=True),
    ] = ".txt",
    caption_separator: Annotated[
        str, _option(_WHERE, "--caption-separator", help='Between the tags of a caption; ", " by default.')
    ] = ", ",
    threshold: Annotated[
        float | None,
        _option(
            _WHICH,
            "--threshold",
            "--thresh",
            min=0,
            max=1,
            help="For all tags, instead of the model's own thresholds.",
        ),
    ] = None,
    general_threshold: Annotated[
        float | None,
        _option(_WHICH, "--general-threshold", min=0, help="For general tags; above 1, none is said."),
    ] = None,
    character_threshold: Annotated[
        float | None, _option(_WHICH, "--character-threshold", min=0, help="For characters.")
    ] = None,
    copyright_threshold: Annotated[
        float | None, _option(_WHICH, "--copyright-threshold", min=0, help="For series, where the model knows them.")
    ] = None,
    artist_threshold: Annotated[
        float | None, _option(_WHICH, "--artist-threshold", min=0, help="For artists, where the model knows them.")
    ] = None,
    meta_threshold: Annotated[
        float | None, _option(_WHICH, "--meta-threshold", min=0, help="For meta tags, where the model knows them.")
    ] = None,
    policy: Annotated[
        str | None,
        _option(
            _WHICH,
            "--policy",
            help="Thresholds by name, for example precision>=0.95, p=r, per-category, fixed=0.4 or mcut.",
        ),
    ] = None,
    top: Annotated[
        int | None, _option(_WHICH, "--top", min=1, help="So many of the best tags, whatever the thresholds.")
    ] = None,
    max_tags: Annotated[
        int | None, _option(_WHICH, "--max-tags", min=1, help="Of the tags at their thresholds, the best so many.")
    ] = None,
    undesired_tags: Annotated[
        str, _option(_WHICH, "--undesired-tags", help='Never said, for example "solo,blue hair".')
    ] = "",
    implications: Annotated[
        str,
        _option(
            _WHICH,
            "--implications",
            help="closed adds what tags imply, reduced takes away what others imply, as-is does neither.",
            show_default=True,
        ),
    ] = "as-is",
    implications_file: Annotated[
        Path | None,
        _option(
            _WHICH,
            "--implications-file",
            help="Danbooru's tag_implications, or lines antecedent,consequent; the model's own by default.",
        ),
    ] = None,
    exclusive: Annotated[
        str | None,
        _option(
            _WHICH,
            "--exclusive",
            help="One eye colour, hair colour … a person: danbooru for the groups that come along, or a TOML file.",
        ),
    ] = None,
    probabilities: Annotated[
        bool,
        _option(
            _WHICH,
            "--probabilities",
            help="Scores are calibrated probabilities, where efuda calibrate has left them; thresholds stay on scores.",
        ),
    ] = False,
    remove_underscore: Annotated[
        bool, _option(_HOW, "--remove-underscore", help="Spaces for underscores, except in faces such as ^_^.")
    ] = False,
    character_tag_expand: Annotated[
        bool, _option(_HOW, "--character-tag-expand", help="A character's name_(series) becomes name, series.")
    ] = False,
    character_tags_first: Annotated[
        bool, _option(_HOW, "--character-tags-first", help="Characters before all other tags.")
    ] = False,
    always_first_tags: Annotated[
        str,
        _option(
            _HOW,
            "--always-first-tags",
            help='Moved to the front where they are said, the last named foremost: "1girl,1boy".',
        ),
    ] = "",
    tag_replacement: Annotated[
        str,
        _option(
            _HOW,
            "--tag-replacement",
            help=r'Other words for tags: "source,target;source,target", with \, and \; for a comma and a semicolon.',
        ),
    ] = "",
    use_rating_tags: Annotated[bool, _option(_HOW, "--use-rating-tags", help="The rating as the first tag.")] = False,
    use_rating_tags_as_last_tag: Annotated[
        bool, _option(_HOW, "--use-rating-tags-as-last-tag", help="The rating as the last tag.")
    ] = False,
    use_quality_tags: Annotated[
        bool, _option(_HOW, "--use-quality-tags", help="The quality as the first tag, where the model knows it.")
    ] = False,
    use_quality_tags_as_last_tag: Annotated[
        bool, _option(_HOW, "--use-quality-tags-as-last-tag", help="The quality as the last tag.")
    ] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive/--no-recursive", help="Whether folders are searched to any depth.")
    ] = True,
    videos: Annotated[
        bool, _option(_LOOK, "--videos", help="Tag videos that folders hold, too; those named outright always are.")
    ] = False,
    frames: Annotated[
        int,
        _option(
            _LOOK,
            "--frames",
            min=1,
            help="Of an animation or a video so many frames are looked at; a tag has the highest of their scores.",
            show_default=True,
        ),
    ] = 5,
    reduced_decode: Annotated[
        bool,
        _option(
            _LOOK,
            "--reduced-decode/--full-decode",
            help="Decode large JPEGs at a fraction of their size: faster, but scores move by hundredths.",
        ),
    ] = False,
    watch: Annotated[
        bool, _option(_LOOK, "--watch", help="Go on with new and changed pictures as they come, until Ctrl-C.")
    ] = False,
    scores: Annotated[
        Path | None,
        _option(
            _LOOK, "--scores", help="Where scores are kept, so that a picture is looked at once; the cache by default."
        ),
    ] = None,
    no_scores: Annotated[bool, _option(_LOOK, "--no-scores", help="Neither keep scores nor use kept ones.")] = False,
    batch: Annotated[
        int | None,
        _option(
            _HANDS, "--batch", "--batch-size", min=1, help="Pictures the model sees at once; 4 by default, 16 on a GPU."
        ),
    ] = None,
    workers: Annotated[
        int | None, _option(_HANDS, "--workers", min=1, help="Decoding processes; one a core by default.")
    ] = None,
    ray: Annotated[
        str | None,
        _option(_HANDS, "--ray", help="Tag on a Ray cluster: host:port, ray://host:port or auto. Needs the extra ray."),
    ] = None,
    frequency_tags: Annotated[
        bool, typer.Option("--frequency-tags", help="Say at the end how many pictures got each tag.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many pictures would be tagged.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Tag pictures: captions for training tools, sidecars for picture programs, or one file of results.

    A picture that cannot be read or written beside is reported and skipped. What has tags already is left alone and a
    file of results is continued, so the same command goes on where it was stopped. docs/tagging.md has examples.
    """
    from efuda.tagging import Chooser, Failed, Rules, Style, Tagger, default_folder, open_sink, write_batches
    from efuda.tagging.wording import split_replacements, split_tags

    kind, out = _destination(to, out, output_path, embed)
    if json and out is None and kind in _STREAMS:
        raise UsageError(f"--json and --to {kind} would both print to standard output: name a file with --out.")
    rules = Rules(
        threshold=threshold,
        category_thresholds=_by_category(
            general=general_threshold,
            character=character_threshold,
            copyright=copyright_threshold,
            artist=artist_threshold,
            meta=meta_threshold,
        ),
        policy=policy,
        top=top,
        max_tags=max_tags,
        undesired=split_tags(undesired_tags, caption_separator),
        replacements=split_replacements(tag_replacement),
        remove_underscore=remove_underscore,
        character_tag_expand=character_tag_expand,
        character_tags_first=character_tags_first,
        always_first=split_tags(always_first_tags, caption_separator),
        rating_tag=_place(use_rating_tags, use_rating_tags_as_last_tag),
        quality_tag=_place(use_quality_tags, use_quality_tags_as_last_tag),
        implications=implications,
        implications_file=implications_file,
        exclusive=exclusive,
        probabilities=probabilities,
    )
    style = Style(caption_separator, _dotted(caption_extension), keep_mtime)
    existing = _existing(skip_existing, merge, replace)
    if watch and dry_run:
        raise UsageError("--watch and --dry-run do not go together: what will come cannot be counted.")
    failed: list[Failed] = []
    left_out = lambda path, reason: failed.append(Failed(path, reason))  # noqa: E731
    found = [] if watch else list(names(paths, recursive=recursive, videos=videos, skipped=left_out))
    _check_places(found, kind)
    tagger = Tagger.open(model, threads=None if 0 < len(found) < FEW else 1)
    chooser = Chooser(tagger, rules)
    how = Scoring(frames, reduced_decode, None if no_scores else scores or default_folder(), batch, workers, ray)
    said: Counter[str] = Counter()
    tagged = 0
    with open_sink(kind, tagger.name, out=out, existing=existing, style=style) as sink:
        todo = [path for path in found if sink.wants(path)]
        if watch:
            coming = _noted(watched(paths, recursive=recursive, videos=videos), sink, found, todo)
        if not dry_run:
            gc.set_threshold(
                500_000
            )  # objects by the million, none in a circle: looking for circles took half the time
            with output.progress() as progress, scored(tagger, model, how) as scoring, _until_stopped(watch):
                results = write_batches(scoring.run(coming if watch else todo), chooser, sink)
                for chosen, lost in shown(results, None if watch else len(todo), progress):
                    tagged += len(chosen)
                    failed += lost
                    for one in lost if watch else ():
                        complain(one)
                    if frequency_tags:
                        said.update(name for one in chosen for name, _, _ in one.tags)
    kept = len(found) - len(todo)
    facts: dict[str, Any] = {"found": len(found), "tagged": tagged, "to_tag": len(todo), "kept": kept}
    facts["from_kept_scores"] = scoring.reused if not dry_run else 0
    text = f"{number_of(len(todo), 'picture')} would be tagged" if dry_run else f"{number_of(tagged, 'picture')} tagged"
    text += f", {scoring.reused:,} by scores kept from before" if not dry_run and scoring.reused else ""
    text = summary(text, kept, "had one already")
    if frequency_tags:
        facts["frequencies"] = dict(said.most_common())
        text += "".join(f"\n{count:>9,}  {name}" for name, count in said.most_common())
    if not found:
        text = "No pictures were found" + (f", and {out} was not written." if out and not dry_run else ".")
    finish(facts, text, failed, json, quiet=out is None and kind in _STREAMS, named=watch)


def _destination(to: str | None, out: Path | None, output_path: Path | None, embed: bool) -> tuple[str, Path | None]:
    """The kind of sink, and its file; `--embed` and `--output-path` are other words for a `--to`."""
    kinds = {to or "", "embed" if embed else "", "kohya" if output_path else ""} - {""}
    if embed and to == "xmp":
        kinds = {"embed"}
    if len(kinds) > 1 or (output_path and out):
        raise UsageError("--to, --embed and --output-path each say where tags go: give one of them.")
    return (kinds or {"txt"}).pop(), output_path or out


def _existing(skip: bool, merge: bool, replace: bool) -> str:
    if skip + merge + replace > 1:
        raise UsageError("--skip-existing, --merge and --replace exclude each other: give one of them.")
    return "merge" if merge else "replace" if replace else "skip"


def _place(first: bool, last: bool) -> Any:
    return "last" if last else "first" if first else None


def _dotted(extension: str) -> str:
    return extension if extension.startswith(".") else f".{extension}"


def _by_category(**thresholds: float | None) -> dict[Any, float]:
    from efuda.vocabulary import Category

    return {Category[name.upper()]: value for name, value in thresholds.items() if value is not None}


def _check_places(found: Iterable[Path | str], kind: str) -> None:
    from efuda.places import is_remote

    if kind not in _ONE_FILE and (far := next((path for path in found if is_remote(str(path))), None)):
        raise UsageError(f"Nothing can be written beside {far}: choose --to jsonl, csv or parquet, and --out.")


def _noted(
    coming: Iterable[Path | None], sink: Sink, found: list[str | Path], todo: list[str | Path]
) -> Iterator[Path | None]:
    """What comes and is wanted; `found` and `todo` grow by it, for the counts at the end."""
    for path in coming:
        if path is not None:
            found.append(path)
            if not sink.wants(path):
                continue
            todo.append(path)
        yield path


@contextmanager
def _until_stopped(watch: bool) -> Iterator[None]:
    """Ctrl-C is how watching ends, not an interruption."""
    try:
        yield
    except KeyboardInterrupt:
        if not watch:
            raise
