"""How long searching a large collection takes, beside an inverted SQLite table, FTS5 and DuckDB on the same data.

    python benchmarks/search.py [--pictures 1000000] [--work DIR] [--queries 2000] [--peer-queries 20] [--no-peers]

A collection is made once in DIR and kept there: pictures with 30 tags of 10,000 each, in the shares of a real tag list,
eight more that the model guesses without standing by them, and four ratings (from the second million on the tags of the
first again, and without the others). Searches are drawn from it: one to five
terms that some picture has together, every third with an `or`, every fourth with a `-`. Each is answered with the exact
count and the newest 60, and so it is by the others, which are checked to find the same. efuda runs in a fresh process:
from the snapshot, in one thread, nothing warmed up but what starting warms up. Beside the time that passed stands what
the thread itself computed, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import apsw
import duckdb
import numpy as np
from generate import TAG_LIST, find_tags
from numpy.typing import NDArray
from processes import watch
from taglist import CATEGORIES, Drawer, TagList, draw_tags

from efuda.collection import Collection
from efuda.collection.complete import written
from efuda.collection.record import Record, Writing
from efuda.preprocess import Preprocess
from efuda.tagging import Tagged, Tagger
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

ROOT = Path(__file__).parent.parent
TAGS, GUESSES = 10_000, 8
BLOCK = 100_000
DRAWN = 1_000_000  # pictures beyond these have the tags of the first ones again
PAGE = 60
MODEL = ("bench@1", "bench")


def main() -> None:
    options = arguments()
    folder = options.work / f"{options.pictures}"
    part = {"measure": measure, "start": start, "add": add, "http": http}.get(options.part)
    if part:
        print(json.dumps(part(folder, options)))
        return
    if not (folder / "made").exists():
        make(folder, options)
    print(f"{options.pictures:,} pictures, load of the machine {os.getloadavg()[0]:.1f}")
    if not (folder / "art.efuda.index").exists():
        child("start", options, "first start, from the tables")
    child("start", options, "start from the snapshot")
    child("measure", options, "searching, in process")
    child("add", options, "adding 10,000 tagged pictures, one edit")
    if options.http:
        child("http", options, "over HTTP")
    if not options.no_peers and options.pictures <= DRAWN:
        peers(folder, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, default=Path("bench-search"), help="where collections are made and kept")
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--peer-queries", type=int, default=20)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--http", action="store_true", help="also through a real `efuda serve`")
    parser.add_argument("--tags", type=Path, default=TAG_LIST, help="tag list CSV")
    parser.add_argument("--zipf", action="store_true", help="without a tag list, use invented tags")
    parser.add_argument("--rare", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=("measure", "start", "add", "http"), help=argparse.SUPPRESS)
    return parser.parse_args()


def child(part: str, options: argparse.Namespace, title: str) -> None:
    """Run a part in a process of its own and print what it says."""
    sizes = ["--pictures", str(options.pictures), "--queries", str(options.queries)]
    run = watch([sys.executable, __file__, "--part", part, "--work", str(options.work), *sizes])
    print(f"\n{title}   (process: {run.seconds:.1f} s, peak {run.memory_mb:,.0f} MB)")
    for name, value in run.answer.items():
        print(f"  {name:44} {value}", flush=True)


# The collection


@dataclass
class Block:
    """Some pictures' tags: `tags` and `present` of picture i lie at starts[i] to starts[i + 1]."""

    starts: NDArray[np.int64]
    tags: NDArray[np.int64]
    present: NDArray[np.bool_]


def top(options: argparse.Namespace) -> TagList:
    """The most frequent tags of the list."""
    tags = find_tags(options)
    chosen = np.sort(np.argsort(-tags.counts, kind="stable")[:TAGS])
    return TagList([tags.names[one] for one in chosen], tags.categories[chosen], tags.counts[chosen])


