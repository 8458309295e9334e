"""A tiny drawn world with known tags: a Danbooru-shaped dump of shapes on coloured grounds, made in the test."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from PIL import Image, ImageDraw

from efuda.artifacts import Dataset, Model, Run
from efuda.cli import main
from efuda.cli.console import output
from efuda.recipes import Recipe, load_recipe

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny networks gain nothing from threads

settings.register_profile("efuda", deadline=None)  # the machine may be busy with the other tests
settings.load_profile("efuda")

COLOURS = {"red": (210, 40, 50), "green": (40, 160, 70), "blue": (50, 80, 220), "white": (250, 250, 250)}
SHAPES = ("circle", "square", "triangle")
SIDE = 64

TINY = [
    "vocabulary.minimum_count=5",
    f"images.exact_size={SIDE}",
    "split.method=hash",
    "split.near_duplicates=none",  # drawn shapes on plain grounds all look alike
    "model.backbone=timm/test_resnet",
    "model.weights=none",
    f"model.size={SIDE}",
    "train.epochs=2",
    "train.batch=8",
    "train.workers=0",
]


def draw(colour: str, shape: str, rng: random.Random, side: int = SIDE) -> Image.Image:
    """One picture: its two tags are `<colour>_background` and `<shape>`."""
    picture = Image.new("RGB", (side, side), tuple(max(0, min(255, c + rng.randint(-12, 12))) for c in COLOURS[colour]))
    pen = ImageDraw.Draw(picture)
    radius, x, y = rng.randint(side // 6, side // 4), rng.randint(side // 3, 2 * side // 3), side // 2
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill="black")
    elif shape == "square":
        pen.rectangle(box, fill="black")
    else:
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill="black")
    return picture


def post(number: int, tags: list[str], **more: Any) -> dict[str, Any]:
    """A post in the 2021 schema."""
    return {
        "id": number,
        "parent_id": None,
        "rating": "s",
        "is_deleted": False,
        "md5": f"{number:032x}",
        "file_ext": "jpg",
        "tag_string": " ".join(tags),
        "tag_string_general": " ".join(tags),
        "tag_string_artist": "",
        "tag_string_character": "",
        "tag_string_copyright": "",
        "tag_string_meta": "",
        **more,
    }


def old_post(number: int, tags: list[str]) -> dict[str, Any]:
    """A post in the 2017–2020 schema: every integer is a string."""
    return {
        "id": str(number),
        "parent_id": "0",
        "rating": "s",
        "is_deleted": False,
        "md5": f"{number:032x}",
        "file_ext": "jpg",
        "tags": [{"id": "1", "name": name, "category": "0"} for name in tags],
    }


def write_lines(path: Path, rows: list[dict[str, Any]] | list[str]) -> Path:
    """JSON lines; strings are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def draw_dump(root: Path, posts: int = 120, *, seed: int = 0) -> Path:
    """`root/metadata/posts*.json` in both schemas and `root/512px/0ddd/id.jpg`; ids have gaps of three."""
    rng = random.Random(seed)
    new: list[dict[str, Any]] = []
    old: list[dict[str, Any]] = []
    for number in range(1001, 1001 + 3 * posts, 3):
        colour, shape = rng.choice(list(COLOURS)), rng.choice(SHAPES)
        tags = [f"{colour}_background", shape]
        path = root / "512px" / f"{number % 1000:04d}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(colour, shape, rng).save(path, quality=92)
        if number < 1001 + 2 * posts:
            new.append(post(number, tags))
        else:
            old.append(old_post(number, tags))
    write_lines(root / "metadata" / "posts000000000000.json", new)
    write_lines(root / "metadata" / "posts000000000001.json", old)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that one test keeps are not another's."""
    monkeypatch.setenv("EFUDA_CACHE", str(tmp_path_factory.getbasetemp() / f"cache-{random.getrandbits(64):x}"))


@pytest.fixture(scope="session")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn dump; tests must not change it."""
    return draw_dump(tmp_path_factory.mktemp("dump"))


@pytest.fixture(scope="session")
def tiny_recipe() -> Callable[..., Recipe]:
    """A recipe that trains on the drawn dump in seconds, with overrides."""
    return lambda *overrides: load_recipe(None, [*TINY, *overrides])


@pytest.fixture(scope="session")
def dataset(dump: Path, tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The dataset of the drawn dump; tests must not change it."""
    from efuda.datasets import prepare

    out = tmp_path_factory.mktemp("prepared") / "dataset"
    return prepare([dump / "metadata"], dump / "512px", out, tiny_recipe(), workers=1)


@pytest.fixture(scope="session")
def run(dataset: Dataset, tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of six epochs, which learns the grounds and some of the shapes; tests must not change it."""
    from efuda.training import train  # torch takes seconds: only tests that use it pay for it

    return train(dataset, tmp_path_factory.mktemp("trained") / "run", tiny_recipe("train.epochs=6"))


@pytest.fixture(scope="session")
def model(run: Run, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The run exported and calibrated; tests must not change it, `shutil.copytree` it to damage one."""
    from efuda.evaluation import calibrate
    from efuda.training import export

    return calibrate(export(run, tmp_path_factory.mktemp("exported") / "model"), dataset)


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Efuda = Callable[..., Done]


@pytest.fixture
def efuda(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Efuda]:
    """Run a command in this process."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["efuda", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        text = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Done(left.value.code, text.out, text.err)

    yield run
    signal.signal(signal.SIGTERM, before)
    output.verbosity = 0
