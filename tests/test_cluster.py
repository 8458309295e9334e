"""A real Ray cluster of two nodes on this machine: the same results as alone, and no death loses anything."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

QUIET = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
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

    def close(self) -> None:
        stop(self.second)
        stop(self.head)
        for process in Path("/proc").glob(
            "[0-9]*"
        ):  # what a node leaves behind has its folder or address in its command
            with suppress(OSError, ValueError):
                command = (process / "cmdline").read_bytes().decode(errors="replace")
                if self.folder in command or self.address in command:
                    os.kill(int(process.name), signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


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
def job(number):
    from efuda.errors import MetadataError
    raise MetadataError("posts.json is broken")
try:
    list(workers.map(job, [1]))
except EfudaError as error:
    result = [type(error).__name__, str(error)]
"""
    assert drive(cluster, tmp_path, body) == ["MetadataError", "posts.json is broken"]


def test_a_dataset_is_the_same_made_on_a_cluster_with_a_worker_killed(
    cluster: Cluster, tmp_path: Path, dump: Path
) -> None:
    """The first job of each stage kills its own process, once."""
    body = """
from efuda.datasets import packing, prepare
from efuda.recipes import load_recipe
from efuda.workers import InProcess

class Deadly:
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
    (folder / f"begun-{number}-{os.getpid()}").touch()
    time.sleep(0.5)
    return number
result = []
for number in workers.map(job, range(12)):
    result.append(number)
    if number == 3:
        os.killpg(SECOND, signal.SIGKILL)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "raylet" in command.split(chr(0))[0] and "--head" not in command:
                os.kill(int(process.name), signal.SIGKILL)
"""
    assert drive(cluster, tmp_path, body, SECOND=str(cluster.second.pid)) == list(range(12))
    stop(cluster.second)
