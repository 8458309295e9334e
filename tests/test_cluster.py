"""A real Ray cluster of two nodes on this machine: the same results as alone, and no death loses anything."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from conftest import TINY

from efuda.artifacts import Model

QUIET = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONPATH": str(Path(__file__).parent),
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """A node that lives as long as this process lets it."""
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]
    return subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *common],
        env=QUIET,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def stop(node: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


class Cluster:
    """A head and a second node; `kill_second` ends all of the second at once."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="ef", dir="/tmp")
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        head = ["--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
        self.head = start(*head, f"--temp-dir={self.folder}")
        self._wait_for_head(port)
        self.second = start(f"--address={self.address}", "--node-ip-address=127.0.0.1")

    def _wait_for_head(self, port: int) -> None:
        end = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            assert time.monotonic() < end, "the head did not start"
            time.sleep(0.1)

    def kill_second(self) -> None:
        """Its raylet, with which its workers end."""
        stop(self.second)
        raylets = [process for process, command in self._processes() if command.split()[0].endswith("/raylet")]
        second = [process for process in raylets if b"--head" not in Path(f"/proc/{process}/cmdline").read_bytes()]
        assert len(raylets) - len(second) == 1, "the head is another"
        for process in second:
            self._kill(process)

    def close(self) -> None:
        stop(self.second)
        stop(self.head)
        for process, _ in self._processes():
            self._kill(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Those of this cluster alone: they have its folder or its address in their command."""
        ours = re.compile(rf"{re.escape(self.folder)}\b|{re.escape(self.address)}\b")
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                if ours.search(command) and int(process.name) != os.getpid():
                    yield int(process.name), command

    @staticmethod
    def _kill(process: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        yield made
    finally:
        made.close()


DRIVER = """
import json, os, signal, sys, time
from pathlib import Path
import ray
from efuda.cluster import RayWorkers
from efuda.errors import EfudaError

def wait_for_nodes(count):
    end = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) < count:
        assert time.monotonic() < end, ray.nodes()
        time.sleep(0.1)

address, folder = sys.argv[1], Path(sys.argv[2])
with RayWorkers(address) as workers:
    wait_for_nodes(int(sys.argv[3]))
"""


def drive(cluster: Cluster, folder: Path, body: str, *, nodes: int = 2, **more: Any) -> Any:
    """Run a script with `workers` and `folder`; what it puts in `result` comes back."""
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    code = f"{DRIVER}{indented}    (folder / 'result.json').write_text(json.dumps(result))\n"
    for name, value in more.items():
        code = code.replace(name, value)
    script = folder / "driver.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), cluster.address, str(folder), str(nodes)],
        env=QUIET,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "result.json").read_text())


def test_results_are_in_order_and_both_nodes_work(cluster: Cluster, tmp_path: Path) -> None:
    body = """
def job(number):
    time.sleep(0.2)
    return number * number, ray.get_runtime_context().get_node_id()
result = list(workers.map(job, range(12)))
"""
    result = drive(cluster, tmp_path, body)
    assert [square for square, _ in result] == [number * number for number in range(12)]
    assert len({node for _, node in result}) == 2


def test_an_error_of_the_function_arrives_as_it_is(cluster: Cluster, tmp_path: Path) -> None:
    body = """
from efuda.errors import MissingExtra, QueryError

def job(kind):
    extra, query = MissingExtra("Reading", "ray", "fsspec"), QueryError("What?", "a (", 2)
    raise {"extra": extra, "query": query, "key": KeyError("k")}[kind]

result = []
for kind in ("extra", "query", "key"):
    try:
        list(workers.map(job, [kind]))
    except (EfudaError, KeyError) as error:
        told = {name: value for name, value in vars(error).items() if name != "__notes__"}
        result.append([type(error).__name__, list(error.args), told])
"""
    said = 'Reading needs fsspec, which is not installed: pip install "efuda[ray]"'
    assert drive(cluster, tmp_path, body) == [
        ["MissingExtra", [said], {"extra": "ray"}],
        ["QueryError", ["What?\n  a (\n    ^"], {"message": "What?", "query": "a (", "position": 2}],
        ["KeyError", ["k"], {}],
    ]


def test_a_job_that_kills_each_worker_is_named(cluster: Cluster, tmp_path: Path) -> None:
    body = """
def job(name):
    if name == "deadly":
        (folder / f"died-{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return name

result = []
try:
    for name in workers.map(job, ["a", "deadly", "b"]):
        result.append(name)
except EfudaError as error:
    result += [type(error).__name__, str(error), len(list(folder.glob("died-*")))]
"""
    first, kind, said, deaths = drive(cluster, tmp_path, body)
    assert (first, kind, deaths) == ("a", "OutputError", 3)
    assert said.startswith("The cluster gave up on 'deadly', whose worker died 3 times (")
    assert said.endswith("and run the same command again: it goes on where it was.")


def test_a_node_with_another_efuda_or_none_is_told(cluster: Cluster, tmp_path: Path) -> None:
    """The code that is sent to a node, run where another version, then none, is installed."""
    body = """
import subprocess
from efuda.cluster import _by_value

bare, other = folder / "bare", folder / "other"
(other / "efuda-9.9.dist-info").mkdir(parents=True)
(other / "efuda-9.9.dist-info/METADATA").write_text("Metadata-Version: 2.1\\nName: efuda\\nVersion: 9.9\\n")
bare.mkdir()
for path in Path(ray.__file__).parents[1].iterdir():
    if "efuda" not in path.name:
        (bare / path.name).symlink_to(path)
code = ray.cloudpickle.dumps(_by_value())
program = "import pickle, sys; run = pickle.loads(sys.stdin.buffer.read()); print(run('1.0', b'', b'')[0])"
result = []
for paths in (f"{other}:{bare}", str(bare)):
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, input=code, env={**os.environ, "PYTHONPATH": paths}, capture_output=True)
    result.append((done.stdout or done.stderr).decode().strip())
sys.path.insert(0, str(other))  # from here on, this machine is the one with another version
try:
    list(workers.map(abs, [1]))
except EfudaError as error:
    result += [type(error).__name__, str(error)]
"""
    have = version("efuda")
    other, none, kind, said = drive(cluster, tmp_path, body)
    assert (other, none, kind) == ("9.9", "None", "InputError")
    assert said == (
        f"The node {socket.gethostname()} of the cluster has efuda {have}, this machine 9.9. "
        'Install the same on all: pip install "efuda[ray]==9.9"'
    )


def test_what_is_no_head_is_told_soon() -> None:
    """Ray alone would try for minutes."""
    with socket.socket() as silent, HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        silent.bind(("127.0.0.1", 0))
        Thread(target=other.handle_request, daemon=True).start()
        code = "import sys, efuda.cluster\ntry: efuda.cluster.RayWorkers(sys.argv[1])\nexcept Exception as e: print(e)"
        for port, reason in (
            (other.server_port, "something else answers there"),
            (silent.getsockname()[1], "Connection refused"),
        ):
            address = f"127.0.0.1:{port}"
            command = [sys.executable, "-c", code, address]
            done = subprocess.run(command, env=QUIET, capture_output=True, text=True, timeout=30, check=True)
            assert f"There is no Ray cluster at {address} (" in done.stdout
            assert f"{reason}). Start one with: ray start --head" in done.stdout


def test_a_dataset_is_the_same_made_on_a_cluster_with_a_worker_killed(
    cluster: Cluster, tmp_path: Path, dump: Path
) -> None:
    """The first job of each stage kills its own process, once."""
    body = """
from efuda.datasets import packing, prepare
from efuda.recipes import load_recipe
from efuda.workers import InProcess

class Deadly:
    local = False

    def map(self, function, jobs):
        def deadly(job):
            mark = folder / f"died-{getattr(function, '__name__', 'read')}"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return function(job)
        return workers.map(deadly, jobs)

packing.CHUNK = 40
recipe = load_recipe(None, SETTINGS)
metadata, images = Path("DUMP/metadata"), Path("DUMP/512px")
made = prepare(metadata, images, folder / "ray", recipe, workers=Deadly())
alone = prepare(metadata, images, folder / "alone", recipe, workers=InProcess())
same = [
    path.relative_to(alone.root)
    for path in sorted(alone.root.rglob("*"))
    if path.is_file() and path.name != "efuda.json"
    and path.read_bytes() != (made.root / path.relative_to(alone.root)).read_bytes()
]
result = [made.digest == alone.digest, [str(name) for name in same], len(list(folder.glob("died-*")))]
"""
    settings = repr([*TINY, "images.pack=32"])
    assert drive(cluster, tmp_path, body, SETTINGS=settings, DUMP=str(dump)) == [True, [], 2]


def test_pictures_are_tagged_alike_on_a_cluster_with_a_worker_killed(
    cluster: Cluster, tmp_path: Path, dump: Path, model: Model
) -> None:
    """A folder, and the same pictures behind a URL; the first job kills its own process, once."""
    body = """
import zipfile
from efuda import tagging
from efuda.images import find_pictures
from efuda.places import RemotePath
from efuda.tagging import Failed, Looking, Tagger, tag, tag_spread

class Deadly:
    local = False

    def map(self, function, jobs):
        def deadly(job):
            if not (folder / "died").exists():
                (folder / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return function(job)
        return workers.map(deadly, jobs)

tagging.spread.FILES_A_JOB = 16
tagger = Tagger("MODEL", threads=1)
(folder / "broken.png").write_bytes(b"nothing")
pictures = [*find_pictures([Path("DUMP/512px")])][:60] + [folder / "broken.png"]
with zipfile.ZipFile(folder / "all.zip", "w") as archive:
    for number, path in enumerate(pictures):
        archive.write(path, f"{number:03d}{path.suffix}")
far = [RemotePath(f"zip://{number:03d}{path.suffix}::{folder}/all.zip") for number, path in enumerate(pictures)]
looking = Looking(tagger.preprocess)

def said(results):
    return [one.reason if isinstance(one, Failed) else one.present(tagger) for one in results]

def spread(paths):
    found = tag_spread(Deadly(), "MODEL", paths, looking=looking, identity=tagger.identity)
    return [one for results in found for one in results]

here = list(tag(tagger, pictures))
there, remote = spread(pictures), spread(far)
result = [len(here), said(here) == said(there) == said(remote), said(here)[-1], (folder / "died").exists()]
result += [[one.path for one in there] == pictures, str(remote[0].path) == str(far[0])]
try:
    list(tag_spread(workers, "MODEL", pictures, looking=looking, identity="other@123"))
except EfudaError as error:
    result.append(str(error).split(" on a worker")[0].partition(" is ")[2] == tagger.identity)
"""
    assert drive(cluster, tmp_path, body, MODEL=str(model.root), DUMP=str(dump)) == [
        *(61, True, "not a picture", True),
        *(True, True, True),
    ]


def test_efuda_tag_on_a_cluster(cluster: Cluster, tmp_path: Path, dump: Path, model: Model) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in sorted((dump / "512px").rglob("*.jpg"))[:5]:
        shutil.copy(path, pictures)
    command = [sys.executable, "-m", "efuda", "tag", str(pictures), "-m", str(model.root), "--json", "--no-scores"]
    done = subprocess.run([*command, "--ray", cluster.address], env=QUIET, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tagged"] == 5
    captions = {path.name: path.read_text() for path in pictures.glob("*.txt")}
    subprocess.run([*command, "--replace"], env=QUIET, check=True, capture_output=True, timeout=120)
    assert captions == {path.name: path.read_text() for path in pictures.glob("*.txt")}


def test_no_cluster_and_the_command_line(cluster: Cluster, tmp_path: Path, dump: Path) -> None:
    efuda = [sys.executable, "-m", "efuda", "prepare", str(dump / "metadata"), "--images", str(dump / "512px")]
    sets = [part for override in TINY for part in ("--set", override)]
    out = tmp_path / "out"
    command = [*efuda, "--out", str(out), *sets, "--json", "--ray", cluster.address]
    done = subprocess.run(command, env=QUIET, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images_verified"] == 120
    command[-1] = f"127.0.0.1:{free_port()}"
    command[command.index(str(out))] = str(tmp_path / "other")
    refused = subprocess.run(command, env=QUIET, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 3
    assert f"There is no Ray cluster at {command[-1]}" in refused.stderr
    assert "ray start --head" in refused.stderr


def test_a_node_that_dies_in_the_middle_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Last, since the cluster has one node less afterwards."""
    body = """
def job(number):
    time.sleep(0.3)
    # the data is too large to travel before it is asked for: it is lost with its node
    return number, bytes([number]) * 1_000_000, ray.get_runtime_context().get_node_id()
result, nodes = [], set()
for number, data, node in workers.map(job, range(12)):
    assert data == bytes([number]) * 1_000_000
    nodes.add(node)
    result.append(number)
    if number == 3:
        (folder / "now").touch()
        while not (folder / "killed").exists():
            time.sleep(0.01)
end = time.monotonic() + 30  # the head finds out in its own time
while sum(node["Alive"] for node in ray.nodes()) > 1 and time.monotonic() < end:
    time.sleep(0.1)
result = [result, len(nodes), sum(node["Alive"] for node in ray.nodes())]
"""

    def kill() -> None:
        while not (tmp_path / "now").exists():
            time.sleep(0.01)
        cluster.kill_second()
        (tmp_path / "killed").touch()

    Thread(target=kill, daemon=True).start()
    assert drive(cluster, tmp_path, body) == [list(range(12)), 2, 1]
