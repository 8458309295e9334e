"""The image stage of `efuda prepare` against bare decoders, over the same drawn files in the same run.

    python benchmarks/images.py [--files 5000] [--many 100000]
    python benchmarks/images.py --decoders DIR        # what becomes of each file of a folder, instead

Prints (a) what decoders cost and whether they give Pillow's pixels, (b) pictures a second of the stage (in place,
copied to shards as they are, resized to 448) as a part of cores × a bare loop of the fastest exact decoder (target
0.85), and the same in processor time, which holds on a busy machine too, (c) the peak memory of the stage.
The drawn files have the size of Danbooru2021's (512×512, about 100 kB). simplejpeg, OpenCV, torchvision and pyvips
are measured where they are installed; efuda itself decodes with Pillow.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
from PIL import Image, ImageDraw

from efuda.datasets.locating import FOUND
from efuda.datasets.packing import pack
from efuda.errors import ImageError
from efuda.images import examine, is_single_colour, phash, read_rgb
from efuda.recipes import ImagesRecipe
from efuda.workers import InProcess, LocalWorkers, Workers

IN_PLACE = ImagesRecipe(exact_size=512)
COPIES = ImagesRecipe(exact_size=512, pack=512)
SMALLER = ImagesRecipe(exact_size=512, pack=448)
RECIPES = {"in place": IN_PLACE, "copied": COPIES, "resized": SMALLER}
TARGET = 0.85
DISTINCT = 250
ROUNDS = 3
Decode = Callable[[bytes], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--many", type=int, default=None, help="measure memory at so many pictures too")
    parser.add_argument("--decoders", type=Path, default=None)
    parser.add_argument("--memory-of", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decoders:
        judge(options.decoders)
    elif options.memory_of:
        measure_memory(Path(options.memory_of[0]), int(options.memory_of[1]))
    else:
        fastest = compare_decoders()
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root, "512px")
            write_files(folder, options.files)
            compare_stage(folder, options.files, fastest)
            for number in filter(None, (options.files, options.many)):
                write_files(folder, number)
                subprocess.run([sys.executable, __file__, "--memory-of", str(folder), str(number)], check=True)


# (a) decoders


def compare_decoders() -> str:
    """Print the table; return the name of the fastest at 512×512 whose pixels are Pillow's."""
    exact: dict[str, float] = {}
    for size, count, options in (
        ((512, 512), 40, {"quality": 90}),
        ((512, 512), 40, {"quality": 90, "progressive": True}),
        ((1500, 2000), 6, {"quality": 90}),
    ):
        files = [encode(draw(number, size), **options) for number in range(count)]
        kind = "progressive" if options.get("progressive") else "baseline"
        print(f"\n{size[0]}×{size[1]} {kind}, {sum(map(len, files)) // count // 1000} kB: ms a picture, pixels")
        for name, decode in decoders().items():
            cost = seconds(lambda decode=decode, files=files: [decode(data) for data in files]) / count * 1000
            same = np.array_equal(as_array(decode(files[0])), np.asarray(pillow(files[0])))
            print(f"  {name:24} {cost:8.2f}  {'as Pillow' if same else 'other'}")
            if same and not exact.get(name):
                exact[name] = cost
    parts(encode(draw(0, (512, 512)), quality=90))
    fastest = min(exact, key=lambda name: exact[name])
    print(f"\nfastest with Pillow's pixels at 512×512: {fastest}")
    return fastest


def decoders() -> dict[str, Decode]:
    """Those that are installed, each from bytes to RGB."""
    known: dict[str, Decode] = {"Pillow": pillow, "Pillow draft, half size": pillow_draft}
    with suppress(ImportError):
        import simplejpeg

        known["simplejpeg"] = partial(simplejpeg.decode_jpeg, colorspace="RGB", strict=True)
        known["simplejpeg to Pillow"] = lambda data: Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", strict=True))
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        known["OpenCV"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    with suppress(ImportError):
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        torch.set_num_threads(1)
        known["torchvision decode_jpeg"] = lambda data: decode_jpeg(
            torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB
        )
    with suppress(ImportError, OSError):
        import pyvips

        known["pyvips"] = lambda data: pyvips.Image.new_from_buffer(data, "", access="sequential").numpy()
    return known


def pillow(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data), formats=("JPEG",))
    picture.load()
    return picture


