"""Models from a hub, against a small real one on 127.0.0.1 with Hugging Face's URLs: fetching, offline, and failing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from layout_world import LAYOUTS

from efuda.errors import ArtifactError, UsageError
from efuda.tagging import Tagger, downloads
from efuda.tagging.hub import HubModel, locate, name_of, parse
from efuda.tagging.known import KNOWN
from efuda.tagging.layouts import FAMILIES

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `files`, and misbehaves as `trouble` says.

    Attributes:
        files: "owner/name" → {path: content}.
        trouble: "file" or "api" → what to answer instead: a status, "html", or "cut" (half, then hang up).
        asked: every (method, path, Range).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.trouble: dict[str, Any] = {}
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloads(self) -> list[str]:
        return [path for method, path, _ in self.asked if method == "GET" and "/resolve/" in path]


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        self._answer(head=False)

    def _answer(self, *, head: bool) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))
        if self.path.startswith("/api/models/"):
            self._about(self.path.removeprefix("/api/models/").split("?")[0])
        else:
            owner, name, _, _, *rest = self.path.lstrip("/").split("/")
            self._file(f"{owner}/{name}", "/".join(rest), head)

    def _about(self, path: str) -> None:
        repository, _, revision = path.partition("/revision/")
        trouble = self.server.trouble.get("api")
        if trouble == "html":
            return self._send(200, b"<html>Sign in</html>", {"Content-Type": "text/html"})
        if trouble is not None:
            return self._trouble(trouble)
        if repository not in self.server.files:
            return self._send(401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if revision not in ("", "main", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": name} for name in self.server.files[repository]]
        about = {"_id": "1", "id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": []}
        about |= {"private": False, "downloads": 0, "likes": 0}
        return self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: str, name: str, head: bool) -> None:
        content = self.server.files[repository][name]
        trouble = self.server.trouble.get("file") if name.endswith((".onnx", ".data")) else None
        if trouble == "html":
            content = b"<!DOCTYPE html><html>Sign in</html>"
        elif trouble not in (None, "cut"):
            return self._trouble(trouble)
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        body = content[begin:]
        if trouble == "cut" and not head and not begin:
            self.server.trouble.pop("file")
            return self._send(200, body[: len(body) // 2], headers, length=len(body))
        return self._send(206 if begin else 200, body, headers, length=len(body))

    def _trouble(self, trouble: Any) -> None:
        status, code = trouble if isinstance(trouble, tuple) else (trouble, None)
        self._send(status, b"{}", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if length is not None and self.command == "GET" and length != len(body):
            self.close_connection = True


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub with one model of each layout, and an empty cache."""
    import huggingface_hub.constants as constants

    server = Hub()
    for family, make in LAYOUTS.items():
        root = tmp_path / "made" / family
        root.mkdir(parents=True)
        make(root)
        files = {path.name: path.read_bytes() for path in root.iterdir()}
        server.files[f"made/{family}"] = {"README.md": b"# a card", ".gitattributes": b"", "sample.webp": b"x", **files}
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # Waiting and trying again is huggingface-hub's; here it may not take a test's time.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()


# What a person may write


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("hf://a/b", HubModel("a/b")),
        ("hf:/a/b", HubModel("a/b")),  # what pathlib makes of it
        ("hf://a/b/", HubModel("a/b")),
        ("hf://a/b.c-d@v1.0", HubModel("a/b.c-d", "v1.0")),
        ("hf://a/b@refs%2Fpr%2F1/c/d", HubModel("a/b", "refs/pr/1", "c/d")),
        ("hf://cella110n/cl_tagger/cl_tagger_1_02", HubModel("cella110n/cl_tagger", folder="cl_tagger_1_02")),
        ("wd-vit-tagger-v3", HubModel("SmilingWolf/wd-vit-tagger-v3")),
        ("SmilingWolf/wd-vit-tagger-v3", HubModel("SmilingWolf/wd-vit-tagger-v3")),
        ("cl_tagger_1_02", HubModel("cella110n/cl_tagger", folder="cl_tagger_1_02")),
        ("some/directory", None),
    ],
)
def test_addresses(text: str, model: HubModel | None) -> None:
    assert parse(text) == model
    assert parse(Path(text)) == model
    if model is not None:
        assert parse(str(model)) == model


def test_a_directory_of_a_known_name_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wd-vit-tagger-v3").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("wd-vit-tagger-v3") == Path("wd-vit-tagger-v3")


