"""What becomes of awkward, damaged and malicious files: each must be a picture or a named reason, whatever it does.

    python benchmarks/decoders.py [--folder DIR] [--mutations 2000] [--drawn 2000] [--seconds 20] [--pipeline | --large]

Reads every file of a folder and mutations of them, and mutations of files drawn here in every format (videos and
archives included), as a tagging worker does: in a process with a memory limit, which is ended when a file takes too
long. Prints what became of them, the slowest, and whatever crashed or hung, which must be nothing. `--pipeline` writes
them to files and tags these as `efuda tag` does, with a network that does next to nothing, and also wants an answer
for every one of them. `--large` decodes pictures of 441 MP instead and prints what they need. Ends with an error where
something crashed, hung or raised anything but ImageError.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from efuda.errors import ImageError
from efuda.images import DECODING_MEMORY, find_pictures, limit_this_process, read_bytes, read_frames
from efuda.tagging import Failed, Looking, Tagger, tag
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

FRAMES = 3
BAD = {"the decoder crashed": "crash", "decoding took": "hang"}  # what `Decoders` says of these
Answer = tuple[str, str, float, float]  # outcome, reason, seconds, most memory of the process so far in MB


@dataclass(frozen=True)
class Job:
    """A file, or bytes, and how it is damaged: not at all by 0."""

    name: str
    data: bytes
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="awkward files, any depth")
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--drawn", type=int, default=2000, help="mutations of files drawn here")
    parser.add_argument("--seconds", type=float, default=20.0, help="what a file may take")
    parser.add_argument("--memory", type=int, default=DECODING_MEMORY, help="what a worker may have, in bytes")
    parser.add_argument("--pipeline", action="store_true", help="all the way, as efuda tag does")
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    if options.large:
        measure_large(options.memory)
        return
    attack = attack_pipeline if options.pipeline else attack_decoders
    bad = 0
    if options.folder:
        files = [Job(str(path), path.read_bytes(), 0) for path in sorted(options.folder.rglob("*")) if path.is_file()]
        bad += attack(f"{len(files)} files", files, options, show=True)
        mutants = [Job(files[n % len(files)].name, files[n % len(files)].data, n + 1) for n in range(options.mutations)]
        bad += attack(f"{len(mutants):,} mutations of them", mutants, options)
    else:
        print("No folder of awkward files was given (--folder): only files drawn here.")
    drawn = [Job(name, data, 0) for name, data in drawn_files().items()]
    bad += attack(f"{len(drawn)} drawn files", drawn, options, show=True)
    mutants = [Job(drawn[n % len(drawn)].name, drawn[n % len(drawn)].data, n + 1) for n in range(options.drawn)]
    bad += attack(f"{len(mutants):,} mutations of drawn files", mutants, options)
    sys.exit(bad > 0)


def attack_decoders(title: str, jobs: list[Job], options: argparse.Namespace, *, show: bool = False) -> int:
    """How many did not end well."""
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    slowest: list[tuple[float, str]] = []
    most = 0.0
    with Worker(options.memory) as worker:
        for job in jobs:
            outcome, reason, seconds, memory = worker.read(job, options.seconds)
            most = max(most, memory)
            outcomes[outcome] += 1
            reasons[reason] += outcome == "reason"
            slowest.append((seconds, job.name))
            if outcome not in ("picture", "reason"):
                print(f"  {outcome.upper()}: {job.name} seed {job.seed}: {reason}")
            elif show:
                print(f"  {Path(job.name).name[:60]:60} {reason}")
    print(f"{title}: {dict(outcomes)}, most memory of a worker {most:,.0f} MB")
    for reason, count in reasons.most_common(12):
        if count:
            print(f"  {count:6,} {reason}")
    print("  slowest:", ", ".join(f"{Path(name).name} {took:.2f} s" for took, name in sorted(slowest)[-3:]))
    return sum(count for outcome, count in outcomes.items() if outcome not in ("picture", "reason"))


def attack_pipeline(title: str, jobs: list[Job], options: argparse.Namespace, *, show: bool = False) -> int:
    """How many crashed or hung their process, or were not answered for."""
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tagger = Tagger.open(tiny_model(folder / "model"), threads=1)
        files: dict[Path, Job] = {}
        for number, job in enumerate(jobs):
            path = folder / "in" / f"{number:06}{Path(job.name).suffix}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(mutated(job.data, job.seed))
            files[path] = job
        left_out: list[str] = []
        paths: list[Path] = []
        for path in files:
            found = list(find_pictures([path], skipped=lambda _, reason: left_out.append(reason)))
            paths += found  # the pages of an archive; else the file, whatever its name
        looking = Looking(tagger.preprocess, frames=FRAMES, memory=options.memory, seconds=options.seconds)
        began = time.perf_counter()
        answered: list[Path] = []
        for result in tag(tagger, paths, looking=looking, scores=folder / "scores"):
            answered.append(result.path)
            job = files.get(result.path) or files[result.path.parent]
            reason = result.reason if isinstance(result, Failed) else ""
            outcome = next(
                (kind for word, kind in BAD.items() if reason.startswith(word)), "reason" if reason else "tagged"
            )
            outcomes[outcome] += 1
            reasons[reason] += outcome == "reason"
            if outcome in BAD.values():
                print(f"  {outcome.upper()}: {job.name} seed {job.seed}: {reason}")
            elif show:
                print(f"  {Path(job.name).name[:60]:60} {reason}")
        seconds = time.perf_counter() - began
    lost = len(paths) - len(answered) if answered == paths[: len(answered)] else len(paths)
    told = f"{dict(outcomes)}, {len(left_out)} left out of archives, {lost} unanswered"
    print(f"{title}: {told}, {seconds:.1f} s, memory of this process {most_memory():,.0f} MB")
    for reason, count in (reasons + Counter(left_out)).most_common(20):
        print(f"  {count:6,} {reason}")
    return lost + sum(outcomes[kind] for kind in BAD.values())


def tiny_model(root: Path) -> Path:
    """A directory of the WD family whose scores are the mean colours."""
    root.mkdir()
    tags = Vocabulary([*(Tag(name, Category.RATING) for name in RATINGS), Tag("blue"), Tag("green"), Tag("red")])
    tags.write_csv(root / "selected_tags.csv")
    weights = np.zeros((3, len(tags)), np.float32)
    weights[0, 4] = weights[1, 5] = weights[2, 6] = 1 / 255
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input"], ["means"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["means", "weights"], ["output"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 448, 448, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", len(tags)])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), root / "model.onnx")
    return root


def mutated(data: bytes, seed: int) -> bytes:
    """Bytes changed, cut out, doubled, or the end cut off, mostly near the beginning, where headers are."""
    if seed == 0:
        return data
    chance, changed = random.Random(seed), bytearray(data)

    def place() -> int:
        near = min(len(changed), 256) if chance.random() < 0.5 else len(changed)
        return chance.randrange(max(1, near))

    for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
        if not changed:
            break
        kind, at = chance.randrange(8), place()
        if kind < 4:
            changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 4:
            changed[at : at + 4] = chance.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\xff\xff")
            )
        elif kind == 5:
            del changed[at : at + chance.randrange(1, 64)]
        elif kind == 6:
            changed[at:at] = changed[at : at + chance.randrange(1, 256)]
        elif chance.random() < 0.3:
            del changed[at:]
    return bytes(changed)


class Worker:
    """One process that reads what it is given, started anew when it dies or has to be ended."""

    def __init__(self, memory: int) -> None:
        self.memory, self._process, self._pipe = memory, None, None  # type: ignore[assignment]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, job: Job, seconds: float) -> Answer:
        if self._process is None:
            self._start()
        began = time.perf_counter()
        try:
            self._pipe.send(job)
            if self._pipe.poll(seconds):
                answer: Answer = self._pipe.recv()
                return answer
            outcome = "hang"
        except (EOFError, OSError):
            outcome = "crash"
        return outcome, f"exit code {self._end()}", time.perf_counter() - began, 0.0

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process: Any = context.Process(target=serve, args=(theirs, self.memory), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == "ready"

    def _end(self) -> int | None:
        if self._process is None:
            return None
        self._pipe.close()
        self._process.join(1)
        self._process.kill()
        self._process.join()
        code: int | None = self._process.exitcode
        self._process = None
        return code


def serve(pipe: Connection, memory: int) -> None:
    limit_this_process(memory)
    pipe.send("ready")
    with suppress(EOFError):
        while True:
            job: Job = pipe.recv()
            pipe.send(judged(mutated(job.data, job.seed), job.name))


def judged(data: bytes, name: str) -> Answer:
    began = time.perf_counter()
    try:
        if name.endswith(".zip"):
            frames = [frame for member in zipped(data) for frame in read_frames(read_bytes(member))]
        else:
            frames = read_frames(data, count=FRAMES)
        outcome, reason = "picture", " ".join(f"{frame.width}×{frame.height}" for frame in frames)
        assert all(frame.mode == "RGB" for frame in frames)
    except ImageError as error:
        outcome, reason = "reason", error.reason
    except BaseException as error:
        outcome, reason = "exception", repr(error)[:200]
    return outcome, reason, time.perf_counter() - began, most_memory()


def zipped(data: bytes) -> Iterator[Path]:
    """The members of an archive, which is a file."""
    path = Path(f"/tmp/efuda-attack-{multiprocessing.current_process().pid}.zip")
    path.write_bytes(data)
    skipped: list[str] = []
    yield from find_pictures([path], skipped=lambda _, reason: skipped.append(reason))
    if skipped:
        raise ImageError(skipped[0])


# Files


def drawn_files() -> dict[str, bytes]:
    """One small file a format and mode, of those that this machine can write."""
    rng = np.random.default_rng(0)
    soft = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((97, 83), Image.Resampling.BICUBIC)
    turned = [soft, soft.rotate(90), soft.rotate(180)]
    files: dict[str, bytes] = {}

    def add(name: str, picture: Image.Image, kind: str, **options: Any) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        files[name] = buffer.getvalue()

    moving: dict[str, Any] = {"save_all": True, "append_images": turned[1:], "duration": 100}
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        add("plain.heic", soft, "HEIF")
        add("alpha.heic", soft.convert("RGBA"), "HEIF")
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401

        add("plain.jxl", soft, "JXL")
        add("alpha.jxl", soft.convert("RGBA"), "JXL", use_container=True)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        add(f"plain.{kind.lower()}", soft, kind)
    for kind in ("PNG", "WEBP", "AVIF", "GIF"):
        add(f"moving.{kind.lower()}", turned[0], kind, **moving)
    add("progressive.jpg", soft, "JPEG", progressive=True)
    add("cmyk.jpg", soft.convert("CMYK"), "JPEG")
    add("palette.png", soft.convert("P"), "PNG", transparency=3)
    add("deep.png", soft.convert("I;16"), "PNG")
    add("lossless.webp", soft.convert("RGBA"), "WEBP", lossless=True)
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        add(f"{compression}.tif", soft, "TIFF", compression=compression)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("plain.jpeg", "moving.png", "alpha.png"):
            archive.writestr(name, files.get(name, files["plain.png"]))
    files["pages.zip"] = buffer.getvalue()
    with suppress(ImportError):
        files |= {name: video(turned, name, codec) for name, codec in VIDEOS.items()}
    return files


VIDEOS = {"a.mp4": "mpeg4", "b.webm": "libvpx", "c.mkv": "mpeg4", "d.avi": "mpeg4", "e.mpg": "mpeg1video"}


def video(pictures: list[Image.Image], name: str, codec: str) -> bytes:
    import av

    buffer = io.BytesIO()
    kind = {"mkv": "matroska", "mpg": "mpeg"}.get(name[2:], name[2:])
    with av.open(buffer, "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_image(pictures[number // 10].resize((96, 80)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


# What the largest pictures need


def measure_large(memory: int) -> None:
    """Each in a process of its own, so that its peak is its own."""
    for name, make in LARGE.items():
        data = make()
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(target=weigh, args=(theirs, memory))
        process.start()
        mine.send(data)
        with suppress(EOFError):
            told, used, seconds = mine.recv()
            print(f"{name:28} {len(data) / 1e6:6.1f} MB  {told:34} {used:6,.0f} MB  {seconds:6.1f} s", flush=True)
        process.join()


def weigh(pipe: Connection, memory: int) -> None:
    limit_this_process(memory)
    outcome = judged(pipe.recv(), "")  # the first frame is all there is
    pipe.send((f"{outcome[0]} {outcome[1]}", outcome[3], outcome[2]))


def most_memory() -> float:
    """MB of this process since it is itself; `getrusage` also counts what its parent had when it was started."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def flat(mode: str, colour: Any, size: tuple[int, int], kind: str, **options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, size, colour).save(buffer, kind, **options)
        return buffer.getvalue()

    return make


