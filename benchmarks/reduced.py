"""What decoding for a model costs, by library, and what reducing does to the scores.

    python benchmarks/reduced.py [--side 448] [--model MODEL --pictures DIR]

Prints (a) ms a picture of 1500×2000 from JPEG, PNG, WebP and AVIF to a model's square input, by the ways that are
installed (efuda's own is Pillow; simplejpeg, OpenCV and imagecodecs are what it might use instead), and (b) with a
model and a folder of pictures, how far the scores of a JPEG decoded at a fraction are from those of the whole one, for
several limits of `reduce_to`, and what writing the JPEG did to them in the first place: single pictures, sheets of
four, which are larger, and pictures of the demo drawn that large (their kind is the one that the demo's model knows).
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from images import draw
from PIL import Image

from efuda.images import find_pictures, read_rgb
from efuda.preprocess import Preprocess
from efuda.tagging import Tagger

SIZE = (1500, 2000)
ROUNDS = 12
SHEETS = 25
DRAWN = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=448)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--pictures", type=Path, default=None)
    options = parser.parse_args()
    compare_libraries(options.side)
    if options.model and options.pictures:
        compare_scores(Tagger.open(options.model), list(find_pictures([options.pictures])))
    else:
        print("\nNo --model and --pictures: scores are not compared.")


# (a) libraries


def compare_libraries(side: int) -> None:
    picture, preprocess = draw(0, SIZE), Preprocess(size=side)
    kinds: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 90},
        "PNG": {},
        "WEBP": {"quality": 85},
        "AVIF": {"speed": 8},
    }
    for kind, settings in kinds.items():
        data = encoded(picture, kind, **settings)
        print(f"\n{kind} {SIZE[0]}×{SIZE[1]}, {len(data) // 1000:,} kB: ms a picture")
        for name, step in ways(kind, data, preprocess):
            print(f"  {name:44} {milliseconds(step):7.1f}")


def ways(kind: str, data: bytes, preprocess: Preprocess) -> Iterator[tuple[str, Callable[[], Any]]]:
    side = preprocess.size
    yield "read_rgb", lambda: read_rgb(data)
    yield f"read_rgb and {side}×{side}", lambda: preprocess.square(read_rgb(data))
    if kind == "JPEG":
        for times in (2, 3, 4):
            most = times * side
            yield f"read_rgb to {times} × {side}", lambda most=most: read_rgb(data, reduce_to=most)
            yield (
                f"read_rgb to {times} × {side} and {side}×{side}",
                lambda most=most: preprocess.square(read_rgb(data, reduce_to=most)),
            )
        with suppress(ImportError):
            import simplejpeg

            def scaled() -> Any:
                most = {"min_height": 2 * side, "min_width": 2 * side * SIZE[0] // SIZE[1], "min_factor": 1}
                return simplejpeg.decode_jpeg(data, "RGB", **most)

            yield "simplejpeg whole", lambda: simplejpeg.decode_jpeg(data, "RGB")
            yield f"simplejpeg to 2 × {side}", scaled
            yield f"the same and {side}×{side}, Pillow", lambda: preprocess.square(Image.fromarray(scaled()))
            with suppress(ImportError):
                import cv2

                shape = (side * SIZE[0] // SIZE[1], side)
                area = cv2.INTER_AREA
                yield (
                    "the same and OpenCV, by area, not padded",
                    lambda: cv2.resize(scaled(), shape, interpolation=area),
                )
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)
        yield "OpenCV whole", lambda: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    with suppress(ImportError):
        import imagecodecs

        names = {"JPEG": ["jpeg8"], "PNG": ["png", "spng"], "WEBP": ["webp"], "AVIF": ["avif"]}[kind]
        for name in names:
            decode = getattr(imagecodecs, f"{name}_decode")
            yield f"imagecodecs {name}, whole", lambda decode=decode: decode(data)


def milliseconds(step: Callable[[], Any]) -> float:
    """Processor time, the least of some runs."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        step()
        times.append(time.process_time() - began)
    return min(times) * 1000


# (b) scores


def compare_scores(tagger: Tagger, paths: Sequence[Path]) -> None:
    chance, side = random.Random(0), tagger.preprocess.size
    single = [read_rgb(path) for path in paths]
    sheets = [sheet(chance.sample(single, 4)) for _ in range(SHEETS)]
    sets = {f"{len(single)} pictures": single, f"{SHEETS} sheets of four": sheets, f"{DRAWN} drawn": drawn(DRAWN)}
    for name, pictures in sets.items():
        print(f"\n{name}, a model of {side}×{side}: how far the most changed score of each is")
        written = [encoded(picture, "JPEG", quality=92) for picture in pictures]
        whole = [scores(tagger, read_rgb(data)) for data in written]
        report(
            "JPEG of quality 92 beside the original",
            [far(one, scores(tagger, picture)) for one, picture in zip(whole, pictures, strict=True)],
        )
        for times in (1, 2, 3, 4, 6, 8):
            read = [read_rgb(data, reduce_to=times * side) for data in written]
            report(
                f"reduced, to {times} × {side} at least",
                [
                    far(one, scores(tagger, small))
                    for one, small, picture in zip(whole, read, pictures, strict=True)
                    if small.size != picture.size
                ],
            )


def scores(tagger: Tagger, picture: Image.Image) -> Any:
    return tagger.scores(tagger.preprocess.array(picture)[None])[0]


def far(one: Any, other: Any) -> float:
    return float(np.abs(one - other).max())


def report(name: str, gaps: Sequence[float]) -> None:
    if gaps:
        told = f"median {np.median(gaps):.4f}, most {max(gaps):.4f}, above 0.01: {sum(gap > 0.01 for gap in gaps)}"
        print(f"  {name:40} {len(gaps):3} pictures, {told}")


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    width, height = (max(sides) for sides in zip(*(picture.size for picture in pictures), strict=True))
    whole = Image.new("RGB", (2 * width, 2 * height), "white")
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number % 2 * width, number // 2 * height))
    return whole


def drawn(count: int) -> list[Image.Image]:
    """Scenes of the demo, 2 to 6 MP, of the shapes that illustrations have."""
    from efuda.demo.pictures import paint
    from efuda.demo.scenes import draw_scene
    from efuda.demo.styles import catalogue

    pictures = []
    for number in range(count):
        chance = random.Random(number)
        pixels, aspect = chance.uniform(2e6, 6e6), chance.uniform(0.6, 1.7)
        width, height = round((pixels * aspect) ** 0.5), round((pixels / aspect) ** 0.5)
        scene, _ = paint(draw_scene(catalogue(), chance, str(number)), max(width, height))
        left, top = (scene.width - width) // 2, (scene.height - height) // 2
        pictures.append(scene.convert("RGB").crop((left, top, left + width, top + height)))
    return pictures


def encoded(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
