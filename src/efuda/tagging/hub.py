"""Find a model by what a person calls it: a path, `hf://OWNER/NAME[@REVISION][/FOLDER]`, or a name of `KNOWN`.

    locate("hf://SmilingWolf/wd-vit-tagger-v3")       # → the directory in Hugging Face's own cache, fetched if need be
    locate("wd-vit-tagger-v3")                        # → the same
    locate(Path("models/mine"))                       # → itself

Only the files that the layout needs are fetched, all of one commit. With HF_HUB_OFFLINE=1, with a revision that is a
commit, or where the hub cannot be reached, what was fetched before is used. HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Final

from efuda.artifacts import CALIBRATED, CALIBRATION, MARKER, OTHER_HEAD, THRESHOLDS
from efuda.errors import ArtifactError, UsageError
from efuda.progress import Progress
from efuda.tagging.downloads import Damaged, fetch_large
from efuda.tagging.known import KNOWN
from efuda.tagging.layouts import choose_weights, recognise
from efuda.tagging.network import what_it_is_instead

__all__ = ["HubModel", "locate", "name_of", "parse"]

_OURS: Final = ("model.onnx", "selected_tags.csv", "other_tags.csv", OTHER_HEAD, THRESHOLDS, CALIBRATION, CALIBRATED)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SOURCE: Final = re.compile(
    r"hf:/{1,2}(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@\s]+))?(/(?P<folder>[^@\s]+?))?/?"
)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on the hub; `folder` within the repository, "" for the top."""

    repository: str
    revision: str = "main"
    folder: str = ""

    def __str__(self) -> str:
        at = "" if self.revision == "main" else "@" + self.revision.replace("/", "%2F")
        return f"hf://{self.repository}{at}" + (f"/{self.folder}" if self.folder else "")


def locate(source: Path | str, *, progress: Progress | None = None) -> Path:
    """The local place of a model, which is fetched if it lies on the hub.

    Raises:
        UsageError: it is written like a hub's address, but is none.
        ArtifactError: it cannot be fetched, saying why and what to do; or it is nearly a name of the list.
    """
    model = parse(source)
    if model is not None:
        return _fetch(model, progress)
    if near := _meant(source):
        raise ArtifactError(f"{source} does not exist; did you mean {near}? efuda models lists all names.")
    return Path(source)


def parse(source: Path | str) -> HubModel | None:
    """The model on the hub that is meant, or None for a local path."""
    text = source if isinstance(source, str) else source.as_posix()
    if not text.startswith("hf:/"):
        known = {name: one for one in KNOWN for name in (one.name, one.path, one.repository)}
        if Path(source).exists() or text not in known:
            return None
        if not known[text].on_hub:
            raise ArtifactError(
                f"{text} is not published in a layout that can be fetched: convert its weights to ONNX beside its tag "
                "list, and name that directory (docs/models.md)."
            )
        return HubModel(known[text].repository, folder=known[text].folder)
    match = _SOURCE.fullmatch(text)
    if match is None or ".." in text:
        raise UsageError(
            f"{text} is not an address on the hub: write hf://OWNER/NAME, hf://OWNER/NAME@REVISION/FOLDER."
        )
    revision = (match["revision"] or "main").replace("%2F", "/")
    return HubModel(match["repository"], revision, match["folder"] or "")


def _meant(source: Path | str) -> str | None:
    """The name of the list that a place which does not exist resembles."""
    if Path(source).exists():
        return None
    names = {name.casefold(): name for one in KNOWN for name in (one.name, one.path)}
    near = difflib.get_close_matches(str(source).casefold(), names, n=1, cutoff=0.85)
    return names[near[0]] if near else None


def name_of(root: Path) -> str:
    """The directory's name; of one in the hub's cache, that of the repository or of the folder within it."""
    parts = root.resolve().parts
    for place, part in enumerate(parts[:-2]):
        if part.startswith("models--") and parts[place + 1] == "snapshots":
            return parts[-1] if len(parts) > place + 3 else part.split("--")[-1]
    return parts[-1] if parts else str(root)


