"""A real server on this machine for a test: uvicorn in a thread, drawn pictures, a client that speaks HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image, ImageDraw
from tagging_world import VOCABULARY, constant_tagger

from efuda.collection import Collection
from efuda.server import Settings
from efuda.server.app import create_app
from efuda.server.parts import Parts
from efuda.tagging import Tagged, Tagger

SAID = {"1girl": 0.99, "general": 0.8, "sensitive": 0.125, "smile": 0.25, "hatsune_miku": 0.95}
PICTURES: dict[str, dict[str, float]] = {
    "one.png": {"1girl": 0.9, "smile": 0.8, "long_hair": 0.7, "hatsune_miku": 0.9, "general": 0.9},
    "two.png": {"1girl": 0.9, "short_hair": 0.8, "sensitive": 0.9},
    "three.png": {"1boy": 0.9, "smile": 0.6, "general": 0.8},
    "four.jpg": {"2girls": 0.9, "questionable": 0.7, "some_artist": 0.6},
}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Asks one server; every request is a connection of its own."""

    port: int
    parts: Parts
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, data: Any = None, **headers: str) -> Answer:
        given = {"Content-Type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        return self.ask("POST", path, json.dumps({} if data is None else data).encode(), given)

    def send(self, files: list[tuple[str, bytes]], headers: Mapping[str, str] | None = None, **fields: str) -> Answer:
        """A form to /evaluate."""
        body, kind = form(files, fields)
        return self.ask("POST", "/evaluate", body, {"Content-Type": kind, **(headers or {})})

    def raw(self, request: bytes) -> bytes:
        """Whatever bytes, and what comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))


def form(files: list[tuple[str, bytes]], fields: Mapping[str, str]) -> tuple[bytes, str]:
    """multipart/form-data."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts += [
        f'--edge\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files
    ]
    return b"".join([*parts, b"--edge--\r\n"]), "multipart/form-data; boundary=edge"


@contextmanager
def served(
    settings: Settings | None = None, *, collection: Collection | None = None, tagger: Tagger | None = None
) -> Iterator[Client]:
    """A server, stopped at the end."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    app = create_app(replace(settings or Settings(), port=port), collection=collection, tagger=tagger)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server could not start"
            time.sleep(0.01)
        yield Client(port, app.app.state.parts)  # type: ignore[attr-defined]
    finally:
        app.life.stopping = server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive(), "the server does not stop"


def make_tagger(folder: Path) -> Tagger:
    """One that says `SAID` of every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    constant_tagger(folder / "model", SAID)
    return Tagger.open(folder / "model", threads=1)


def draw_pictures(folder: Path) -> list[Path]:
    """The files of `PICTURES`, each of another size."""
    folder.mkdir(parents=True, exist_ok=True)
    for at, name in enumerate(PICTURES):
        picture = Image.new("RGB", (60 + 20 * at, 80), (40 * at, 90, 200))
        ImageDraw.Draw(picture).ellipse((10 + 3 * at, 10, 40, 30 + 5 * at), fill=(250, 60 * at, 30))
        picture.save(folder / name)
    return [folder / name for name in PICTURES]


def fill(collection: Collection, tagger: Tagger, paths: list[Path]) -> None:
    """Add them with the tags of `PICTURES`; their ids are 1, 2, …"""

    def results() -> Iterator[Tagged]:
        for path in paths:
            row = np.zeros(len(VOCABULARY), np.float32)
            for name, score in PICTURES[path.name].items():
                row[VOCABULARY.index[name]] = score
            with Image.open(path) as picture:
                yield Tagged.of(path, picture.size, row)

    collection.add(results(), tagger)
    collection.remember([paths[0].parent])
