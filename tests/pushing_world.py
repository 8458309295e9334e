"""Small real servers that keep Hydrus's and szurubooru's rules, over HTTP on the loopback address."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

KEY = "0123456789abcdef" * 4
MY_TAGS, AI_TAGS, SHARED = "6c6f63616c2074616773", "a1" * 32, "b2" * 32
LOGIN = "bot:secret-token"


class HttpError(Exception):
    """An answer with another status than 200."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        self.status, self.body, self.headers = status, body, headers


@contextmanager
def served(answer: Callable[[str, str, dict[str, Any], Any], Any]) -> Iterator[str]:
    """Its address; `answer` gets the method, the path, what was asked, and the headers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            parts = urlsplit(self.path)
            asked: dict[str, Any] = dict(parse_qsl(parts.query))
            if length:
                asked.update(json.loads(self.rfile.read(length)))
            try:
                status, body, headers = 200, answer(self.command, unquote(parts.path), asked, self.headers), {}
            except HttpError as error:
                status, body, headers = error.status, error.body, error.headers
            data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *what: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class HydrusClient:
    """Files, and for each the current and deleted tags of every service; actions as Hydrus documents them."""

    permissions: list[int] = field(default_factory=lambda: [2, 3])
    version: int = 80
    files: set[str] = field(default_factory=set)
    trashed: set[str] = field(default_factory=set)
    current: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    deleted: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fail: list[HttpError] = field(default_factory=list)  # instead of the next answers to add_tags
    services = ((MY_TAGS, "my tags", 5), (AI_TAGS, "AI tags", 5), (SHARED, "a repository", 0), ("6c66", "files", 2))

    def tags(self, sha256: bytes, service: str = AI_TAGS) -> set[str]:
        return self.current.setdefault((service, sha256.hex()), set())

    def gone(self, sha256: bytes, service: str = AI_TAGS) -> set[str]:
        return self.deleted.setdefault((service, sha256.hex()), set())

    def by_hand(self, sha256: bytes, *, add: str = "", delete: str = "") -> None:
        """What a person does in the client's own window."""
        if add:
            self.tags(sha256).add(add)
            self.gone(sha256).discard(add)
        if delete:
            self.tags(sha256).discard(delete)
            self.gone(sha256).add(delete)

    def answer(self, method: str, path: str, asked: dict[str, Any], headers: Any) -> Any:
        key = headers.get("Hydrus-Client-API-Access-Key")
        if key is None:
            raise HttpError(401, b"No access key given")
        if key != KEY:
            raise HttpError(403, b"Did not find an entry for that access key!")
        self.calls.append((path, asked))
        about = {"version": self.version, "hydrus_version": 620}
        if path == "/verify_access_key":
            return {**about, "basic_permissions": self.permissions, "human_description": "", "name": "efuda"}
        if path == "/get_services":
            listed = {k: {"name": name, "type": kind, "type_pretty": ""} for k, name, kind in self.services}
            return {**about, "services": listed}
        if path == "/get_files/file_metadata":
            self._need(3)
            return {**about, "metadata": [self._metadata(hash) for hash in json.loads(asked["hashes"])]}
        if path == "/add_tags/add_tags":
            assert method == "POST" and headers["Content-Type"] == "application/json"
            self._need(2)
            if self.fail:
                raise self.fail.pop(0)
            return self._add_tags(asked)
        raise HttpError(404, b"not found")

    def _need(self, permission: int) -> None:
        if permission not in self.permissions:
            raise HttpError(403, b"You do not have permission to do that")

    def _metadata(self, hash: str) -> dict[str, Any]:
        if hash not in self.files | self.trashed:
            return {"file_id": None, "hash": hash}
        tags = {}
        for service, _, kind in self.services:
            if kind in (0, 5):
                now, gone = self.current.get((service, hash), set()), self.deleted.get((service, hash), set())
                storage = {status: sorted(tags) for status, tags in (("0", now), ("2", gone)) if tags}
                tags[service] = {"storage_tags": storage, "display_tags": storage}
        return {"file_id": 1, "hash": hash, "is_local": hash in self.files, "tags": tags}

    def _add_tags(self, asked: dict[str, Any]) -> None:
        override = asked.get("override_previously_deleted_mappings", True)
        record = asked.get("create_new_deleted_mappings", True)
        kinds = {key: kind for key, _, kind in self.services}
        for service, actions in asked["service_keys_to_actions_to_tags"].items():
            for action, tags in actions.items():
                if kinds[service] != 5 or action not in ("0", "1"):
                    raise HttpError(400, b"you can only add/delete on a local tag domain!")
                for hash in asked["hashes"]:
                    now = self.current.setdefault((service, hash), set())
                    gone = self.deleted.setdefault((service, hash), set())
                    for tag in tags:
                        tag = " ".join(tag.lower().split())
                        if action == "0" and (override or tag not in gone):
                            gone.discard(tag)
                            now.add(tag)
                        elif action == "1" and (record or tag in now):
                            now.discard(tag)
                            gone.add(tag)