def _fetch(model: HubModel, progress: Progress | None) -> Path:
    hub = _hub()
    offline = hub.constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if (offline or _COMMIT.fullmatch(model.revision)) and (kept := _kept(hub, model)):
        return kept
    if offline:
        raise ArtifactError(
            f"{model} is not in the cache ({hub.constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE keeps efuda from fetching "
            "it. Unset it and run again."
        )
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    try:
        about = hub.HfApi(endpoint=endpoint).model_info(model.repository, revision=model.revision, timeout=20)
    except Exception as error:  # the hub's, the HTTP library's and the system's, with no common base
        if _unreachable(hub, error) and (kept := _kept(hub, model)):
            return kept
        raise _why(hub, model, error) from error
    root = _download(hub, model, about, endpoint, progress)
    return root / model.folder if model.folder else root


def _download(hub: Any, model: HubModel, about: Any, endpoint: str | None, progress: Progress | None) -> Path:
    names = [str(file.rfilename) for file in about.siblings or ()]
    wanted = _needed(model, names)
    local = Path()
    commit = about.sha or model.revision
    blobs = _cache(hub, model) / "blobs"
    for name in wanted:
        if (kept := _cache(hub, model) / "snapshots" / commit / name).is_file():
            local = kept
            continue
        try:
            url = hub.hf_hub_url(model.repository, name, revision=commit, endpoint=endpoint)
            with _telling(hub, name, progress) as tell:
                fetch_large(hub, blobs, url, endpoint, tell)
            local = Path(
                hub.hf_hub_download(model.repository, name, revision=commit, endpoint=endpoint, tqdm_class=_silent(hub))
            )
            if progress is not None:
                progress("fetch", local.stat().st_size, local.stat().st_size, unit="bytes", note=name)
        except Exception as error:
            raise _why(hub, model, error, name) from error
        if instead := what_it_is_instead(local):
            local.resolve().unlink(missing_ok=True)  # so that the next try fetches it anew
            local.unlink(missing_ok=True)
            raise ArtifactError(
                f"{model}: {name} came, but {instead}. Open {endpoint or 'https://huggingface.co'}/{model.repository} "
                "in a browser to see what stands in the way, then run again."
            )
    root = local
    for _ in PurePosixPath(wanted[-1]).parts:
        root = root.parent
    _remember(hub, model, root)
    return root


def _needed(model: HubModel, names: Collection[str]) -> list[str]:
    """The files to fetch, the weights last, so that a cache that has them has everything."""
    inside = f"{model.folder}/" if model.folder else ""
    here = [name.removeprefix(inside) for name in names if name.startswith(inside)]
    top = [name for name in here if "/" not in name]
    if MARKER in top:
        return [inside + name for name in (MARKER, *_OURS[1:], _OURS[0]) if name in top]
    folders = sorted({name.split("/")[0] for name in here if name.endswith((".onnx", ".safetensors")) and "/" in name})
    if folders and not any(name.endswith((".onnx", ".safetensors")) for name in top):
        listed = ", ".join(folders[:5])
        raise ArtifactError(f"{model} holds models in folders: {listed}. Name one, as {model!s}/{folders[-1]}")
    family = recognise(top, str(model))
    weights = choose_weights(family, top, str(model))
    patterns = (family.tag_list, *family.also)
    also = [name for name in top if any(fnmatch(name, pattern) for pattern in patterns)]
    data = [weights + suffix for suffix in (".data", "_data") if weights + suffix in top]
    return [inside + name for name in (*also, *data, weights)]


def _kept(hub: Any, model: HubModel) -> Path | None:
    """The directory in the cache, if it holds all that the model needs."""
    cache = _cache(hub, model)
    commit = model.revision
    if not _COMMIT.fullmatch(commit):
        reference = cache / "refs" / commit
        if not reference.is_file():
            return None
        commit = reference.read_text(encoding="utf-8").strip()
    root = cache / "snapshots" / commit / model.folder
    if not root.is_dir():
        return None
    names = [path.name for path in root.iterdir() if path.is_file()]
    if MARKER in names:
        return root if "model.onnx" in names else None
    try:
        choose_weights(recognise(names, str(root)), names, str(root))
    except ArtifactError:
        return None  # a download that was stopped
    return root


