"""A loaded network, whatever runs it: what it takes, what it gives, and `run`, which threads may call at once.

network = open_onnx(Path("model/model.onnx"), threads=4)
network.shape                       # ["batch", 448, 448, 3]
network.run(["output"], batch)      # [float32 [n, tags]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from efuda.errors import ArtifactError
from efuda.workers import cores

__all__ = ["Network", "external_data", "open_onnx", "what_it_is_instead"]

_AGAIN: Final = "Copy, fetch or export the model again."


class Network(Protocol):
    """What a tagger needs of one.

    Attributes:
        shape: of its one input; a name or None stands for any number.
        on_device: whether a GPU runs it.
        outputs: name → width, None where it is not a row of numbers a picture or the file does not say.
    """

    @property
    def shape(self) -> Sequence[int | str | None]: ...

    @property
    def on_device(self) -> bool: ...

    @property
    def outputs(self) -> dict[str, int | None]: ...

    def run(self, outputs: Sequence[str], batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The named outputs for a batch."""
        ...


@dataclass(frozen=True)
class _Onnx:
    session: Any

    @property
    def shape(self) -> Sequence[int | str | None]:
        shape: list[int | str | None] = self.session.get_inputs()[0].shape
        return shape

    @property
    def on_device(self) -> bool:
        return bool(self.session.get_providers()[0] != "CPUExecutionProvider")

    @property
    def outputs(self) -> dict[str, int | None]:
        return {
            output.name: output.shape[1] if len(output.shape) == 2 and isinstance(output.shape[1], int) else None
            for output in self.session.get_outputs()
        }

    def run(self, outputs: Sequence[str], batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        taken = self.session.get_inputs()[0]
        values = batch.astype(np.float16) if taken.type == "tensor(float16)" else batch
        given = self.session.run(list(outputs), {taken.name: values})
        return [np.asarray(output, dtype=np.float32) for output in given]


def open_onnx(path: Path, threads: int | None) -> Network:
    """Load an ONNX file.

    Args:
        threads: for the model; all cores by default.

    Raises:
        ArtifactError: it is truncated, or something else than a network of one input.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.log_severity_level = 3
    # A thread that waits for work would otherwise keep its core busy, which the decoding threads need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own classes, with no common base
        why = what_it_is_instead(path) or (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{path} cannot be loaded: {why}. {_AGAIN}") from error
    if len(session.get_inputs()) != 1 or not session.get_outputs():
        raise ArtifactError(f"{path} takes {len(session.get_inputs())} inputs, so it is no tagger: name another model.")
    return _Onnx(session)


def external_data(weights: Path) -> list[Path]:
    """Where ONNX files that are too large for one file keep the rest: beside them, by one of two names."""
    beside = [weights.with_name(weights.name + suffix) for suffix in (".data", "_data")]
    return [path for path in beside if path.is_file()]


def what_it_is_instead(path: Path) -> str | None:
    """What a file of weights often is in truth, in words; None where it may be weights."""
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError as error:
        return str(error.strerror or error)
    text = start.lstrip().lower()
    if not start:
        return "it is empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, as a proxy or a login page sends in place of a file"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself; run git lfs pull, or download it"
    return None