@dataclass
class Booru:
    """A szurubooru: posts with versions, tags that belong to categories, ranks as privileges that are held or not."""

    denied: set[str] = field(default_factory=set)  # such as "tag_categories:create", "posts:edit:safety"
    posts: dict[int, dict[str, Any]] = field(default_factory=dict)
    tags: dict[str, dict[str, Any]] = field(default_factory=dict)  # by first name
    categories: list[str] = field(default_factory=lambda: ["default"])
    name_regex: str = r"^\S+$"
    longest: int = 190
    stale_status: int = 409
    meanwhile: Callable[[int], None] = lambda number: None  # called between a read and the next write
    calls: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def put_post(self, checksum: str, tags: list[str], *, safety: str = "safe") -> int:
        number = len(self.posts) + 1
        self.posts[number] = {"version": 1, "tags": [self.tag(name)["names"][0] for name in tags], "safety": safety}
        self.posts[number]["checksum"] = checksum
        return number

    def tag(self, name: str, category: str | None = None) -> dict[str, Any]:
        """The tag of that name or alias, made where there is none."""
        for tag in self.tags.values():
            if name.lower() in [one.lower() for one in tag["names"]]:
                return tag
        if re.match(self.name_regex, name) is None or len(name) > self.longest:
            raise HttpError(400, {"name": "InvalidTagNameError", "title": "Validation error", "description": "Name."})
        self._need("tags:create")
        self.tags[name] = {"names": [name], "category": category or self.categories[0], "version": 1}
        return self.tags[name]

    def edit(self, number: int, tags: list[str]) -> None:
        """What someone else does on the site."""
        with self.lock:
            self.posts[number]["tags"] = [self.tag(name)["names"][0] for name in tags]
            self.posts[number]["version"] += 1

    def answer(self, method: str, path: str, asked: dict[str, Any], headers: Any) -> Any:
        with self.lock:
            return self._answer(method, path, asked, headers)

    def _answer(self, method: str, path: str, asked: dict[str, Any], headers: Any) -> Any:
        if headers.get("Authorization") != "Token " + base64.b64encode(LOGIN.encode()).decode():
            raise HttpError(403, {"name": "AuthError", "title": "Authentication error", "description": "Bad token."})
        assert "application/json" in headers["Accept"]
        if not path.startswith("/api/"):
            raise HttpError(404, b"<html>the client</html>")
        path = path.removeprefix("/api").rstrip("/")
        self.calls.append((method, path))
        if path == "/info":
            return {"postCount": len(self.posts), "config": {"tagNameRegex": self.name_regex}}
        if path == "/tag-categories" and method == "GET":
            return {"results": [{"name": name, "default": name == self.categories[0]} for name in self.categories]}
        if path == "/tag-categories":
            self._need("tag_categories:create")
            assert re.match("#[0-9a-f]{6}$", asked["color"])
            self.categories.append(asked["name"])
            return {"name": asked["name"]}
        if path == "/posts":
            name, _, sums = asked["query"].partition(":")
            assert name == "content-checksum" and int(asked["limit"]) <= 100
            found = [self._post(n) for n, post in self.posts.items() if post["checksum"] in sums.split(",")]
            return {"query": asked["query"], "total": len(found), "results": found}
        if path.startswith("/post/"):
            return self._one_post(method, int(path.removeprefix("/post/")), asked)
        if path == "/tags" and method == "POST":
            if any(
                name.lower() in map(str.lower, tag["names"]) for tag in self.tags.values() for name in asked["names"]
            ):
                raise HttpError(400, {"name": "TagAlreadyExistsError", "description": "already used"})
            if asked["category"] not in self.categories:
                raise HttpError(404, {"name": "TagCategoryNotFoundError", "description": "no such category"})
            return self.tag(asked["names"][0], asked["category"])
        if path.startswith("/tag/"):
            name = path.removeprefix("/tag/").lower()
            for tag in self.tags.values():
                if name in [one.lower() for one in tag["names"]]:
                    return tag
            raise HttpError(404, {"name": "TagNotFoundError", "description": "Tag not found."})
        raise HttpError(404, {"name": "HttpNotFound", "description": "Requested path was not found."})

    def _one_post(self, method: str, number: int, asked: dict[str, Any]) -> Any:
        if number not in self.posts:
            raise HttpError(404, {"name": "PostNotFoundError", "description": "Post not found."})
        if method == "GET":
            return self._post(number)
        self.meanwhile(number)
        post = self.posts[number]
        if int(asked["version"]) != post["version"]:
            text = "Someone else modified this in the meantime. Please try again."
            raise HttpError(self.stale_status, {"name": "IntegrityError", "description": text})
        if "safety" in asked:
            self._need("posts:edit:safety")
            assert asked["safety"] in ("safe", "sketchy", "unsafe")
        post["tags"] = [self.tag(name)["names"][0] for name in asked["tags"]]  # as a whole
        post["safety"] = asked.get("safety", post["safety"])
        post["version"] += 1
        return {"id": number, "version": post["version"]}

    def _post(self, number: int) -> dict[str, Any]:
        post = self.posts[number]
        tags = [{**self.tags[name], "usages": 1} for name in post["tags"]]
        return {**post, "id": number, "tags": tags}

    def _need(self, privilege: str) -> None:
        if privilege in self.denied:
            raise HttpError(403, {"name": "AuthError", "description": "Insufficient privileges to do this."})
