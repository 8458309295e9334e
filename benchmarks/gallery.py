"""The gallery in a real Chromium on a large collection: how soon the first picture is there, and how long frames take.

    python benchmarks/gallery.py [--pictures 100000] [--work DIR]

The collection is written straight into its file: 30 tags a picture of 2,000 by a falling frequency, drawn thumbnails of
320 pixels, each shared by many pictures. `efuda serve` runs as its own process, the browser beside it on the same
machine. A visit begins with an empty cache. Scrolling goes 60 pixels a frame as one reads, then 1,500 pixels a frame
through the whole collection, then the bar is dragged; a frame's time is that from one animation frame to the next.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import apsw
import numpy as np
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright

from efuda.collection import Collection
from efuda.collection.record import Writing
from efuda.vocabulary import Category

TAGS, A_PICTURE, THUMBS, VISITS = 2_000, 30, 300, 5
SIZES = [(1000, 1400), (1200, 900), (1000, 1000), (900, 1300), (1600, 900), (800, 1200)]
SCROLL = """async ([step, frames, settle]) => {
  const port = document.getElementById("port"), times = [];
  let cells = 0, last = await new Promise(requestAnimationFrame);
  for (let i = 0; i < frames && port.scrollTop + port.clientHeight < port.scrollHeight; i += 1) {
    port.scrollTop = step > 0 ? port.scrollTop + step : (port.scrollHeight * i) / frames;
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
    cells = Math.max(cells, document.querySelectorAll(".cell").length);
  }
  await new Promise((done) => setTimeout(done, settle));
  return { times, cells, last: [...document.querySelectorAll(".cell a")].at(-1).getAttribute("aria-label") };
}"""


def build(path: Path, count: int) -> None:
    """A collection of so many pictures whose files are not there, with thumbnails."""
    rng = np.random.default_rng(5)
    weights = 1 / (np.arange(TAGS) + 3) ** 0.85
    with Collection.open(path, create=True) as collection, collection.record.write(durable=False) as writing:
        source = writing.source("model", "drawn@1", "drawn")
        operation = writing.operation("add", source, f"added {count} pictures")
        rating = writing.tag("rating:general", Category.RATING)
        kinds = [Category.GENERAL] * 6 + [Category.CHARACTER, Category.ARTIST, Category.COPYRIGHT]
        tags = np.array([writing.tag(f"tag_{number:04}", kinds[number % len(kinds)]) for number in range(TAGS)])
        chosen = rng.choice(tags, (count, A_PICTURE * 2), p=weights / weights.sum())
        for number in range(1, count + 1):
            _add(writing, number, source, operation, [rating, *np.unique(chosen[number - 1])[:A_PICTURE].tolist()])
        writing.touch(range(1, count + 1))
    _thumbnails(path, count)


def _add(writing: Writing, number: int, source: int, operation: int, tags: list[int]) -> None:
    width, height = SIZES[number % len(SIZES)]
    moment = "2026-01-01T00:00:00Z"
    writing.db.execute(
        "INSERT INTO pictures (id, sha256, bytes, filetype, width, height, added, date, revision) "
        "VALUES (?, ?, 100000, 'jpg', ?, ?, ?, ?, 0)",
        (number, _sha(number), width, height, moment, moment),
    )
    writing.db.execute("INSERT INTO files VALUES (?, ?, 1, NULL)", (f"/nowhere/{number}.jpg", number))
    scores = np.array([tag << 9 | 1 << 8 | 230 for tag in sorted(tags)], "<u4").tobytes()
    writing.db.execute(
        "INSERT INTO taggings (picture, source, at, operation, scores) VALUES (?, ?, ?, ?, ?)",
        (number, source, moment, operation, scores),
    )


def _sha(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def _thumbnails(path: Path, count: int) -> None:
    with Collection.open(path) as collection:  # makes the file of thumbnails
        try:
            collection.thumbnail(1)
        except Exception as error:
            print(f"  (as expected: {error})")
    made = [_thumbnail(random.Random(number), SIZES[number % len(SIZES)]) for number in range(THUMBS)]
    db = apsw.Connection(f"{path}.thumbs")
    with db:
        rows = ((n, _sha(n)[:8], 1, made[n % THUMBS // 6 * 6 + n % 6]) for n in range(1, count + 1))
        db.executemany("REPLACE INTO thumbs VALUES (?, ?, ?, ?, NULL)", rows)
    db.close()


def _thumbnail(rng: random.Random, size: tuple[int, int]) -> bytes:
    scale = 320 / max(size)
    picture = Image.new("RGB", (round(size[0] * scale), round(size[1] * scale)), _colour(rng))
    pen = ImageDraw.Draw(picture)
    for _ in range(24):
        x, y, r = rng.randint(0, picture.width), rng.randint(0, picture.height), rng.randint(8, 90)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=_colour(rng))
    out = BytesIO()
    picture.save(out, "WEBP", quality=80)
    return out.getvalue()


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(30, 250), rng.randint(30, 250), rng.randint(30, 250)


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """`efuda serve` as its own process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "efuda", "serve", str(path), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/api/search?limit=1").read()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def visit(browser: Browser, url: str) -> tuple[Page, float]:
    """A visit with an empty cache, and the milliseconds until the first picture is drawn."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.goto(url)
    page.wait_for_selector(".cell img.here")
    return page, float(page.evaluate("performance.now()"))


def report(name: str, scrolled: dict[str, Any]) -> None:
    times = sorted(scrolled["times"])
    late = sum(time > 50.5 for time in times)  # of 60 frames a second, a frame takes 16.7, 33.3 or 50.0
    print(
        f"{name:28} {len(times):5} frames, median {statistics.median(times):.1f} ms, "
        f"99 % {times[len(times) * 99 // 100]:.1f} ms, longest {times[-1]:.1f} ms, "
        f"over 50 ms {late}, at most {scrolled['cells']} cells; {scrolled['last']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp())
    path = work / f"gallery-{options.pictures}.efuda"
    if not path.exists():
        begun = time.perf_counter()
        work.mkdir(parents=True, exist_ok=True)
        build(path, options.pictures)
        print(f"built in {time.perf_counter() - begun:.0f} s")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with serving(path) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        visit(browser, url)[0].context.close()
        firsts = []
        for _ in range(VISITS):
            page, first = visit(browser, url)
            firsts.append(first)
            page.context.close()
        print(f"first picture, {VISITS} visits: {', '.join(f'{one:.0f}' for one in sorted(firsts))} ms")
        page = visit(browser, url)[0]
        page.wait_for_timeout(1000)
        report("60 pixels a frame", page.evaluate(SCROLL, [60, 600, 500]))
        report("1,500 pixels a frame, to the end", page.evaluate(SCROLL, [1500, 100_000, 500]))
        page.evaluate("document.getElementById('port').scrollTop = 0")
        page.wait_for_timeout(500)
        report("the bar dragged", page.evaluate(SCROLL, [0, 300, 500]))
        browser.close()


if __name__ == "__main__":
    main()
