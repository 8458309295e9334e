"""Hands: results in order whoever made them, and no death, error or interruption that ends otherwise than it should."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from efuda.errors import MissingExtra, OutputError, QueryError, Stopped
from efuda.workers import InProcess, LocalWorkers, Workers, attempt, outcome


@pytest.fixture(params=["in process", "processes"])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    if request.param == "in process":
        yield InProcess()
        return
    with LocalWorkers(2) as made:
        yield made
    assert multiprocessing.active_children() == []


@dataclass(frozen=True)
class Job:
    name: str
    folder: Path


def slower_first(number: int) -> int:
    time.sleep(0.05 if number % 2 == 0 else 0)
    return number * number


def process_of(job: object) -> int:
    time.sleep(0.05)
    return os.getpid()


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def die_once(job: Job) -> tuple[str, int]:
    """The process of this job is killed in its middle, the first time."""
    with (job.folder / job.name).open("a") as log:
        log.write("begun\n")
    if job.name == "killed" and (job.folder / job.name).read_text() == "begun\n":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return job.name, os.getpid()


def die(job: Any) -> Any:
    if getattr(job, "name", job) == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    return job


def leave(job: object) -> None:
    os._exit(7)


ERRORS: dict[str, Callable[[], BaseException]] = {
    "extra": lambda: MissingExtra("Reading", "ray", "fsspec"),
    "query": lambda: QueryError("What is this?", "a (", 2),
    "stopped": lambda: Stopped("half of it", "run again", exit_code=5),
    "key": lambda: KeyError("name"),
    "os": lambda: FileNotFoundError(2, "No such file", "x.json"),
}


def fail(kind: str) -> None:
    raise ERRORS[kind]()


def fail_strangely(job: object) -> None:
    class Local(Exception):
        pass

    raise Local("cannot travel")


def lambda_of(job: object) -> object:
    return lambda: job


class Heavy:
    """A function that counts how often it is sent."""

    sent = 0

    def __getstate__(self) -> dict[str, int]:
        Heavy.sent += 1
        return {}

    def __call__(self, job: int) -> int:
        return job


def test_results_are_in_the_order_of_the_jobs(workers: Workers) -> None:
    assert list(workers.map(slower_first, range(20))) == [number * number for number in range(20)]
    assert list(workers.map(slower_first, iter([]))) == []
    assert list(workers.map(slower_first, (number for number in (3, 1)))) == [9, 1]


def test_jobs_are_taken_lazily_and_few_ahead(workers: Workers) -> None:
    taken = []

    def jobs() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = workers.map(slower_first, jobs())
    assert taken == []
    for done, _ in enumerate(results, start=1):
        assert len(taken) <= done + 4
        if done == 10:
            break


@pytest.mark.parametrize("kind", ERRORS)
def test_what_the_function_raises_arrives_as_it_is(kind: str, workers: Workers) -> None:
    wanted = ERRORS[kind]()
    with pytest.raises(type(wanted)) as caught:
        list(workers.map(fail, [kind]))
    assert str(caught.value) == str(wanted)
    assert caught.value.args == wanted.args
    seen = {name: value for name, value in vars(caught.value).items() if name != "__notes__"}
    assert seen == vars(wanted)
    assert list(workers.map(slower_first, [2])) == [4]  # and the workers go on


def test_an_error_among_the_jobs_comes_at_its_turn(workers: Workers) -> None:
    def jobs() -> Iterator[int]:
        yield 1
        raise OutputError("the jobs themselves failed")

    results = workers.map(slower_first, jobs())
    with pytest.raises(OutputError, match="the jobs themselves failed"):
        list(results)


def test_both_processes_work_and_only_as_many_are_started_as_there_are_jobs() -> None:
    with LocalWorkers(2) as workers:
        assert multiprocessing.active_children() == []
        assert len(set(workers.map(process_of, [1]))) == 1
        assert len(multiprocessing.active_children()) == 1
        made = set(workers.map(process_of, range(8)))
        assert len(made) == 2
        assert os.getpid() not in made
    assert multiprocessing.active_children() == []


def test_a_function_that_carries_much_is_sent_once_to_a_process() -> None:
    Heavy.sent = 0
    with LocalWorkers(1) as workers:
        assert list(workers.map(Heavy(), range(50))) == list(range(50))
        assert Heavy.sent == 1
        assert list(workers.map(partial(pow, 2), range(4))) == [1, 2, 4, 8]  # another one takes its place


def test_what_cannot_travel_says_so_and_harms_nothing() -> None:
    with LocalWorkers(1) as workers:
        with pytest.raises(RuntimeError, match="Local: cannot travel") as caught:
            list(workers.map(fail_strangely, [1]))
        assert "fail_strangely" in caught.value.__notes__[0]  # where it was, in the worker
        for function, jobs in ((slower_first, [lambda: 1]), (lambda job: job, [1]), (lambda_of, [1])):
            with pytest.raises((pickle.PicklingError, AttributeError, RuntimeError), match=r"pickle|lambda"):
                list(workers.map(function, jobs))  # type: ignore[arg-type, list-item]
        first = multiprocessing.active_children()
        assert list(workers.map(slower_first, [2])) == [4]
        assert multiprocessing.active_children() == first


def test_a_killed_worker_loses_nothing_and_the_others_do_not_notice(tmp_path: Path) -> None:
    names = ["a", "killed", "b", "c", "d"]
    with LocalWorkers(2) as workers:
        results = list(workers.map(die_once, [Job(name, tmp_path) for name in names]))
    assert [name for name, _ in results] == names
    begun = {name: (tmp_path / name).read_text().count("begun") for name in names}
    assert begun == {"a": 1, "killed": 2, "b": 1, "c": 1, "d": 1}


def test_a_worker_killed_between_jobs_is_replaced() -> None:
    with LocalWorkers(1) as workers:
        (first,) = workers.map(process_of, [1])
        os.kill(first, signal.SIGKILL)
        (second,) = workers.map(process_of, [1])
    assert first != second


def test_a_job_that_kills_each_worker_is_the_one_named(tmp_path: Path) -> None:
    """Not the job that was waited for, which is another."""
    jobs = [Job(name, tmp_path) for name in ("a", "b", "deadly", "c")]
    with LocalWorkers(2) as workers, pytest.raises(OutputError) as caught:
        list(workers.map(die, jobs))
    assert str(caught.value) == (
        "A worker process died 3 times at deadly (killed by SIGKILL). If the machine ran out of memory, try fewer "
        "--workers; if not, see whether that file is sound."
    )
    with LocalWorkers(1) as workers, pytest.raises(OutputError, match=r"died 3 times at \('x', 5\) \(exit code 7\)"):
        list(workers.map(leave, [("x", 5)]))


def test_leaving_is_prompt_whatever_is_at_work() -> None:
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError), LocalWorkers(2) as workers:
        for _ in workers.map(sleep, [0.1, 60, 60, 60, 60]):
            raise ZeroDivisionError
    assert time.monotonic() - begun < 10
    assert multiprocessing.active_children() == []


def test_attempt_and_outcome_carry_values_and_errors() -> None:
    assert outcome(attempt(lambda: (1, b"x"))) == (1, b"x")
    with pytest.raises(SystemExit) as caught:
        outcome(attempt(lambda: sys.exit(4)))
    assert caught.value.code == 4


JOBS = """
import os, time
from pathlib import Path