@pytest.mark.parametrize("text", ["hf://", "hf://a", "hf://a/b c", "hf://a/b@", "hf://a/../b", "hf://a/b/../../c"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address on the hub: write hf://OWNER/NAME"):
        parse(text)


def test_the_known_ones_are_of_families_that_efuda_reads() -> None:
    assert {one.family for one in KNOWN} == {family.name for family in FAMILIES}
    assert len({one.name for one in KNOWN}) == len(KNOWN)
    with pytest.raises(ArtifactError, match=r"DeepDanbooru is not published in a layout.*convert its weights to ONNX"):
        parse("DeepDanbooru")


# Fetching


@pytest.mark.parametrize("family", LAYOUTS)
def test_every_layout_is_fetched_with_what_it_needs_and_no_more(family: str, hub: Hub) -> None:
    tagger = Tagger.open(f"hf://made/{family}", threads=1)
    assert (tagger.layout, tagger.name) == (family, family)
    assert tagger.identity.startswith(f"{family}@")
    fetched = {path.split(f"/resolve/{COMMIT}/")[1] for path in hub.downloads()}
    assert not fetched & {"README.md", ".gitattributes", "sample.webp", "model_metadata.json"}
    if family == "cl_tagger":
        assert fetched == {"model_optimized.onnx", "tag_mapping.json"}
    if family == "cl_tagger_v2":
        assert fetched == {"model.onnx", "model.onnx.data", "model_vocabulary.json"}


def test_a_second_time_nothing_is_fetched_and_offline_nothing_is_asked(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = locate("hf://made/wd")
    assert first.parts[-4:] == ("cache", "models--made--wd", "snapshots", COMMIT), "where everybody's downloads lie"
    before = len(hub.downloads())
    assert locate("hf://made/wd") == first
    assert len(hub.downloads()) == before
    hub.asked.clear()
    assert locate(f"hf://made/wd@{COMMIT}") == first, "a commit does not change: there is nothing to ask"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert locate("hf://made/wd") == first
    assert hub.asked == []
    with pytest.raises(
        ArtifactError, match=r"hf://made/joytag is not in the cache \(.*HF_HUB_OFFLINE keeps efuda from"
    ):
        locate("hf://made/joytag")


@pytest.mark.parametrize("trouble", [503, 429])
def test_a_hub_in_trouble_does_not_matter_once_it_is_here(trouble: int, hub: Hub) -> None:
    first = locate("hf://made/wd")
    hub.trouble["api"] = trouble
    assert locate("hf://made/wd") == first


def test_what_was_fetched_by_others_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    for name in ("model.onnx", "selected_tags.csv"):
        huggingface_hub.hf_hub_download("made/wd", name, endpoint=hub.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert Tagger.open("hf://made/wd", threads=1).layout == "wd"


def test_a_folder_within_a_repository(hub: Hub) -> None:
    files = hub.files["made/cl_tagger"]
    hub.files["made/all"] = {f"{version}/{name}": files[name] for version in ("v1_01", "v1_02") for name in files}
    with pytest.raises(
        ArtifactError, match=r"holds models in folders: v1_01, v1_02\. Name one, as hf://made/all/v1_02"
    ):
        locate("hf://made/all")
    tagger = Tagger.open("hf://made/all/v1_02", threads=1)
    assert (tagger.layout, tagger.name) == ("cl_tagger", "v1_02")
    assert all("v1_02" in path for path in hub.downloads())


def test_progress_is_told_in_bytes(hub: Hub) -> None:
    told: list[tuple[int, int | None, str]] = []

    def progress(step: str, done: int, total: int | None = None, *, unit: str = "", note: str = "") -> None:
        assert (step, unit) == ("fetch", "bytes")
        told.append((done, total, note))

    locate("hf://made/joytag", progress=progress)
    size = len(hub.files["made/joytag"]["model.onnx"])
    assert (size, size, "model.onnx") in told


def test_a_download_that_breaks_off_goes_on_where_it_was(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 61)  # it is 10 MB; a part of one is lost
    hub.trouble["file"] = "cut"
    root = locate("hf://made/joytag")
    assert (root / "model.onnx").read_bytes() == hub.files["made/joytag"]["model.onnx"]
    (second,) = [ranged for method, path, ranged in hub.asked if path.endswith("model.onnx") and ranged]
    half = len(hub.files["made/joytag"]["model.onnx"]) // 2
    assert second == f"bytes={half - half % 61}-"


def test_a_large_download_goes_on_in_a_later_run(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut in the first run, as a kill does; the second asks for the rest only."""
    monkeypatch.setattr(downloads, "LARGE", 1)
    content = os.urandom(5_000_000)
    hub.files["made/joytag"]["model.onnx"] = content

    def stop(step: str, done: int, total: int | None = None, *, unit: str = "", note: str = "") -> None:
        if note == "model.onnx" and done >= 2_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locate("hf://made/joytag", progress=stop)
    hub.asked.clear()
    root = locate("hf://made/joytag")
    assert (root / "model.onnx").read_bytes() == content
    (ranged,) = [ranged for method, path, ranged in hub.asked if method == "GET" and path.endswith("model.onnx")]
    assert ranged is not None and 2_000_000 <= int(ranged.removeprefix("bytes=").rstrip("-")) < 5_000_000
    assert [path.name for path in (root.parent.parent / "blobs").iterdir() if "efuda" in path.name] == []
    assert (root / "model.onnx").resolve().name == hashlib.sha256(content).hexdigest(), (
        "the very blob of the hub's client"
    )


def test_a_large_download_whose_connection_breaks_off_goes_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "LARGE", 1)
    hub.trouble["file"] = "cut"
    assert Tagger.open("hf://made/joytag", threads=1).layout == "joytag"


def test_a_large_download_that_is_damaged_begins_anew(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "LARGE", 1)
    content = hub.files["made/joytag"]["model.onnx"]
    part = tmp_path / "cache" / "models--made--joytag" / "blobs"
    part.mkdir(parents=True)
    (part / f"{hashlib.sha256(content).hexdigest()}.efuda.incomplete").write_bytes(b"of another file")
    with pytest.raises(
        ArtifactError, match=r"model\.onnx came damaged \(its SHA-256 is .*\)\. Run the same command again"
    ):
        locate("hf://made/joytag")
    assert Tagger.open("hf://made/joytag", threads=1).layout == "joytag"


def test_the_command_line_in_a_process_of_its_own(hub: Hub, tmp_path: Path) -> None:
    """With the variables as people set them, which huggingface-hub reads when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "efuda", "models", "hf://made/camie", "--json"]
    for offline in ("0", "1"):
        environment["HF_HUB_OFFLINE"] = offline
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        (about,) = json.loads(done.stdout)
        assert (about["path"], about["layout"], about["tags"]) == ("hf://made/camie", "camie", 6)
    missing = subprocess.run(
        [*command[:-2], "hf://made/wd"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert missing.returncode == 3 and missing.stderr.startswith("efuda: hf://made/wd is not in the cache")


# Failing, in one sentence


@pytest.mark.parametrize(
    ("source", "where", "trouble", "why"),
    [
        (
            "hf://made/absent",
            "api",
            None,
            r"made/absent is not on the hub, or not for everyone: check the name at http",
        ),
        ("hf://made/wd@v9", "api", None, r"the repository has no revision v9; its revisions are at http"),
        ("hf://made/wd", "api", (403, "GatedRepo"), r"hf://made/wd is gated: accept its terms at http.*hf auth login"),
        ("hf://made/wd", "file", (403, "GatedRepo"), r"model\.onnx is gated: accept its terms at http.*hf auth login"),
        ("hf://made/wd", "file", (401, "GatedRepo"), r"model\.onnx is gated"),
        ("hf://made/wd", "api", 429, r"the hub asks to wait.*Run again in some minutes"),
        ("hf://made/wd", "api", 500, r"the hub answered with status 500\. Run again later"),
        ("hf://made/wd", "api", "html", r"the answer is not that of a hub \(.*Check HF_ENDPOINT, and whether a proxy"),
        ("hf://made/wd", "file", "html", r"model\.onnx came, but it is a web page.*Open http"),
        ("hf://made/wd", "file", 404, r"model\.onnx"),
    ],
)
def test_a_hub_that_does_not_give_it(source: str, where: str, trouble: Any, why: str, hub: Hub) -> None:
    hub.trouble[where] = trouble
    with pytest.raises(ArtifactError, match=why) as raised:
        Tagger.open(source)
    assert "\n" not in str(raised.value)
    hub.trouble.clear()
    if source == "hf://made/wd":
        assert Tagger.open(source, threads=1).layout == "wd", "what went wrong leaves nothing in the way"


def test_a_download_that_stays_short(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    original = _Handler._send

    def short(self: _Handler, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        original(self, status, body[:50] if "/resolve/" in self.path and len(body) > 50 else body, headers, length)

    monkeypatch.setattr(_Handler, "_send", short)
    with pytest.raises(ArtifactError, match=r"hf://made/joytag: .* (cannot be fetched|came damaged)") as raised:
        locate("hf://made/joytag")
    assert "\n" not in str(raised.value)


def test_nobody_answers(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ArtifactError, match=r"hf://made/wd cannot be fetched \(.*Check the connection") as raised:
        locate("hf://made/wd")
    assert "\n" not in str(raised.value)


def test_a_repository_of_no_tagger(hub: Hub) -> None:
    hub.files["made/other"] = {"pytorch_model.bin": b"", "README.md": b""}
    with pytest.raises(ArtifactError, match=r"hf://made/other holds no model\.onnx or other weights \(found: README"):
        locate("hf://made/other")
    assert hub.downloads() == []


def test_a_name_in_the_cache_is_the_repository_s(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--SmilingWolf--wd-vit-tagger-v3" / "snapshots" / COMMIT
    (snapshot / "folder").mkdir(parents=True)
    assert name_of(snapshot) == "wd-vit-tagger-v3"
    assert name_of(snapshot / "folder") == "folder"
    assert name_of(tmp_path) == tmp_path.name
