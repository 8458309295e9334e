"""A gallery to walk through: drawn pictures, a real model that knows their colours, a real server, a real Chromium.

The model's tags follow from the mean colour of a picture, so a red picture is `red` and of the character `ruby`, a dark
one is `dark` and explicit. Of 240 pictures every fifth is red, green, blue, white, dark in turn; the last red one has
the pixels of the first.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import uvicorn
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, sync_playwright

from efuda.collection import Collection
from efuda.server.app import create_app
from efuda.server.settings import Settings
from efuda.tagging import Tagger, tag
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

COUNT = 240
GROUNDS = [(215, 30, 40), (20, 190, 60), (40, 60, 230), (245, 245, 245), (15, 15, 20)]  # red green blue white dark
FRAMES = [(72, 72), (66, 78), (78, 66), (68, 76)]
EVIL = '<img src=x onerror="window.hacked=1">.png'

TAGS = [
    *(Tag(name, Category.RATING) for name in RATINGS),
    *(Tag(name) for name in ("red", "green", "blue", "dark", "simple_background")),
    Tag("ruby", Category.CHARACTER),
    Tag("gems", Category.COPYRIGHT),
    Tag("some_artist", Category.ARTIST),
]
# What each tag's logit is: weights of the mean red, green and blue (0 … 1), and a constant.
LOGITS: dict[str, tuple[float, float, float, float]] = {
    "general": (0, 0, 0, 2),
    "explicit": (-20, -20, -20, 17.4),
    "red": (20, -10, -10, -5),
    "green": (-10, 20, -10, -4),
    "blue": (-10, -10, 20, -4),
    "dark": (-20, -20, -20, 17.4),
    "simple_background": (0, 0, 0, 2.5),
    "ruby": (30, -15, -15, -5),
    "gems": (30, -15, -15, -5),
}


def draw_pictures(folder: Path) -> list[Path]:
    """The pictures, the first red; one has a name that would be a script if it were taken for markup."""
    folder.mkdir()
    rng, paths = random.Random(7), []
    for number in range(COUNT):
        path = folder / (EVIL if number == 1 else f"{number:03}.png")
        ground = tuple(max(0, min(255, c + rng.randint(-9, 9))) for c in GROUNDS[number % 5])
        picture = Image.new("RGB", FRAMES[number % 4], ground)
        pen = ImageDraw.Draw(picture)
        x, y = rng.randint(15, 35), rng.randint(15, 35)
        pen.ellipse((x, y, x + 12, y + 12), outline="black", width=2)
        pen.text((4, 4), str(number), fill="black")
        picture.save(path)
        paths.append(path)
    Image.open(paths[0]).save(paths[235], compress_level=1)
    return paths


def write_model(root: Path) -> None:
    """A WD directory: pixels in, tags by mean colour out, and a coarse picture as the embedding."""
    root.mkdir()
    vocabulary = Vocabulary(TAGS)
    vocabulary.write_csv(root / "selected_tags.csv")
    rows = np.array([LOGITS.get(tag.name, (0, 0, 0, -6)) for tag in vocabulary], np.float32)
    weights = rows[:, [2, 1, 0]].T / 255  # the input is BGR, 0 … 255
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["output"]),
        helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["coarse"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["coarse"], ["embedding"]),
    ]
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("input", floats, ["batch", 16, 16, 3])],
        [
            helper.make_tensor_value_info("output", floats, ["batch", len(vocabulary)]),
            helper.make_tensor_value_info("embedding", floats, ["batch", 48]),
        ],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(rows[:, 3], "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, root / "model.onnx")


@dataclass
class Gallery:
    """A running server and what it serves."""

    url: str
    collection: Collection
    folder: Path


@contextlib.contextmanager
def serving(collection: Collection, tagger: Tagger | None, settings: Settings | None = None) -> Iterator[str]:
    """The real server in a thread, at a free port; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        app = create_app(settings or Settings(port=port), collection=collection, tagger=tagger)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                thread.join(0.01)
            yield f"http://127.0.0.1:{port}"
        finally:
            app.life.stopping = True
            server.should_exit = server.force_exit = True
            thread.join()


@contextlib.contextmanager
def gallery(root: Path) -> Iterator[Gallery]:
    """The drawn pictures, tagged and served."""
    write_model(root / "colours")
    tagger = Tagger.open(root / "colours", threads=1)
    folder = root / "art"
    paths = draw_pictures(folder)
    with Collection.open(root / "art.efuda", create=True) as collection:
        collection.remember([folder])
        collection.add(tag(tagger, paths, workers=1, embeddings=True), tagger)
        with serving(collection, tagger) as url:
            yield Gallery(url, collection, folder)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that the test set-up installs."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    assert path, "The gallery's tests need Chromium: make chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
