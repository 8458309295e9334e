"""The promises of SECURITY.md, each attacked on a real server; a test's name begins with the promise's number."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from serving_world import Client, draw_pictures, fill, form, make_tagger, served

from efuda.collection import Collection
from efuda.errors import InputError, UsageError
from efuda.server import Limits, Settings, new_password, new_token, read_secret
from efuda.server.access import Brake, Door, Secret
from efuda.server.originals import type_of
from efuda.server.security import host_of

TOKEN = "a-token-that-is-long-enough"
ROOT = Path(__file__).parent.parent
LIMITS = Limits(
    picture_bytes=200_000,
    request_bytes=300_000,
    json_bytes=10_000,
    files=3,
    fields=4,
    field_bytes=100,
    pixels=1_000_000,
    waiting_bytes=250_000,
    body_seconds=1.0,
    sign_ins=3,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Client]]:
    """An open server and one with a token, of the same collection and with small limits."""
    root = tmp_path_factory.mktemp("guarded")
    tagger, paths = make_tagger(root), draw_pictures(root / "art")
    with Collection.open(root / "art.efuda", create=True) as collection:
        fill(collection, tagger, paths)
        settings = Settings(limits=LIMITS)
        locked = Settings(limits=LIMITS, secret=Secret(TOKEN))
        with (
            served(settings, collection=collection, tagger=tagger) as one,
            served(locked, collection=collection, tagger=tagger) as other,
        ):
            yield one, other


@pytest.fixture
def open_server(world: tuple[Client, Client]) -> Client:
    return world[0]


@pytest.fixture
def locked(world: tuple[Client, Client]) -> Client:
    """The one with a token, with nothing remembered of wrong ones."""
    door = world[1].parts.door
    door.brake = Brake(LIMITS.sign_ins, LIMITS.all_sign_ins)
    return world[1]


def png(side: int = 20) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(out, "PNG")
    return out.getvalue()


def test_every_promise_has_a_test() -> None:
    promised = set(re.findall(r"^(\d+)\. ", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), re.MULTILINE))
    tested = set(re.findall(r"^def test_(\d+)_", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
    assert promised == tested and len(promised) > 10


# Who reaches it


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "nas", ""])
def test_1_another_address_needs_a_secret(host: str) -> None:
    with pytest.raises(UsageError, match="needs a password or a token"):
        Settings(host=host)
    assert not Settings(host=host, secret=Secret(TOKEN)).is_loopback


def test_1_a_public_name_needs_a_secret_and_loopback_does_not() -> None:
    with pytest.raises(UsageError, match=r"--name art\.example\.org"):
        Settings(names=("art.example.org",))
    assert all(Settings(host=host).is_loopback for host in ("127.0.0.1", "127.8.9.1", "::1", "localhost"))
    assert Settings().host == "127.0.0.1"


def test_1_it_listens_at_loopback_only(open_server: Client) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent: this only asks for our own address
        own = probe.getsockname()[0]
    if own.startswith("127."):
        pytest.skip("this machine has no other address")
    with pytest.raises(OSError):
        socket.create_connection((own, open_server.port), timeout=2)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "0.0.0.0:{port}",
        "192.168.1.5",
        "[::2]:{port}",
        "[fe80::1]",
        "127.0.0.1@evil.example",
        "127.0.0.1:{port}:{port}",
        "127.0.0.1:80x",
        "2130706433",
        "localhost, evil.example",
        "localhost evil.example",
        "[::1",
        "::1",
        "localhost/",
        "",
        "ｌocalhost".encode().decode("latin-1"),
    ],
)
def test_2_other_hosts_are_refused(open_server: Client, host: str) -> None:
    name = host.format(port=open_server.port)
    for path in ("/", "/api/status", "/api/search", "/health", "/static/index.html", "/posts.json"):
        answer = open_server.raw(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        assert re.match(rb"HTTP/1\.1 40[03] ", answer), answer[:80]
        assert b"pictures" not in answer


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:{port}", "localhost:1", "LOCALHOST", "[::1]:{port}", "[::1]"])
def test_2_our_own_hosts_are_known(open_server: Client, host: str) -> None:
    assert open_server.get("/health", Host=host.format(port=open_server.port)).status == 200


def test_2_a_host_is_named_once(open_server: Client) -> None:
    for lines in ("", "Host: localhost\r\nHost: localhost\r\n", "Host: localhost\r\nHost: evil.example\r\n"):
        for version in ("1.1", "1.0"):
            answer = open_server.raw(f"GET /api/status HTTP/{version}\r\n{lines}Connection: close\r\n\r\n".encode())
            assert re.match(rb"HTTP/1\.1 400 ", answer), answer[:80]


def test_2_hosts_are_read_whole() -> None:
    assert host_of("[::1]:8420") == ("::1", "8420") and host_of("Art.Example.org") == ("art.example.org", "")
    assert host_of("[::1]x") is None and host_of("a:b") is None and host_of("a" * 300) is None


def test_2_a_public_name_is_known(tmp_path: Path) -> None:
    settings = Settings(names=("art.example.org",), secret=Secret(TOKEN))
    with served(settings) as client:
        assert client.get("/health", Host="art.example.org").status == 200
        assert client.get("/health", Host="other.example.org").status == 403


CROSS: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://localhost"},
    {"Origin": "file://"},
    {"Origin": "http://127.0.0.1.evil.example:{port}"},
    {"Origin": "http://127.0.0.1:notaport"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
]


@pytest.mark.parametrize("headers", CROSS)
def test_3_pages_of_other_sites_change_nothing(open_server: Client, headers: dict[str, str]) -> None:
    given = {name: text.format(port=open_server.port) for name, text in headers.items()}
    before = open_server.parts.needed_collection().revision
    for method, path in (
        ("POST", "/api/edits"),
        ("POST", "/api/undo"),
        ("POST", "/api/jobs"),
        ("POST", "/api/session"),
        ("DELETE", "/api/session"),
        ("DELETE", "/api/jobs/1"),
        ("PUT", "/api/edits"),
        ("POST", "/tagger/v1/interrogate"),
    ):
        body = json.dumps({"pictures": [1], "add": ["owned"]}).encode()
        answer = open_server.ask(method, path, body, {"Content-Type": "application/json", **given})
        assert (answer.status, answer.data["error"]) == (403, "origin")
    assert open_server.send([("a.png", png())], given, format="json").status == 403
    assert open_server.parts.needed_collection().revision == before


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_3_what_a_form_can_send_is_refused(open_server: Client, kind: str) -> None:
    for path in ("/api/edits", "/api/undo", "/api/redo", "/api/session", "/api/duplicates/merge"):
        answer = open_server.ask("POST", path, b'{"pictures": [1], "add": ["owned"]}', {"Content-Type": kind})
        assert (answer.status, answer.data["error"]) == (415, "media_type")
    assert open_server.ask("POST", "/evaluate", b"{}", {"Content-Type": "application/json"}).status == 415


def test_3_the_own_page_and_programs_may(open_server: Client) -> None:
    own = {"Origin": f"http://127.0.0.1:{open_server.port}", "Sec-Fetch-Site": "same-origin"}
    for headers in ({}, own, {"Sec-Fetch-Site": "none"}):
        answer = open_server.ask(
            "POST", "/api/undo", b'{"operation": 999}', {"Content-Type": "application/json; charset=utf-8", **headers}
        )
        assert answer.status == 409


def test_3_pages_of_other_sites_read_nothing(open_server: Client) -> None:
    for path in (
        "/api/status",
        "/api/pictures/1/original",
        "/api/pictures/1/thumbnail",
        "/static/main.js",
        "/posts.json",
    ):
        included = open_server.get(path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="image")
        assert included.status == 403
        framed = open_server.get(path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe")
        assert framed.status == 403
        plain = open_server.get(path, Origin="https://evil.example")
        assert not [name for name in plain.headers if name.startswith("access-control-")]
        assert plain.headers["cross-origin-resource-policy"] == "same-origin"
    link = open_server.get(
        "/api/status", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document"
    )
    assert link.status == 200
    asked = open_server.ask("OPTIONS", "/api/edits", headers={"Origin": "https://evil.example"})
    assert asked.status == 405 and "access-control-allow-origin" not in asked.headers


def routes(client: Client) -> list[tuple[str, str]]:
    """(method, path) of every route, with numbers in place."""
    found = []
    schema = client.get("/openapi.json", Authorization=f"Bearer {TOKEN}").data
    for path, methods in schema["paths"].items():
        found += [(method.upper(), path.replace("{id}", "1")) for method in methods]
    return found


def test_4_everything_but_signing_in_needs_the_secret(locked: Client) -> None:
    listed = routes(locked)
    assert len(listed) > 40
    for method, path in [*listed, ("GET", "/openapi.json"), ("GET", "/nothing"), ("PUT", "/api/edits")]:
        if path in ("/health", "/api/status", "/api/session"):
            continue
        kind = "multipart/form-data; boundary=x" if path == "/evaluate" else "application/json"
        answer = locked.ask(method, path, b"{}" if method != "GET" else None, {"Content-Type": kind})
        assert (answer.status, answer.data["error"]) == (401, "sign_in"), path


def test_4_who_has_not_signed_in_learns_only_that(locked: Client) -> None:
    told = locked.get("/api/status").data
    assert (told["needs_sign_in"], told["signed_in"]) == (True, False)
    assert [name for name, value in told.items() if value is not None] == [
        *("version", "read_only", "signed_in", "needs_sign_in"),
    ]
    assert locked.get("/health").data == {"status": "ok", "revision": None}


def test_4_every_way_to_say_the_secret(locked: Client) -> None:
    basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
    assert locked.get("/api/search", Authorization=f"Bearer {TOKEN}").status == 200
    assert locked.get("/api/search", Authorization=f"Basic {basic}").status == 200
    assert locked.get(f"/posts.json?login=anyone&api_key={TOKEN}").status == 200
    answer = locked.send([("a.png", png())], {"Authorization": f"Bearer {TOKEN}"}, format="json")
    assert answer.status == 200 and answer.data[0]["tags"]["1girl"] > 0.9


# Secrets


def test_5_passwords_are_hashed_in_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "config" / "password"
    new_password(path, "correct horse")
    text = path.read_text()
    assert text.startswith("$argon2id$") and "correct" not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    secret = read_secret(path)
    assert secret.is_password and secret.fits("correct horse")
    assert not any(secret.fits(wrong) for wrong in ("", "correct hors", "Correct horse", text.strip(), "x" * 2000))
    with pytest.raises(InputError, match="8 to 1,024"):
        new_password(path, "short")


def test_5_files_that_others_can_read_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "token"
    new_token(path)
    assert len(read_secret(path).value) >= 40 and stat.S_IMODE(path.stat().st_mode) == 0o600
    for mode in (0o640, 0o604, 0o660, 0o644):
        path.chmod(mode)
        with pytest.raises(InputError, match="chmod 600"):
            read_secret(path)
    (tmp_path / "weak").write_text("short\n")
    (tmp_path / "weak").chmod(0o600)
    for name in ("weak", "missing"):
        with pytest.raises(InputError, match="--set-password"):
            read_secret(tmp_path / name)


def test_6_guessing_is_slowed(locked: Client) -> None:
    for number in range(LIMITS.sign_ins):
        assert locked.post("/api/session", {"password": f"guess {number}"}).status == 401
    for answer in (
        locked.post("/api/session", {"password": TOKEN}),
        locked.get("/api/search", Authorization="Bearer another guess"),
        locked.get("/posts.json?api_key=another"),
    ):
        assert (answer.status, answer.data["error"]) == (429, "too_many")
        assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_6_guesses_by_header_count_as_well(locked: Client) -> None:
    for number in range(LIMITS.sign_ins):
        assert locked.get("/api/search", Authorization=f"Bearer guess-{number}").status == 401
    assert locked.post("/api/session", {"password": "guess"}).status == 429


def test_6_an_ipv6_network_is_one_address_and_a_minute_ends() -> None:
    brake = Brake(2, 100, window=0.2)
    brake.failed("2001:db8::1")
    brake.failed("2001:db8::ffff:2")
    assert brake.wait("2001:db8::3") > 0 and brake.wait("2001:db9::1") == 0 and brake.wait("192.0.2.1") == 0
    time.sleep(0.25)
    assert brake.wait("2001:db8::3") == 0
    everywhere = Brake(5, 3)
    for number in range(3):
        everywhere.failed(f"192.0.2.{number}")
    assert everywhere.wait("198.51.100.1") > 0


def test_7_sessions(locked: Client) -> None:
    answer = locked.post("/api/session", {"password": TOKEN})
    assert (answer.status, answer.body) == (204, b"")
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/"))
    session = cookie.split(";")[0]
    assert len(session.partition("=")[2]) >= 43
    assert locked.get("/api/status", Cookie=session).data["signed_in"] is True
    assert locked.get("/api/search", Cookie=session).status == 200
    assert locked.get("/api/search", Cookie=session[:-1] + ("a" if session[-1] != "a" else "b")).status == 401
    assert session.partition("=")[2] not in repr(vars(locked.parts.door))
    assert locked.ask("DELETE", "/api/session", headers={"Cookie": session}).status == 204
    assert locked.get("/api/search", Cookie=session).status == 401
    other = locked.post("/api/session", {"password": TOKEN}).headers["set-cookie"].split(";")[0]
    assert other != session


def test_8_a_sealed_address_opens_one_file_for_a_day(locked: Client) -> None:
    post = locked.get(f"/posts.json?tags=id:1&api_key={TOKEN}").data[0]
    path = post["file_url"].partition(str(locked.port))[2]
    assert locked.get(path).status == 200
    until = re.search(r"until=(\d+)", path)
    assert until is not None and 0 < int(until[1]) - time.time() <= 24 * 3600
    for wrong in (
        path.replace("/1/", "/2/"),
        path.replace("original", "thumbnail"),
        path.replace("until=1", "until=2"),
        re.sub(r"seal=.", "seal=_", path),
        re.sub(r"until=\d+", "until=1", path),
        path.partition("?")[0],
    ):
        assert locked.get(wrong).status == 401, wrong
    assert not Door(Secret(TOKEN), LIMITS).is_sealed("/x", "1", "")


# Files


@pytest.mark.parametrize(
    "path",
    [
        "/api/pictures/..%2f..%2fetc%2fpasswd/original",
        "/api/pictures/%2fetc%2fpasswd/original",
        "/api/pictures/1/original/../../../../etc/passwd",
        "/static/../../../../../../etc/passwd",
        "/static/..%2f..%2f..%2fsecurity.py",
        "/static//etc/passwd",
        "/static/%00",
        "//etc/passwd",
        "/posts/..%2f1.json",
    ],
)
def test_9_no_path_comes_from_a_client(open_server: Client, path: str) -> None:
    answer = open_server.get(path)
    assert answer.status in (404, 422), answer.status
    assert set(answer.data) == {"error", "message"} and b"root:" not in answer.body


def test_9_names_of_files_that_are_sent_lead_nowhere(open_server: Client, tmp_path: Path) -> None:
    folder = open_server.parts.shelf.new().parent
    for name in (
        "../../etc/cron.d/x",
        "/etc/passwd",
        "..",
        "a/b/c.zip/1.png",
        str(tmp_path / "planted.png"),
        "x\x00.png",
    ):
        answer = open_server.send([(name, png())], format="json")
        assert answer.status == 200, answer.data
        assert len(answer.data) == 1
        assert not list(folder.iterdir())
    assert not (tmp_path / "planted.png").exists()


def test_9_answers_tell_no_paths(open_server: Client) -> None:
    root = str(open_server.parts.needed_collection().path.parent)
    for method, path in routes(open_server):
        if method == "GET" and path != "/api/events":
            answer = open_server.get(path)
            assert root.encode() not in answer.body, path
    assert open_server.post("/api/jobs", {"kind": "add", "folder": 1}).status == 202


def test_10_an_original_is_the_file_that_was_added(tmp_path: Path) -> None:
    tagger, paths = make_tagger(tmp_path), draw_pictures(tmp_path / "art")
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        fill(collection, tagger, paths)
        secret = tmp_path / "secret"
        secret.write_bytes(b"s" * paths[0].stat().st_size)
        with served(collection=collection) as client:
            assert client.get("/api/pictures/1/original").status == 200
            paths[0].unlink()
            paths[0].symlink_to(secret)
            answer = client.get("/api/pictures/1/original")
            assert (answer.status, b"ssss" in answer.body) == (404, False)
            paths[1].write_bytes(paths[1].read_bytes() + b"more")
            assert client.get("/api/pictures/2/original").data["error"] == "changed"
            paths[2].unlink()
            os.mkfifo(paths[2])
            assert client.get("/api/pictures/3/original").status == 409
            paths[3].unlink()
            paths[3].mkdir()
            assert client.get("/api/pictures/4/original").status == 409


def test_10_originals_are_sent_as_what_they_are(tmp_path: Path) -> None:
    tagger, paths = make_tagger(tmp_path), draw_pictures(tmp_path / "art")
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        fill(collection, tagger, paths)
        script = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
        starts = (script, b"<!DOCTYPE html><script>alert(1)</script>", b"%PDF-1.7", b"\xff\xd8\xff")
        for path, start in zip(paths, starts, strict=True):
            path.write_bytes(start.ljust(path.stat().st_size))
        with served(collection=collection) as client:
            for number in (1, 2, 3):
                answer = client.get(f"/api/pictures/{number}/original")
                assert answer.headers["content-type"] == "application/octet-stream"
                assert answer.headers["content-disposition"].startswith("attachment")
            shown = client.get("/api/pictures/4/original")
            assert (shown.headers["content-type"], shown.headers["content-disposition"]) == ("image/jpeg", "inline")
            for sent in (answer, shown):
                assert sent.headers["x-content-type-options"] == "nosniff"
                assert sent.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


def test_10_types_by_content() -> None:
    assert type_of(b"\x89PNG\r\n\x1a\n") == "image/png" and type_of(b"RIFF\0\0\0\0WEBPVP8 ") == "image/webp"
    assert type_of(b"\0\0\0\x20ftypavif") == "image/avif" and type_of(b"\x1aE\xdf\xa3") == "video/webm"
    for odd in (b"<svg ", b"\xef\xbb\xbf<svg", b"<?xml ", b"PK\x03\x04", b"", b"BM", b"#!/bin/sh", b"OggS"):
        assert type_of(odd) is None


def test_11_the_server_fetches_nothing(open_server: Client) -> None:
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.3)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/x.png"
        open_server.send([], format="json", url=url, file=url)
        open_server.post("/tagger/v1/interrogate", {"image": url})
        open_server.post("/tagger/v1/interrogate", {"image": f"data:{url},"})
        open_server.send([("a.svg", f'<svg><image href="{url}"/></svg>'.encode())], format="json")
        open_server.get(f"/posts.json?tags=source:{url}")
        with contextlib.suppress(TimeoutError):
            asked.append(trap.accept())
    assert not asked
    sources = "".join(path.read_text() for path in (ROOT / "src" / "efuda" / "server").glob("*.py"))
    assert not re.search(r"import (httpx|requests|urllib\.request)|urlopen|HTTPConnection\(", sources)


# Work


def test_12_bodies_end_at_their_limits(open_server: Client) -> None:
    big = b"x" * (LIMITS.picture_bytes + 1)
    for answer in (
        open_server.send([("a.png", big)], format="json"),
        open_server.send([("a.png", big[:150_000]), ("b.png", big[:160_000])], format="json"),
        open_server.send([("a.png", png())] * 4, format="json"),
        open_server.send([("a.png", png())], threshold="0" * 200),
        open_server.send([("a.png", png())], **{f"field{number}": "1" for number in range(9)}),
        open_server.post("/api/edits", {"query": "a" * 20_000, "add": ["b"]}),
    ):
        assert (answer.status, answer.data["error"]) == (413, "too_large")
    assert not list(open_server.parts.shelf.new().parent.iterdir())


def test_12_a_body_that_says_it_is_small_is_counted(open_server: Client) -> None:
    head = (
        b"POST /api/edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    assert b" 413 " in open_server.raw(head + chunk * 4 + b"0\r\n\r\n")[:20]


def test_12_a_body_that_does_not_come_is_given_up(open_server: Client) -> None:
    with socket.create_connection(("127.0.0.1", open_server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /api/undo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9\r\n\r\n{"
        )
        began = time.monotonic()
        assert b" 408 " in connection.recv(4096)[:20]
        assert 0.5 < time.monotonic() - began < 5


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "an empty file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (png()[:60], "truncated"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "cannot be decoded"),
    ],
)
def test_12_what_is_no_picture_is_told_and_forgotten(open_server: Client, data: bytes, reason: str) -> None:
    answer = open_server.send([("a.png", data)], format="json")
    assert (answer.status, answer.data["error"]) == (422, "picture")
    assert not list(open_server.parts.shelf.new().parent.iterdir())


def test_12_pixels_are_limited_by_the_header(open_server: Client) -> None:
    answer = open_server.send([("bomb.png", png(1001))], format="json")
    assert answer.status == 422 and "too large" in answer.data["message"]
    assert open_server.send([("fine.png", png(999))], format="json").status == 200


def test_12_forms_that_are_damaged(open_server: Client) -> None:
    body, kind = form([("a.png", png())], {})
    for wrong, said in (
        (body[:-20], kind),
        (b"", kind),
        (b"--other\r\n\r\n", kind),
        (body, "multipart/form-data"),
        (body, f"multipart/form-data; boundary={'x' * 300}"),
    ):
        answer = open_server.ask("POST", "/evaluate", wrong, {"Content-Type": said})
        assert answer.status == 400, answer.body


def test_13_what_waits_is_bounded(tmp_path: Path) -> None:
    for limits, status in (
        (Limits(waiting=2), 503),
        (Limits(waiting_a_client=2), 429),
        (Limits(waiting_bytes=180), 503),
    ):
        tagger = make_tagger(tmp_path / f"{status}-{limits.waiting_bytes}")
        with served(Settings(limits=limits), tagger=tagger) as client, ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: client.send([("a.png", png())] * 3, format="json"), range(12)))
            refused = [answer for answer in answers if answer.status == status]
            assert len(refused) == 12
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
            one = client.send([("a.png", png())], format="json")
            assert one.status == 200, "and afterwards there is room again"


def test_14_pages_run_only_our_scripts(open_server: Client, locked: Client) -> None:
    for client in (open_server, locked):
        for path in ("/", "/api/status", "/nothing", "/static/nothing"):
            headers = client.get(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'self'" in policy and "unsafe" not in policy and "script-src" not in policy
            for part in ("object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'"):
                assert part in policy
            assert (headers["x-frame-options"], headers["referrer-policy"]) == ("DENY", "same-origin")
            assert headers["x-content-type-options"] == "nosniff"


def test_14_names_are_text(open_server: Client) -> None:
    name = '"><script>alert(1)</script>.png'
    page = open_server.send([(name.replace('"', "%22"), png())]).body.decode()
    assert "<script>" not in page and "&lt;script&gt;" in page
    answer = open_server.send([(name.replace('"', "%22"), png())], format="json")
    assert answer.headers["content-type"] == "application/json"


def test_14_no_script_or_style_is_written_into_the_pages() -> None:
    for page in (ROOT / "src" / "efuda" / "server" / "static").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|javascript:|<style|\sstyle=", text, re.IGNORECASE)
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text)


def test_15_read_only_refuses_every_change(tmp_path: Path) -> None:
    tagger, paths = make_tagger(tmp_path), draw_pictures(tmp_path / "art")
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        fill(collection, tagger, paths)
        with served(Settings(read_only=True), collection=collection, tagger=tagger) as client:
            before = collection.revision
            for method, path in routes(client):
                if method == "GET" or path in ("/evaluate", "/tagger/v1/interrogate", "/api/session"):
                    continue
                answer = client.ask(method, path, b"{}", {"Content-Type": "application/json"})
                assert (answer.status, answer.data["error"]) == (403, "read_only"), path
            assert client.get("/api/status").data["read_only"] is True
            assert client.send([("a.png", png())], format="json").status == 200
            assert collection.revision == before


def test_16_errors_tell_nothing_of_the_machine(tmp_path: Path) -> None:
    tagger, paths = make_tagger(tmp_path), draw_pictures(tmp_path / "art")
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        fill(collection, tagger, paths)
        with served(collection=collection, tagger=tagger) as client:
            shutil.rmtree(tmp_path / "art")
            for path in ("original", "preview", "thumbnail", "explain?tag=smile"):
                answer = client.get(f"/api/pictures/1/{path}")
                assert answer.status in (200, 404, 422), answer.body
                assert str(tmp_path).encode() not in answer.body
            job = client.post("/api/jobs", {"kind": "add", "folder": 1}).data
            while job["state"] == "running":
                job = client.get(f"/api/jobs/{job['id']}").data
            assert job["state"] == "failed" and str(tmp_path) not in json.dumps(job)


def shapes_of(answer: Any) -> set[str]:
    return set(answer.data)


def test_16_every_route_refuses_in_one_shape(open_server: Client) -> None:
    """Numbers that are none, bodies that are none, methods that are not there: always the same shape."""
    for method, path in routes(open_server):
        kind = "multipart/form-data; boundary=x" if path == "/evaluate" else "application/json"
        if path == "/api/events":  # goes on for ever
            continue
        if method == "GET":
            tries = [("PATCH", path, b"{}")]
            if "/1" in path:
                tries += [("GET", path.replace("/1", "/0"), None), ("GET", path.replace("/1", "/x"), None)]
                tries += [("GET", path.replace("/1", "/99999999"), None)]
            tries += [("GET", f"{path}?limit=x&offset=-1&page=x&q=(&tags=(&query=(&search[query]=", None)]
        else:
            tries = [(method, path, b"[1"), (method, path, b'{"pictures": "x", "kind": 1, "keep": -1}')]
        for verb, place, body in tries:
            answer = open_server.ask(verb, place, body, {"Content-Type": kind})
            assert answer.status < 500 or answer.status == 503, (verb, place)
            if answer.status >= 400:
                assert shapes_of(answer) >= {"error", "message"}, (verb, place)
                assert shapes_of(answer) <= {"error", "message", "query", "position", "suggestions"}
                assert all(isinstance(answer.data[name], str) and answer.data[name] for name in ("error", "message"))
