"""Pictures found in every layout, judged, packed in shards that others read, and never decoded twice."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from efuda.datasets import packing
from efuda.datasets.locating import FOUND, locate
from efuda.datasets.packing import PACKED, Known, pack
from efuda.errors import InputError, OutputError
from efuda.images import examine, phash, read_rgb
from efuda.places import stat
from efuda.recipes import ImagesRecipe
from efuda.workers import InProcess, LocalWorkers

MD5 = "0123456789abcdef0123456789abcdef"
ANY = ImagesRecipe(exact_size=None)
PACK = ImagesRecipe(exact_size=None, pack=32)


def noise(number: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A picture like no other: soft blotches."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def save(picture: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def posts(*rows: tuple[int, str | None, str | None, str | None]) -> Any:
    columns = [list(column) for column in zip(*rows, strict=True)]
    types = {"id": arrow.int64(), "ext": arrow.string(), "md5": arrow.string(), "path": arrow.string()}
    return arrow.table(
        {name: arrow.array(column, kind) for (name, kind), column in zip(types.items(), columns, strict=True)}
    )


def found_in(folder: Path, *names: str) -> Any:
    """A table as `locate` gives it, of these files, with ids 1, 2, …"""
    told = [stat(str(folder / name)) for name in names]
    ids = arrow.array(range(1, len(names) + 1), arrow.int64())
    return arrow.table([ids, list(names), [one.size for one in told], [one.stamp for one in told]], schema=FOUND)


# Where pictures lie


@pytest.mark.parametrize(
    "path",
    [
        "0007/1007.jpg",
        "007/1007.jpg",
        "7/1007.jpg",
        "1007.jpg",
        f"01/23/{MD5}.jpg",
        f"01/{MD5}.jpg",
        f"{MD5}.jpg",
        "0007/1007.png",
        "1007.webp",
        f"{MD5}.avif",
        "7/1007.tga",  # the post says so
    ],
)
def test_each_layout(tmp_path: Path, path: str) -> None:
    save(noise(0), tmp_path / path)
    found, mask = locate([str(tmp_path)], posts((1006, "png", None, None), (1007, "tga", MD5, None)))
    told = (tmp_path / path).stat()
    assert found.schema == FOUND
    assert found.to_pylist() == [{"id": 1007, "path": path, "size": told.st_size, "stamp": str(told.st_mtime_ns)}]
    assert mask.tolist() == [False, True]


def test_a_jpg_is_preferred_and_several_folders_are_searched_in_turn(tmp_path: Path) -> None:
    for name in ("one/0005/5.png", "one/0005/5.jpg", "two/5.jpg", "two/6.jpg", "two/0007/7.jpg"):
        save(noise(0), tmp_path / name)
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    rows = posts(*((number, None, None, None) for number in (7, 6, 5, 4)))
    found, mask = locate(folders, rows)
    assert found["path"].to_pylist() == [f"{folders[1]}/0007/7.jpg", f"{folders[1]}/6.jpg", "0005/5.jpg"]
    assert mask.tolist() == [True, True, True, False]


def test_pictures_beside_their_metadata(tmp_path: Path) -> None:
    beside = save(noise(0), tmp_path / "site" / "a.png")
    rows = posts((1, "png", None, str(beside)), (2, "png", None, str(tmp_path / "gone.png")))
    found, mask = locate([], rows)
    assert found["path"].to_pylist() == [str(beside)]
    assert mask.tolist() == [True, False]
    assert locate([str(tmp_path)], rows)[0]["path"].to_pylist() == ["site/a.png"]


def test_what_metadata_says_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    save(noise(0), tmp_path / "secret.png")
    save(noise(0), tmp_path / "images" / "1" / "x.jpg")
    rows = posts((1, "x/../../../secret.png", "../" * 10 + "ab", None), (2, "\0", "\0" * 32, None))
    assert not locate([str(tmp_path / "images")], rows)[1].any()


def test_a_remote_folder_is_listed_once() -> None:
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    data = io.BytesIO()
    noise(1).save(data, "PNG")
    system.pipe("/pictures/0007/1007.png", data.getvalue())
    try:
        found, mask = locate(["memory://pictures"], posts((1007, None, None, None), (1, None, None, None)))
        assert (found["path"].to_pylist(), mask.tolist()) == (["0007/1007.png"], [True, False])
        with pytest.raises(InputError, match="is not a folder"):
            locate(["memory://nothing"], posts((1, None, None, None)))
    finally:
        system.rm("/pictures", recursive=True)


@pytest.mark.parametrize(("name", "message"), [("empty", "is empty"), ("file", "is not a folder"), ("no", "is not a")])
def test_a_wrong_folder(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        locate([str(tmp_path / name)], posts((1, None, None, None)))


# What becomes of them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures, four of which cannot be used; tests must not change it."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        save(noise(number), root / f"{number}.jpg", quality=90)
    save(noise(6, (20, 64)), root / "6.png")
    save(Image.new("RGB", (64, 64), (9, 9, 9)), root / "7.jpg")
    whole = (root / "0.jpg").read_bytes()
    (root / "8.jpg").write_bytes(whole[:-40])
    (root / "9.jpg").write_text("not a picture")
    return root


NAMES = [*(f"{number}.jpg" for number in range(6)), "6.png", "7.jpg", "8.jpg", "9.jpg"]


@pytest.mark.parametrize("recipe", [ANY, PACK])
def test_each_picture_has_its_row(tmp_path: Path, folder: Path, recipe: ImagesRecipe) -> None:
    recipe = recipe.model_copy(update={"minimum_side": 32})
    told: list[tuple[int, int | None, str]] = []
    table = pack(
        [str(folder)],
        found_in(folder, *NAMES),
        tmp_path,
        recipe,
        workers=InProcess(),
        progress=lambda step, done, total=None, *, unit="", note="": told.append((done, total, note)),
    )
    assert table.schema == PACKED
    assert told == [(10, 10, "4 rejected")]
    assert table["id"].to_pylist() == list(range(1, 11))
    assert table["path"].to_pylist() == NAMES
    reasons = ["20×64, smaller than 32", "a single colour", "truncated", "not a picture"]
    assert table["reason"].to_pylist() == [""] * 6 + reasons
    row = table.to_pylist()[2]
    data = (folder / "2.jpg").read_bytes()
    assert (row["width"], row["height"], row["md5"]) == (48, 40, hashlib.md5(data).hexdigest())
    assert (row["phash"] ^ phash(read_rgb(data))).bit_count() <= 4
    for row in table.to_pylist():
        packed = not row["reason"] and recipe.pack
        assert (row["shard"], row["length"] > 0) == (0, True) if packed else (-1, False)


def test_other_rules(tmp_path: Path, folder: Path) -> None:
    def reasons(**keys: Any) -> list[str]:
        found = found_in(folder, "0.jpg", "7.jpg")
        table = pack([str(folder)], found, tmp_path, ImagesRecipe(**keys), workers=InProcess())
        return table["reason"].to_pylist()  # type: ignore[no-any-return]

    assert reasons(exact_size=64) == ["48×40 instead of 64×64", "a single colour"]
    assert reasons(exact_size=None, single_colour=True) == ["", ""]
    assert reasons(exact_size=None, minimum_side=41) == ["48×40, smaller than 41", "a single colour"]


def test_a_picture_that_cannot_be_read_is_a_reason(tmp_path: Path, folder: Path) -> None:
    found = found_in(folder, "0.jpg", "1.jpg")
    (tmp_path / "folder.jpg").mkdir()
    paths = [str(tmp_path / "gone.jpg"), str(tmp_path / "folder.jpg")]
    found = found.set_column(1, "path", arrow.array(paths)).set_column(2, "size", arrow.array([5, 5]))
    reasons = pack([str(folder)], found, tmp_path / "out", ANY, workers=InProcess())["reason"].to_pylist()
    assert reasons == ["cannot be read (No such file or directory)", "cannot be read (Is a directory)"]
    huge = found.set_column(2, "size", arrow.array([5_000_000_000, 5]))
    assert pack([""], huge, tmp_path / "out", ANY, workers=InProcess())["reason"][0].as_py() == "too large (5.0 GB)"


def test_packed_copies_are_read_by_others(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "CHUNK", 4)
    table = pack([str(folder)], found_in(folder, *NAMES), tmp_path, PACK, workers=InProcess())
    rows = [row for row in table.to_pylist() if not row["reason"]]
    shards = sorted((tmp_path / "shards").glob("*.tar"))
    assert [path.name for path in shards] == ["000000.tar", "000001.tar", "000002.tar"]
    copies: dict[str, bytes] = {}
    for row in rows:
        with shards[row["shard"]].open("rb") as file:
            copies[str(row["id"])] = os.pread(file.fileno(), row["length"], row["offset"])
    sizes = {key: Image.open(io.BytesIO(copy)).size for key, copy in copies.items()}
    assert sizes == {**{str(number): (32, 27) for number in range(1, 7)}, "7": (10, 32)}
    for path in shards:
        with tarfile.open(path) as archive:
            for member in archive:
                assert archive.extractfile(member).read() == copies[member.name.removesuffix(".jpg")]  # type: ignore[union-attr]


def test_a_jpeg_that_is_small_enough_is_packed_as_it_is(tmp_path: Path, folder: Path) -> None:
    """Anything else is made an upright RGB JPEG."""
    exif = Image.Exif()
    exif[0x0112] = 6
    names = ["0.jpg", "6.png", "8.jpg"]
    for number, options in enumerate(({"exif": exif}, {"quality": 95})):
        save(noise(number).convert("RGB" if number == 0 else "CMYK"), tmp_path / "more" / f"{number}.jpg", **options)
    found = found_in(folder, *names, *(str(tmp_path / "more" / f"{number}.jpg") for number in range(2)))
    recipe = ImagesRecipe(exact_size=None, pack=64)
    rows = pack([str(folder)], found, tmp_path, recipe, workers=InProcess()).to_pylist()
    assert [row["reason"] for row in rows] == ["", "", "truncated", "", ""]
    tar = (tmp_path / "shards" / "000000.tar").read_bytes()
    copies = [tar[row["offset"] : row["offset"] + row["length"]] for row in rows if not row["reason"]]
    assert copies[0] == (folder / "0.jpg").read_bytes()
    pictures = [Image.open(io.BytesIO(copy)) for copy in copies]
    assert [(picture.format, picture.mode, picture.size) for picture in pictures] == [
        ("JPEG", "RGB", (48, 40)),
        ("JPEG", "RGB", (20, 64)),
        ("JPEG", "RGB", (40, 48)),
        ("JPEG", "RGB", (48, 40)),
    ]


READERS = {
    "webdataset": """
