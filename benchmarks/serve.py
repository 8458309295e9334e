"""`efuda serve` under load: `/evaluate` beside `efuda tag`, first thumbnails, and minutes of mixed requests.

    python benchmarks/serve.py [--network lite0] [--pictures 400] [--clients 32] [--rounds 2] [--minutes 2] [--work DIR]

Pictures and networks are those of benchmarks/tag.py. Both tag the same files with the same model in turn; the rate of
`efuda tag` is without its start, which a server has behind it. Clients are threads of this process and share the
machine with the server, over 127.0.0.1. `--minutes` (10 at most) asks for everything at once and samples the memory of
the server and its processes, shared memory counted once.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import queue
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import psutil
from tag import NETWORKS, make_model, make_pictures

EFUDA = [sys.executable, "-m", "efuda"]
FORM = b'--edge\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
FILE = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'


def tag_seconds(model: Path, pictures: list[Path]) -> float:
    """The whole command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tags.jsonl"
        command = [*EFUDA, "-q", "tag", "-", "--model", str(model), "--no-scores", "--to", "jsonl", "--out", str(out)]
        began = time.perf_counter()
        subprocess.run(command, input="\n".join(map(str, pictures)), text=True, check=True, capture_output=True)
        return time.perf_counter() - began


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[int, psutil.Process]]:
    """A server as people start it; stopped as they stop it."""
    process = subprocess.Popen([*EFUDA, "-q", "serve", *arguments, "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline()
        yield int(address.strip().rstrip("/").rpartition(":")[2]), psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, "a server that was told to stop exits with 0"


class Client:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        self.connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def evaluate(self, path: Path) -> int:
        """Send a picture as Danbooru does."""
        body = FORM % (b"threshold", b"0.01") + FORM % (b"format", b"json") + FILE % path.name.encode()
        body += path.read_bytes() + b"\r\n--edge--\r\n"
        return self.ask("POST", "/evaluate", body, "multipart/form-data; boundary=edge")[0]


def evaluate_rate(port: int, pictures: list[Path], clients: int) -> tuple[float, list[float], Counter[int]]:
    """Pictures a second, seconds of each request, and statuses."""
    todo: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for path in pictures:
        todo.put(path)
    seconds, statuses = list[float](), Counter[int]()

    def work() -> None:
        client = Client(port)
        while True:
            try:
                path = todo.get_nowait()
            except queue.Empty:
                return
            began = time.perf_counter()
            statuses[client.evaluate(path)] += 1
            seconds.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(pictures) / (time.perf_counter() - began), seconds, statuses


def beside_tag(model: Path, pictures: list[Path], clients: int, rounds: int) -> None:
    ratios = []
    with serving("--model", str(model)) as (port, _):
        evaluate_rate(port, pictures[:8], 8)
        for number in range(rounds):
            tagged = (len(pictures) - 8) / (tag_seconds(model, pictures) - tag_seconds(model, pictures[:8]))
            rate, seconds, statuses = evaluate_rate(port, pictures, clients)
            ratios.append(rate / tagged)
            failed = sum(count for status, count in statuses.items() if status != 200)
            print(
                f"round {number + 1}: efuda tag {tagged:.1f} pictures/s, /evaluate with {clients} clients {rate:.1f} "
                f"({rate / tagged:.2f}), {failed} failed, a request p50 {percentile(seconds, 50):.2f} s p99 "
                f"{percentile(seconds, 99):.2f} s",
                flush=True,
            )
    print(f"/evaluate beside efuda tag: {statistics.median(ratios):.2f}")


def percentile(values: list[float], part: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * part // 100)]


def memory(process: psutil.Process) -> float:
    """MB of the server and the processes it started, what they share counted once."""
    parts = [process, *process.children(recursive=True)]
    return sum(part.memory_full_info().pss for part in parts) / 1e6


def first_thumbnail(collection: Path) -> None:
    """From a server that has just started: a search and its first thumbnail, never made before and made before."""
    Path(f"{collection}.thumbs").unlink(missing_ok=True)
    for what in ("never made before", "made before"):
        with serving(str(collection)) as (port, _):
            client = Client(port)
            began = time.perf_counter()
            found = json.loads(client.ask("GET", "/api/search?limit=60")[1])["pictures"]
            status, _ = client.ask("GET", f"/api/pictures/{found[0]['id']}/thumbnail")
            assert status == 200
            print(f"first search and thumbnail, {what}: {1000 * (time.perf_counter() - began):.0f} ms", flush=True)


def mixed(collection: Path, model: Path, pictures: list[Path], minutes: float) -> None:
    """Everything at once for some minutes."""
    with serving(str(collection), "--model", str(model)) as (port, process):
        client = Client(port)
        cards = json.loads(client.ask("GET", "/api/search?limit=1000")[1])["pictures"]
        facets = json.loads(client.ask("GET", "/api/facets?limit=40")[1])
        tags = [tag["name"] for group in facets["groups"] for tag in group["tags"]]
        evaluate_rate(port, pictures[:16], 4)
        seconds: dict[str, list[float]] = {}
        bad: Counter[str] = Counter()
        ends = time.monotonic() + 60 * minutes
        wishes = wishes_for(cards, tags, pictures)

        def work(seed: int) -> None:
            rng, own = random.Random(seed), Client(port)
            while time.monotonic() < ends:
                name, wish = rng.choice(wishes)
                began = time.perf_counter()
                status = wish(own, rng)
                seconds.setdefault(name, []).append(time.perf_counter() - began)
                if status != 200:
                    bad[f"{name} {status}"] += 1

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        samples = []
        while any(thread.is_alive() for thread in threads):
            samples.append(memory(process))
            time.sleep(2)
        asked = sum(map(len, seconds.values()))
        print(f"{minutes:g} minutes of mixed load, 16 clients: {asked:,} requests, {dict(bad)} failed")
        for name, values in sorted(seconds.items()):
            p50, p99 = (1000 * percentile(values, part) for part in (50, 99))
            print(f"  {name:<12} {len(values):>6,}  p50 {p50:6.0f} ms  p99 {p99:6.0f} ms")
        third = max(1, len(samples) // 3)
        middle, last = statistics.median(samples[third : 2 * third]), statistics.median(samples[-third:])
        print(
            f"memory in MB: {samples[0]:.0f} at first, {middle:.0f} in the middle third, {last:.0f} in the last, "
            f"at most {max(samples):.0f}"
        )


Wish = Callable[[Client, random.Random], int]


def wishes_for(cards: list[dict[str, int]], tags: list[str], pictures: list[Path]) -> list[tuple[str, Wish]]:
    def get(make: Callable[[random.Random], str]) -> Wish:
        return lambda client, rng: client.ask("GET", make(rng))[0]

    def one(rng: random.Random) -> int:
        return rng.choice(cards)["id"]

    def edit(client: Client, rng: random.Random) -> int:
        wish = {"pictures": [one(rng)], "add": [f"mine_{rng.randint(1, 9)}"], "remove": [rng.choice(tags)]}
        return client.ask("POST", "/api/edits", json.dumps(wish).encode())[0]

    search: Wish = get(lambda rng: f"/api/search?q={quote(' '.join(rng.sample(tags, 2)))}")
    return [
        *itertools.repeat(("search", search), 4),
        *itertools.repeat(("thumbnail", get(lambda rng: f"/api/pictures/{one(rng)}/thumbnail")), 4),
        ("facets", get(lambda rng: f"/api/facets?q={quote(rng.choice(tags))}")),
        ("complete", get(lambda rng: f"/api/complete?q={quote(rng.choice(tags)[:3])}")),
        ("picture", get(lambda rng: f"/api/pictures/{one(rng)}")),
        ("original", get(lambda rng: f"/api/pictures/{one(rng)}/original")),
        ("posts", get(lambda rng: f"/posts.json?tags={quote(rng.choice(tags))}")),
        ("evaluate", lambda client, rng: client.evaluate(rng.choice(pictures))),
        ("edit", edit),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="lite0")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=2, help="of mixed load, 10 at most")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "efuda-bench-tag")
    given = parser.parse_args()
    os.environ["EFUDA_CACHE"] = str(given.work / "cache")
    folder, model = given.work / "pictures", given.work / given.network
    make_pictures(folder, given.pictures)
    make_model(model, *NETWORKS[given.network])
    pictures = sorted(folder.iterdir())[: given.pictures]
    if given.rounds:
        beside_tag(model, pictures, given.clients, given.rounds)
    if given.minutes:
        with tempfile.TemporaryDirectory() as temporary:
            collection = Path(temporary) / "art.efuda"
            command = [*EFUDA, "-q", "collection", "add", str(collection), "-", "--model", str(model)]
            subprocess.run(command, input="\n".join(map(str, pictures)), text=True, check=True)
            first_thumbnail(collection)
            mixed(collection, model, pictures, min(given.minutes, 10))


if __name__ == "__main__":
    main()