def pillow_draft(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data), formats=("JPEG",))
    picture.draft("RGB", (picture.width // 2, picture.height // 2))
    picture.load()
    return picture


def as_array(decoded: Any) -> Any:
    array = np.asarray(decoded)
    return array.transpose(1, 2, 0) if array.shape[0] == 3 else array


def parts(data: bytes) -> None:
    """What the stage does to one picture beside."""
    import hashlib

    picture = read_rgb(data)
    print("\nparts of the stage, 512×512 baseline: ms a picture")
    steps: dict[str, Callable[[], Any]] = {
        "read_rgb": lambda: read_rgb(data),
        "examine": lambda: examine(data),
        "phash of RGB": lambda: phash(picture),
        "is_single_colour": lambda: is_single_colour(picture),
        "md5": lambda: hashlib.md5(data).digest(),
    }
    for name, step in steps.items():
        print(f"  {name:24} {seconds(lambda step=step: [step() for _ in range(40)]) / 40 * 1000:8.3f}")


# (b) the stage


def compare_stage(folder: Path, count: int, fastest: str) -> None:
    cores = os.cpu_count() or 1
    files = [str(path) for path in sorted(folder.rglob("*.jpg"))][:count]
    decode = decoders()[fastest]
    rates: dict[str, list[float]] = {"bare": [], **{name: [] for name in RECIPES}}
    with LocalWorkers() as workers, tempfile.TemporaryDirectory() as out:
        run_stage(folder, count, Path(out, "warm"), IN_PLACE, workers)  # the processes are started before the clock is
        for number in range(ROUNDS):
            rates["bare"].append(rate(partial(bare_loop, files, decode), count))
            for name, recipe in RECIPES.items():
                where = Path(out, f"{name}{number}")
                rates[name].append(rate(partial(run_stage, folder, count, where, recipe, workers), count))
            again = rate(partial(run_stage, folder, count, where, SMALLER, workers), count)
    bare = statistics.median(rates["bare"])
    print(f"\n{count:,} files, {cores} cores, median of {ROUNDS} (least to most): pictures a second")
    print(f"  bare {fastest}, one process  {spread(rates['bare'])}")
    for name in RECIPES:
        part = statistics.median(rates[name]) / bare / cores
        verdict = f"(target {TARGET})" if name == "in place" else ""
        print(f"  stage, {name:10}           {spread(rates[name])}   {part:.2f} × cores × bare {verdict}")
    print(f"  stage, nothing changed      {again:8,.0f}")
    compare_processor_time(folder, min(count, 1000), files, decode)


def compare_processor_time(folder: Path, count: int, files: Sequence[str], decode: Decode) -> None:
    bare = seconds(lambda: bare_loop(files[:count], decode)) / count
    print(f"\nprocessor time, {count:,} files in one process: ms a picture\n  bare            {bare * 1000:8.3f}")
    for name, recipe in RECIPES.items():
        with tempfile.TemporaryDirectory() as out:
            fresh = (Path(out, str(number)) for number in range(ROUNDS))
            once = partial(run_anew, folder, count, fresh, recipe)
            cost = seconds(once) / count
        print(f"  stage, {name:10}{cost * 1000:7.3f}   {bare / cost:.2f} × bare")


def run_anew(folder: Path, count: int, places: Iterator[Path], recipe: ImagesRecipe) -> None:
    run_stage(folder, count, next(places), recipe, InProcess())


def run_stage(folder: Path, count: int, out: Path, recipe: ImagesRecipe, workers: Workers) -> None:
    table = pack([str(folder)], found_in(folder, count), out, recipe, workers=workers)
    assert len(table) == count and not any(table["reason"].to_pylist())


def bare_loop(files: Sequence[str], decode: Decode) -> None:
    for path in files:
        with open(path, "rb") as file:  # noqa: PTH123 - as few steps as can be
            decode(file.read())


# (c) memory


def measure_memory(folder: Path, count: int) -> None:
    with LocalWorkers() as workers, tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        run_stage(folder, count, Path(out), COPIES, workers)
        took = time.perf_counter() - began
        cores = workers.count
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"memory at {count:>9,}: parent {own:5.0f} MB + {cores} × {worker:4.0f} MB, "
        f"with copies, {count / took:,.0f} pictures a second"
    )


# Files


def draw(number: int, size: tuple[int, int]) -> Image.Image:
    """Soft grounds, outlined shapes and a little noise."""
    rng = np.random.default_rng(number)
    width, height = size
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(40):
        x, y, side = (int(value) for value in rng.integers((0, 0, 5), (width, height, width // 4)))
        pen.ellipse((x, y, x + side, y + side // 2), fill=tuple(rng.integers(0, 256, 3).tolist()), outline="black")
    grained = np.asarray(picture) + rng.normal(0, 5, (height, width, 1))
    return Image.fromarray(grained.clip(0, 255).astype(np.uint8))


def encode(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def write_files(folder: Path, count: int) -> None:
    """`count` names for some distinct pictures; more are added where there are fewer."""
    for number in range(count):
        path = picture_path(folder, number)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < DISTINCT:
            path.write_bytes(encode(draw(number, (512, 512)), quality=90))
        else:
            os.link(picture_path(folder, number % DISTINCT), path)


def picture_path(folder: Path, number: int) -> Path:
    return folder / f"{number % 1000:04d}" / f"{number}.jpg"


@cache
def found_in(folder: Path, count: int) -> Any:
    paths = [picture_path(folder, number) for number in range(count)]
    sizes = [path.stat().st_size for path in paths]
    names = [str(path.relative_to(folder)) for path in paths]
    return arrow.table([list(range(count)), names, sizes, ["0"] * count], schema=FOUND)


# What becomes of awkward files


def judge(folder: Path) -> None:
    """A table; ends with an error where a file is neither a picture nor a named rejection, or gives a warning."""
    outcomes = {True: 0, False: 0}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        told = "; ".join(verdicts(path))
        outcomes[told.startswith("RGB")] += 1
        print(f"{path.relative_to(folder)!s:70} {told}")
    print(f"\n{outcomes[True]} pictures, {outcomes[False]} rejections, no other exception, no warning")


def verdicts(path: Path) -> Iterator[str]:
    data = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            picture = read_rgb(data)
        except ImageError as error:
            yield error.reason
            assert refused(data) == error.reason
            return
        seen = examine(data)
    assert picture.mode == "RGB" and picture.size == (seen.width, seen.height)
    assert seen.single_colour == is_single_colour(picture)
    yield f"RGB {seen.width}×{seen.height}"
    if seen.single_colour:
        yield "a single colour"
    if different := (seen.phash ^ phash(picture)).bit_count():
        yield f"hashes differ in {different} bits"


def refused(data: bytes) -> str:
    try:
        examine(data)
    except ImageError as error:
        return error.reason
    return ""


def seconds(step: Callable[[], Any]) -> float:
    """Processor time, the least of some runs."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        step()
        times.append(time.process_time() - began)
    return min(times)


def rate(step: Callable[[], Any], count: int) -> float:
    began = time.perf_counter()
    step()
    return count / (time.perf_counter() - began)


def spread(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):8,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


if __name__ == "__main__":
    main()