import sys, webdataset
samples = webdataset.WebDataset(sys.argv[1], shardshuffle=False).decode("pil").to_tuple("__key__", "jpg")
print([(key, picture.mode, picture.size) for key, picture in samples])
""",
    "datasets": """
import sys, datasets
rows = datasets.load_dataset("webdataset", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
print([(row["__key__"], row["jpg"].mode, row["jpg"].size) for row in rows])
""",
}


@pytest.mark.parametrize("library", READERS)
def test_other_libraries_read_the_shards(tmp_path: Path, folder: Path, library: str) -> None:
    """In a process of its own: they leave files open and warn of what they do themselves."""
    pytest.importorskip(library)
    pack([str(folder)], found_in(folder, *NAMES), tmp_path, PACK, workers=InProcess())
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    shard, cache = str(tmp_path / "shards" / "000000.tar"), str(tmp_path / "cache")
    command = [sys.executable, "-c", READERS[library], shard, cache]
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=True)
    wide = [(str(number), "RGB", (32, 27)) for number in range(1, 7)]
    assert done.stdout.splitlines()[-1] == repr([*wide, ("7", "RGB", (10, 32))])


# Nothing is decoded twice


class Counting:
    """Does the work here, and remembers which chunks there were."""

    local = True

    def __init__(self) -> None:
        self.chunks: list[int] = []

    def map(self, function: Any, jobs: Any) -> Iterator[Any]:
        for job in jobs:
            self.chunks.append(job.number)
            yield function(job)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "shards").iterdir())}


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "CHUNK", 4)


@pytest.mark.usefixtures("four")
def test_only_what_changed_is_decoded_again(tmp_path: Path, folder: Path) -> None:
    def again(found: Any, recipe: ImagesRecipe = PACK) -> list[int]:
        counting = Counting()
        table = pack([str(folder)], found, tmp_path, recipe, workers=counting)
        assert table["id"].to_pylist() == found["id"].to_pylist()
        return counting.chunks

    found = found_in(folder, *NAMES)
    assert again(found) == [0, 1, 2]
    before = contents(tmp_path)
    assert again(found) == []
    (tmp_path / "shards" / "000001.tar").unlink()
    (tmp_path / "shards" / "000002.tar").write_bytes(b"cut short")
    assert again(found) == [1, 2]
    (tmp_path / "shards" / "000000.parquet").write_bytes(b"damaged")
    assert again(found) == [0]
    assert contents(tmp_path) == before
    changed = found.set_column(3, "stamp", arrow.array([*found["stamp"].to_pylist()[:9], "later"]))
    assert again(changed) == [2]
    assert again(changed, PACK.model_copy(update={"quality": 80})) == [0, 1, 2]
    assert again(changed.slice(0, 3)) == [0]
    assert sorted(contents(tmp_path)) == ["000000.parquet", "000000.tar"]
    assert again(changed.slice(0, 3), ANY) == [0]
    assert sorted(contents(tmp_path)) == ["000000.parquet"]


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("recipe", [ANY, PACK])
def test_pictures_of_an_earlier_dataset_are_copied(tmp_path: Path, folder: Path, recipe: ImagesRecipe) -> None:
    def known(root: Path, first: str) -> Known:
        rows = arrow.concat_tables(parquet.read_table(path) for path in sorted((root / "shards").glob("*.parquet")))
        return Known(root, recipe.model_dump_json(), rows, packing._names(first, rows))

    found = found_in(folder, *NAMES)
    part = found.take([8, 2, 0, 6, 1, 3])
    pack([str(folder)], part, tmp_path / "base", recipe, workers=InProcess())
    pack([str(folder)], found, tmp_path / "anew", recipe, workers=InProcess())
    base = known(tmp_path / "base", str(folder))
    assert base.find(str(folder), found).tolist() == [2, 4, 1, 5, -1, -1, 3, -1, 0, -1]
    counting = Counting()
    pack([str(folder)], found, tmp_path / "grown", recipe, workers=counting, known=base)
    assert counting.chunks == [1, 2]  # the first chunk is wholly known
    assert contents(tmp_path / "grown") == contents(tmp_path / "anew")
    whole = found.set_column(1, "path", arrow.array([f"{folder}/{name}" for name in NAMES]))
    assert base.find("/elsewhere", whole).tolist() == [2, 4, 1, 5, -1, -1, 3, -1, 0, -1]
    other = recipe.model_copy(update={"minimum_side": 2})
    counting = Counting()
    pack([str(folder)], found, tmp_path / "other", other, workers=counting, known=base)
    assert counting.chunks == [0, 1, 2]
    for tar in (tmp_path / "base" / "shards").glob("*.tar"):
        tar.unlink()
    pack([str(folder)], found, tmp_path / "lost", recipe, workers=InProcess(), known=base)
    assert contents(tmp_path / "lost") == contents(tmp_path / "anew")


@pytest.mark.usefixtures("four")
def test_processes_give_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    found = found_in(folder, *NAMES)
    one = pack([str(folder)], found, tmp_path / "one", PACK, workers=InProcess())
    with LocalWorkers(2) as workers:
        assert pack([str(folder)], found, tmp_path / "two", PACK, workers=workers).equals(one)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


KILLED = """
import sys
from pathlib import Path
import pyarrow.parquet as parquet
from efuda.datasets import packing
from efuda.recipes import ImagesRecipe
from efuda.workers import InProcess
packing.CHUNK = 4
found = parquet.read_table(sys.argv[1])
packing.pack([sys.argv[2]], found, Path(sys.argv[3]), ImagesRecipe(exact_size=None, pack=32), workers=InProcess())
"""


@pytest.mark.usefixtures("four")
def test_a_killed_one_goes_on_at_the_chunk_it_was_at(tmp_path: Path, folder: Path) -> None:
    names = [NAMES[number % 6] for number in range(480)]
    found = found_in(folder, *names)
    parquet.write_table(found, tmp_path / "found.parquet")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "found.parquet"), str(folder), str(tmp_path / "killed")]
    process = subprocess.Popen(command)
    try:
        for stop in (2, 15):
            end = time.monotonic() + 20
            while not (tmp_path / "killed" / "shards" / f"{stop:06d}.parquet").exists():
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.002)
            process.kill()
            process.wait()
            done = len(list((tmp_path / "killed" / "shards").glob("[0-9]*.parquet")))
            assert stop < done < 120
            process = subprocess.Popen(command)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
    counting = Counting()
    pack([str(folder)], found, tmp_path / "killed", PACK, workers=counting)
    assert 0 < len(counting.chunks) <= 120 - 15
    pack([str(folder)], found, tmp_path / "whole", PACK, workers=InProcess())
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_place_that_cannot_be_written(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shards").touch()
    with pytest.raises(OutputError, match="shards cannot be written"):
        pack([str(folder)], found_in(folder, "0.jpg"), tmp_path / "out", ANY, workers=InProcess())


def test_nothing_to_do(tmp_path: Path) -> None:
    assert pack([], FOUND.empty_table(), tmp_path, ANY, workers=InProcess()).equals(PACKED.empty_table())


def test_examine_is_what_packing_in_place_says(tmp_path: Path, folder: Path) -> None:
    table = pack([str(folder)], found_in(folder, "3.jpg"), tmp_path, ANY, workers=InProcess())
    assert table["phash"][0].as_py() == examine((folder / "3.jpg").read_bytes()).phash