def job(folder):
    (folder / str(os.getpid())).touch()
    time.sleep(60)
"""
SCRIPT = """
import sys
from pathlib import Path
from efuda.workers import LocalWorkers
from jobs import job

with LocalWorkers(2) as workers:
    print(list(workers.map(job, [Path(sys.argv[1])] * 10)))
"""


def begin(folder: Path) -> subprocess.Popen[str]:
    (folder / "jobs.py").write_text(JOBS)
    (folder / "script.py").write_text(SCRIPT)
    (folder / "pids").mkdir()
    command = [sys.executable, str(folder / "script.py"), str(folder / "pids")]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(truth: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not truth() and time.monotonic() < end:
        time.sleep(0.02)
    return truth()


def is_gone(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def at_work(folder: Path) -> list[int]:
    assert wait_for(lambda: len(list((folder / "pids").iterdir())) == 2)
    return [int(path.name) for path in (folder / "pids").iterdir()]


def test_control_c_ends_all_at_once_and_only_the_parent_says_so(tmp_path: Path) -> None:
    with begin(tmp_path) as parent:
        processes = at_work(tmp_path)
        begun = time.monotonic()
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to every process
        _, said = parent.communicate(timeout=20)
    assert time.monotonic() - begun < 5
    assert said.count("Traceback") == 1
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert all(map(is_gone, processes))


@pytest.mark.parametrize("delay", [0.1, 0.15, 0.2, 0.3])
def test_control_c_while_workers_start(tmp_path: Path, delay: float) -> None:
    with begin(tmp_path) as parent:
        time.sleep(delay)
        os.killpg(parent.pid, signal.SIGINT)
        _, said = parent.communicate(timeout=20)
    assert said.count("Traceback") <= 1, said


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    with begin(tmp_path) as parent:
        processes = at_work(tmp_path)
        parent.kill()
        parent.communicate(timeout=20)
    assert wait_for(lambda: all(map(is_gone, processes)))


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import math\nfrom efuda.workers import LocalWorkers\nprint('once')\n"
        "with LocalWorkers(2) as workers:\n    print(sum(workers.map(math.sqrt, [1, 4, 9])))\n"
    )
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["once", "6.0"], "")