def _cache(hub: Any, model: HubModel) -> Path:
    return Path(hub.constants.HF_HUB_CACHE) / f"models--{model.repository.replace('/', '--')}"


def _remember(hub: Any, model: HubModel, root: Path) -> None:
    """Note which commit the revision was, as huggingface-hub does, so that it is found without the hub."""
    if not _COMMIT.fullmatch(model.revision):
        reference = root.parent.parent / "refs" / model.revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        if not reference.is_file() or reference.read_text(encoding="utf-8") != root.name:
            reference.write_text(root.name, encoding="utf-8")


@contextmanager
def _telling(hub: Any, name: str, progress: Progress | None) -> Iterator[Callable[[int, int], None]]:
    """Tell how far a large file is: `progress`, else a bar where a person looks on."""
    bars: list[Any] = []

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress("fetch", done, total, unit="bytes", note=name)
        elif sys.stderr.isatty():
            if not bars:
                bars.append(hub.utils.tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=name))
            bars[0].update(done - bars[0].n)

    try:
        yield tell
    finally:
        for bar in bars:
            bar.close()


def _silent(hub: Any) -> type:
    """A progress bar for small files: none."""

    class Silent(hub.utils.tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

    return Silent


def _unreachable(hub: Any, error: Exception) -> bool:
    """Whether there is no hub to speak of, or one in trouble, so that an older copy is better than none."""
    response = getattr(error, "response", None)
    return response is None or response.status_code >= 500 or response.status_code == 429


def _why(hub: Any, model: HubModel, error: Exception, name: str = "") -> ArtifactError:
    """One sentence for what went wrong: what, where, and what to do next."""
    errors, what = hub.errors, f"{model}: {name}" if name else str(model)
    page = f"{os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'}/{model.repository}"
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
    cause = _first(error)
    if isinstance(error, errors.GatedRepoError):
        return ArtifactError(
            f"{what} is gated: accept its terms at {page}, log in with hf auth login (or set HF_TOKEN), and run again."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ArtifactError(f"{what}: the repository has no revision {model.revision}; its revisions are at {page}.")
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return ArtifactError(
            f"{what} is not on the hub, or not for everyone: check the name at {page}; for a private one, log in with "
            "hf auth login (or set HF_TOKEN)."
        )
    if isinstance(error, errors.EntryNotFoundError) and status == 404:
        return ArtifactError(f"{what} is not on the hub any more; see {page}.")
    if status == 429:
        return ArtifactError(f"{what}: the hub asks to wait, too much was fetched. Run again in some minutes.")
    if status is not None and status >= 400:
        return ArtifactError(f"{what}: the hub answered with status {status}. Run again later; see {page}.")
    if isinstance(error, (ValueError, KeyError, TypeError)) and not isinstance(error, OSError):
        return ArtifactError(
            f"{what}: the answer is not that of a hub ({cause}). Check HF_ENDPOINT, and whether a proxy or a login "
            "page answers in its place."
        )
    if isinstance(error, Damaged) or "Consistency check failed" in str(error):
        return ArtifactError(f"{what} came damaged ({cause}). Run the same command again.")
    return ArtifactError(
        f"{what} cannot be fetched ({cause}). Check the connection and the free disk space, and run the same command "
        "again: it goes on where it stopped."
    )


def _first(error: BaseException) -> str:
    """The first line of the error that began it."""
    begun = error
    while begun.__cause__ is not None:
        begun = begun.__cause__
    return (str(begun).splitlines() or [""])[0][:200] or type(begun).__name__


def _hub() -> Any:
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors
    import huggingface_hub.utils

    return huggingface_hub