def draw(tags: TagList, rows: int, rng: np.random.Generator, drawers: dict[int, Drawer]) -> Block:
    """What each picture has, and some general tags more that it has not."""
    drawn = draw_tags(rows, drawers, rng)
    own = np.repeat(np.arange(rows), drawn.amounts) << 32 | drawn.codes
    guessed = np.repeat(np.arange(rows), GUESSES) << 32 | drawers[0].draw(rows * GUESSES, rng)
    guessed = np.setdiff1d(guessed, own)
    keys = np.concatenate([own << 1 | 1, guessed << 1])
    keys.sort()
    row = keys >> 33
    return Block(np.searchsorted(row, np.arange(rows + 1)), keys >> 1 & 0xFFFFFFFF, (keys & 1).astype(bool))


def make(folder: Path, options: argparse.Namespace) -> None:
    """Make the collection, and the same postings for the others."""
    began = time.perf_counter()
    tags = top(options)
    drawers = {category: Drawer(tags, category) for category in CATEGORIES}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    record = Record.open(folder / "art.efuda", create=True)
    with record.write(durable=False) as writing:
        source = writing.source("model", *MODEL)
        operation = writing.operation("add", source, "made")
        names = zip(tags.names, tags.categories.tolist(), strict=True)
        numbers = np.array([writing.tag(name, Category(category)) for name, category in names])
        ratings = np.array(sorted(writing.tag(f"rating:{name}", Category.RATING) for name in RATINGS))
    postings, blocks = [], list[Block]()
    for first in range(0, options.pictures, BLOCK):
        if len(blocks) < DRAWN // BLOCK:
            blocks.append(draw(tags, min(BLOCK, options.pictures - first), rng, drawers))
        block = blocks[first // BLOCK % len(blocks)]
        with record.write(durable=False) as writing:
            write(writing, block, first, source, operation, numbers, ratings, rng)
        if first < DRAWN:
            row = np.repeat(np.arange(len(block.starts) - 1), np.diff(block.starts))[block.present]
            postings.append(np.stack([numbers[block.tags[block.present]], first + 1 + row], axis=1).astype(np.uint32))
        print(f"\r{first + len(block.starts) - 1:,} pictures made", end="", flush=True)
    record.close()
    both = np.concatenate(postings)
    np.save(folder / "postings.npy", both[np.lexsort((both[:, 1], both[:, 0]))])
    (folder / "made").touch()
    size = (folder / "art.efuda").stat().st_size / 1e6
    print(f"\rmade {options.pictures:,} pictures in {time.perf_counter() - began:.0f} s, {size:,.0f} MB")


def write(
    writing: Writing,
    block: Block,
    first: int,
    source: int,
    operation: int,
    numbers: NDArray[np.int64],
    ratings: NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    count = len(block.starts) - 1
    ids = range(first + 1, first + count + 1)
    sizes = rng.integers(400, 4000, (count, 2)).tolist()
    lengths = rng.integers(20_000, 8_000_000, count).tolist()
    dates = [f"20{n:02d}-{m:02d}-15T12:00:00Z" for n, m in rng.integers((10, 1), (26, 13), (count, 2)).tolist()]
    writing.db.executemany(
        "INSERT INTO pictures (id, sha256, md5, bytes, filetype, width, height, added, date, revision) "
        "VALUES (?, ?, ?, ?, 'jpg', ?, ?, ?, ?, ?)",
        (
            (one, rng.bytes(32), rng.bytes(16), length, *size, date, date, writing.revision)
            for one, length, size, date in zip(ids, lengths, sizes, dates, strict=True)
        ),
    )
    files = ((f"/art/{one // 1000:05d}/picture {one:08d}.jpg", one) for one in ids)
    writing.db.executemany("INSERT INTO files (path, picture, mtime_ns) VALUES (?, ?, 0)", files)
    score = np.where(block.present, rng.integers(90, 256, len(block.tags)), rng.integers(13, 90, len(block.tags)))
    packed = (numbers[block.tags] << 9 | block.present.astype(np.int64) << 8 | score).astype("<u4")
    rated = rng.choice(4, count, p=(0.6, 0.25, 0.1, 0.05))
    blobs = (
        np.sort(np.concatenate([packed[start:end], rating_scores(ratings, best)])).tobytes()
        for start, end, best in zip(block.starts[:-1], block.starts[1:], rated.tolist(), strict=True)
    )
    writing.db.executemany(
        "INSERT INTO taggings (picture, source, at, operation, scores) VALUES (?, ?, ?, ?, ?)",
        ((one, source, writing.at, operation, blob) for one, blob in zip(ids, blobs, strict=True)),
    )


def rating_scores(ratings: NDArray[np.int64], best: int) -> NDArray[np.uint32]:
    scores = np.full(4, 20)
    scores[best] = 230
    return (ratings << 9 | (np.arange(4) == best).astype(np.int64) << 8 | scores).astype("<u4")


# The searches


@dataclass(frozen=True)
class Search:
    """Of each group any tag, and none of the others; numbers of tags."""

    groups: tuple[tuple[int, ...], ...]
    without: tuple[int, ...]

    @property
    def terms(self) -> int:
        return sum(map(len, self.groups)) + len(self.without)

    def text(self, names: list[str]) -> str:
        parts = [" or ".join(names[tag] for tag in group) for group in self.groups]
        parts = [f"({part})" if " or " in part else part for part in parts]
        return " ".join([*parts, *(f"-{names[tag]}" for tag in self.without)])


def draw_searches(folder: Path, names: list[str], count: int) -> list[Search]:
    """Tags that some picture has together, so that most searches find something."""
    rng = np.random.default_rng(1)
    plain = np.array([bool(name) and written(name) == name for name in names])
    with apsw.Connection(str(folder / "art.efuda"), flags=apsw.SQLITE_OPEN_READONLY) as db:
        last = db.execute("SELECT max(id) FROM pictures").get
        searches = []
        while len(searches) < count:
            blob = db.execute("SELECT scores FROM taggings WHERE picture = ?", (int(rng.integers(1, last + 1)),)).get
            packed = np.frombuffer(blob, dtype="<u4")
            tags = packed[packed >> 8 & 1 == 1] >> 9
            tags = rng.permutation(tags[plain[tags]])
            if len(tags) >= 6:
                searches.append(compose(tags.tolist(), len(searches) % 5 + 1, rng))
    return searches


def compose(tags: list[int], terms: int, rng: np.random.Generator) -> Search:
    left, groups, without = tags[:terms], [], []
    if terms > 1 and rng.random() < 1 / 4:
        without.append(left.pop())
    if len(left) > 1 and rng.random() < 1 / 3:
        groups.append((left.pop(), left.pop()))
    return Search((*groups, *((tag,) for tag in left)), tuple(without))


# efuda


def start(folder: Path, options: argparse.Namespace) -> dict[str, str]:
    times = Times()
    with Collection.open(folder / "art.efuda") as collection:
        with clocked(times):
            total, _ = collection.find("", limit=PAGE)
        ((seconds, computed),) = times
        size = sum(one.stat().st_size for one in folder.glob("art.efuda.index")) / 1e6
    took = f"{seconds:.2f} s, of which {computed:.2f} s computing; {total:,} pictures"
    return {"open and first search": took, "snapshot": f"{size:,.0f} MB"}


def measure(folder: Path, options: argparse.Namespace) -> dict[str, str]:
    with Collection.open(folder / "art.efuda") as collection:
        collection.find("", limit=PAGE)
        resting = resident()
        names = tag_names(folder)
        searches = draw_searches(folder, names, options.queries)
        texts = [search.text(names) for search in searches]
        found: dict[str, str] = {}
        times, totals = timed(texts, lambda text: collection.find(text, limit=PAGE)[0])
        found["boolean, 1–5 terms: count and first 60"] = spread(times)
        for terms in range(1, 6):
            some = [one for one, search in zip(times, searches, strict=True) if search.terms == terms]
            found[f"  {terms} term{'s' * (terms > 1)}"] = spread(some)
        found["  pictures found"] = f"median {statistics.median(totals):,.0f}, most {max(totals):,}"
        typed = [f"{text} {word[:length]}" for text, word, length in starts_of_words(texts, names)]
        times, _ = timed(typed, lambda text: len(collection.complete(text, limit=12).suggestions))
        found["completion with counts under the search"] = spread(times)
        times, _ = timed(texts[:200], lambda text: collection.facets(text, limit=40).total)
        found["facets, exact, 40 of each category"] = spread(times)
        times, _ = timed(["", "1girl", "1girl solo"] * 5, lambda text: collection.facets(text, limit=40).total)
        found["  of the largest results"] = spread(times)
        for title, text in OTHERS.items():
            times, totals = timed([text] * 10, lambda text: collection.find(text, limit=PAGE)[0])
            found[f"{title}: {text}"] = f"{spread(times)}, finds {totals[0]:,}"
        found["resident memory, started / after all of this"] = f"{resting:,.0f} / {resident():,.0f} MB"
    return found


OTHERS = {
    "numbers": "width:1000..2000",
    "numbers with tags": "1girl solo width:>2000 -ratio:<1",
    "order": "1girl order:filesize",
    "order of all": "order:score",
    "the model's scores": "ai:1girl>=0.9",
    "probably missing": "-hat ai:hat>=0.2",
    "wildcard": "*hair*",
    "every tag": "*",
    "path, first use": 'path:"picture 0000123"',
    "far page": "1girl order:id",
}


def starts_of_words(texts: list[str], names: list[str]) -> Iterator[tuple[str, str, int]]:
    """What someone types behind a search: the first letters of a tag, one to eight."""
    rng = np.random.default_rng(2)
    plain = [name for name in names if name and written(name) == name]
    for text in texts[:500]:
        word = plain[int(rng.integers(len(plain)))]
        yield text, word, int(rng.integers(1, min(len(word), 8) + 1))


def add(folder: Path, options: argparse.Namespace) -> dict[str, str]:
    """On a copy, so that the collection stays as it was made."""
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in ("art.efuda", "art.efuda.index"):
        shutil.copy(folder / name, copy / name)
    files, tagger = new_files(copy, 10_000), new_tagger(copy, tag_names(folder))
    results = draw_results(files, tagger)
    with Collection.open(copy / "art.efuda") as collection:
        before, _ = collection.find("", limit=1)
        tag = tagger.vocabulary[int(results[-1].rows[-1])].name
        adding, seeing, changing = Times(), Times(), Times()
        with clocked(adding):
            collection.add(results, tagger)
        with clocked(seeing):
            collection.find(f'tag:"{tag}"', limit=1)
        assert collection.find("", limit=1)[0] == before + 10_000
        edits, views = Times(), Times()
        for number in range(20):
            with clocked(edits):
                collection.edit([before - 7 * number], add=["hat"] if number % 2 else ["ribbon"])
            with clocked(views):
                collection.find("hat", limit=1)
        with clocked(changing):
            operation = collection.edit("id:1..5000", add=["checked"])
            collection.count("checked")
    shutil.rmtree(copy)
    return {
        "adding 10,000 tagged pictures": spread(adding),
        "the first search after it": spread(seeing),
        "an edit of one picture": spread(edits),
        "the first search after that": spread(views),
        f"an edit of {operation.changed:,} and the search after it": spread(changing),
    }


def new_files(folder: Path, count: int) -> list[Path]:
    paths = [folder / "new" / f"{number}.jpg" for number in range(count)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        path.write_bytes(b"\xff\xd8\xff" + str(number).encode())
    return paths


def new_tagger(folder: Path, names: list[str]) -> Tagger:
    tags = [Tag(name, Category.RATING) for name in RATINGS] + [Tag(name) for name in names if name]
    (folder / "model.onnx").write_bytes(b"none")
    return Tagger.of(
        folder, Vocabulary(tags), Preprocess(size=16), np.full(len(tags), 0.35), True, "efuda", None, None, "output", 0
    )


def draw_results(paths: list[Path], tagger: Tagger) -> list[Tagged]:
    rng = np.random.default_rng(3)
    results = []
    for path in paths:
        scores = np.zeros(len(tagger.vocabulary), dtype=np.float32)
        scores[rng.integers(4, len(scores), 30)] = rng.uniform(0.4, 1, 30)
        scores[rng.integers(4)] = 0.9
        results.append(Tagged.of(path, (800, 600), scores))
    return results


def http(folder: Path, options: argparse.Namespace) -> dict[str, str]:
    """One client after another's answer, over one connection."""
    names = tag_names(folder)
    texts = [search.text(names) for search in draw_searches(folder, names, options.queries)]
    typed = [f"{text} {word[:length]}" for text, word, length in starts_of_words(texts, names)]
    command = [sys.executable, "-m", "efuda", "serve", str(folder / "art.efuda"), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        host = urlsplit(server.stdout.readline().strip()).netloc
        connection = HTTPConnection(host)
        connection.connect()

        def ask(path: str, **values: object) -> Any:
            connection.request("GET", f"{path}?{urlencode(values)}")
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body[:200]
            return json.loads(body)

        ask("/api/search", q="", limit=PAGE)
        found = {}
        for title, asked, get in (
            ("boolean, 1–5 terms", texts, lambda text: ask("/api/search", q=text, limit=PAGE)["total"]),
            ("completion", typed, lambda text: len(ask("/api/complete", q=text, at=len(text))["suggestions"])),
            ("facets", texts[:200], lambda text: ask("/api/facets", q=text)["total"]),
        ):
            before = computed(server.pid)
            times, _ = timed(asked, get)
            mean = 1000 * (computed(server.pid) - before) / len(times)
            found[title] = f"{spread(times).partition('   computing')[0]}   the server computes {mean:.2f} ms each"
        found["memory of the server"] = f"{resident(server.pid):,.0f} MB"
    finally:
        server.terminate()
        server.wait()
    return found


# The others


def peers(folder: Path, options: argparse.Namespace) -> None:
    """Each on the same postings and searches, checked to find what efuda finds."""
    names = tag_names(folder)
    searches = [one for one in draw_searches(folder, names, 4 * options.peer_queries) if one.terms > 1]
    searches = searches[: options.peer_queries]
    with Collection.open(folder / "art.efuda") as collection:
        texts = [one.text(names) for one in searches]
        expected = [collection.find(text, limit=PAGE) for text in texts]
        times, _ = timed(texts, lambda text: collection.find(text, limit=PAGE)[0])
    print(f"\nthe same {len(searches)} searches of 2–5 terms by each, exact count and newest {PAGE}, one thread")
    print(f"  {'efuda':44} {spread(times)}")
    postings = np.load(folder / "postings.npy", mmap_mode="r")
    for title, prepare, find in (
        ("inverted SQLite table", inverted, find_inverted),
        ("SQLite FTS5, detail=none", fts5, find_fts5),
        ("DuckDB", duck, find_duck),
    ):
        began = time.perf_counter()
        db = prepare(folder, postings)
        made = time.perf_counter() - began
        times = Times()
        for search, (total, ids) in zip(searches, expected, strict=True):
            with clocked(times):
                answer = find(db, search)
            assert answer == (total, ids), f"{title} finds something else for {search.text(names)}"
        print(f"  {title:44} {spread(times)}   (opened or made in {made:.0f} s)", flush=True)
        db.close()


def inverted(folder: Path, postings: NDArray[np.uint32]) -> apsw.Connection:
    def fill(db: apsw.Connection) -> None:
        db.execute("CREATE TABLE p (tag INT, picture INT, PRIMARY KEY (tag, picture)) WITHOUT ROWID")
        for start in range(0, len(postings), 1_000_000):
            db.executemany("INSERT INTO p VALUES (?, ?)", postings[start : start + 1_000_000].tolist())

    return made(folder / "inverted.sqlite", fill)


def find_inverted(db: apsw.Connection, search: Search) -> tuple[int, list[int]]:
    parts = [f"SELECT DISTINCT picture FROM p WHERE tag IN ({_list(group)})" for group in search.groups]
    whole = " INTERSECT ".join(parts)
    if search.without:
        whole += f" EXCEPT SELECT picture FROM p WHERE tag IN ({_list(search.without)})"
    return _count_and_page(db.execute, whole)


def fts5(folder: Path, postings: NDArray[np.uint32]) -> apsw.Connection:
    def fill(db: apsw.Connection) -> None:
        order = np.lexsort((postings[:, 0], postings[:, 1]))
        pictures, tags = postings[order, 1], postings[order, 0]
        starts = np.flatnonzero(np.diff(pictures, prepend=0))
        texts = (
            (int(pictures[start]), " ".join(f"t{tag}" for tag in tags[start:end].tolist()))
            for start, end in zip(starts, [*starts[1:], len(tags)], strict=True)
        )
        db.execute("CREATE VIRTUAL TABLE p USING fts5(tags, content='', detail='none', columnsize=0)")
        db.executemany("INSERT INTO p (rowid, tags) VALUES (?, ?)", texts)

    return made(folder / "fts5.sqlite", fill)


def find_fts5(db: apsw.Connection, search: Search) -> tuple[int, list[int]]:
    words = " AND ".join("(" + " OR ".join(f"t{tag}" for tag in group) + ")" for group in search.groups)
    if search.without:
        words = f"({words}) NOT (" + " OR ".join(f"t{tag}" for tag in search.without) + ")"
    total = db.execute("SELECT count(*) FROM p WHERE p MATCH ?", (words,)).get
    page = db.execute(f"SELECT rowid FROM p WHERE p MATCH ? ORDER BY rowid DESC LIMIT {PAGE}", (words,)).fetchall()
    return total, [number for (number,) in page]


def duck(folder: Path, postings: NDArray[np.uint32]) -> duckdb.DuckDBPyConnection:
    path = folder / "duck.db"
    new = not path.exists()
    db = duckdb.connect(str(path), config={"threads": 1})
    if new:
        columns = {"tag": postings[:, 0].copy(), "picture": postings[:, 1].copy()}  # noqa: F841  (DuckDB reads it)
        db.execute("CREATE TABLE p AS SELECT * FROM columns")
    return db


def find_duck(db: duckdb.DuckDBPyConnection, search: Search) -> tuple[int, list[int]]:
    parts = [f"SELECT picture FROM p WHERE tag IN ({_list(group)})" for group in search.groups]
    whole = " INTERSECT ".join(parts) if len(parts) > 1 else parts[0].replace("SELECT", "SELECT DISTINCT", 1)
    if search.without:
        whole = f"({whole}) EXCEPT SELECT picture FROM p WHERE tag IN ({_list(search.without)})"
    return _count_and_page(db.execute, whole)


def _list(tags: tuple[int, ...]) -> str:
    return ", ".join(map(str, tags))


def _count_and_page(execute: Callable[[str], Any], whole: str) -> tuple[int, list[int]]:
    total = execute(f"SELECT count(*) FROM ({whole})").fetchone()[0]
    page = execute(f"SELECT picture FROM ({whole}) ORDER BY picture DESC LIMIT {PAGE}").fetchall()
    return total, [number for (number,) in page]


def made(path: Path, fill: Callable[[apsw.Connection], None]) -> apsw.Connection:
    """A database, filled at the first time; one that was not finished is made anew."""
    done = path.with_suffix(".done")
    if not done.exists():
        path.unlink(missing_ok=True)
    db = apsw.Connection(str(path))
    db.pragma("synchronous", "OFF")
    db.pragma("cache_size", -256_000)
    if not done.exists():
        with db:
            fill(db)
        done.touch()
    return db


# Small things


def tag_names(folder: Path) -> list[str]:
    """By number."""
    with apsw.Connection(str(folder / "art.efuda"), flags=apsw.SQLITE_OPEN_READONLY) as db:
        found = db.execute("SELECT id, name FROM tags").fetchall()
    names = [""] * (max(number for number, _ in found) + 1)
    for number, name in found:
        names[number] = "" if name.startswith("rating:") else name
    return names


Times = list[tuple[float, float]]  # of each call the seconds that passed, and those of them that it computed


@contextmanager
def clocked(times: Times) -> Iterator[None]:
    began, computed = time.perf_counter(), time.thread_time()
    yield
    times.append((time.perf_counter() - began, time.thread_time() - computed))


def timed(texts: list[str], find: Callable[[str], int]) -> tuple[Times, list[int]]:
    times, totals = Times(), []
    for text in texts:
        with clocked(times):
            totals.append(find(text))
    return times, totals


def spread(times: Times) -> str:
    passed, computed = (np.percentile(1000 * np.array(column), (50, 99)) for column in zip(*times, strict=True))
    return f"p50 {passed[0]:8.2f} ms   p99 {passed[1]:8.2f} ms   computing {computed[0]:8.2f}, {computed[1]:8.2f} ms"


def resident(process: int | str = "self") -> float:
    """Memory of a process in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def computed(process: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