FULL, WEBP, AVIF = (21_000, 21_000), (16_383, 16_383), (16_384, 16_384)
LARGE: dict[str, Callable[[], bytes]] = {
    "JPEG, 441 MP": flat("RGB", (200, 30, 90), FULL, "JPEG"),
    "JPEG progressive, 441 MP": flat("RGB", (200, 30, 90), FULL, "JPEG", progressive=True),
    "PNG, 441 MP": flat("RGB", (200, 30, 90), FULL, "PNG", compress_level=1),
    "PNG with alpha, 441 MP": flat("RGBA", (200, 30, 90, 128), FULL, "PNG", compress_level=1),
    "PNG palette, 441 MP": flat("P", 3, FULL, "PNG", compress_level=1),
    "PNG 16-bit grey, 441 MP": flat("I;16", 30_000, FULL, "PNG", compress_level=1),
    "JPEG CMYK, 441 MP": flat("CMYK", (200, 30, 90, 10), FULL, "JPEG"),
    "GIF, 441 MP": flat("P", 3, FULL, "GIF"),
    "TIFF LZW, 441 MP": flat("RGB", (200, 30, 90), FULL, "TIFF", compression="tiff_lzw"),
    "WebP with alpha, 268 MP": flat("RGBA", (200, 30, 90, 128), WEBP, "WEBP", lossless=True, method=0),
    "AVIF, 268 MP": flat("RGB", (200, 30, 90), AVIF, "AVIF", speed=10),
}


if __name__ == "__main__":
    main()
