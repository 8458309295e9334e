"""What tagging costs who only tags: size of the base install, start-up, one picture; in a fresh virtual environment.

    python benchmarks/base_install.py [--model demo/model] [--picture demo/pictures/test/….jpg]

Limits we set ourselves: 350 MB, 0.5 s, 2.5 s. Prints the median of five runs. The model is the demo's by default;
without one, only size and start-up are measured, and that is said.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "demo" / "model")
    parser.add_argument("--picture", type=Path, default=None)
    options = parser.parse_args()
    picture = options.picture or next(iter(sorted((ROOT / "demo" / "pictures").rglob("*.jpg"))), None)
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder, "venv")
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        before = size_mb(environment)
        pip = [environment / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", ROOT / "constraints.txt", str(ROOT)], check=True)
        efuda = environment / "bin" / "efuda"
        print(f"base install            {size_mb(environment) - before:6.0f} MB   (limit 350)")
        print(f"efuda --help            {seconds([efuda, '--help']):6.2f} s    (limit 0.5)")
        if not (options.model / "model.onnx").is_file() or picture is None:
            print(f"efuda tag, one picture  not measured: {options.model} or a picture is absent; run make demo first")
            return
        command = [efuda, "-q", "tag", picture, "--model", options.model, "--to", "jsonl"]
        print(f"efuda tag, one picture  {seconds(command):6.2f} s    (limit 2.5)")


def seconds(command: list[str | Path]) -> float:
    """Median of five whole processes, after one that warms the disk cache."""
    times = []
    for _ in range(6):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def size_mb(folder: Path) -> float:
    """Bytes of all files beneath, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


if __name__ == "__main__":
    main()
