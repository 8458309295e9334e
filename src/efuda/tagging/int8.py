"""Static quantisation: a `model.onnx` in 8-bit integers, calibrated on a stream of inputs; needs the extra `train`.

    quantiser = Quantiser(Path("model/model.onnx"), batches)     # batches: float32 inputs, as Tagger.scores takes them
    quantiser.write(Path("int8.onnx"))
    quantiser.write(Path("int8.onnx"), keep=quantiser.by_sensitivity()[:4])

Activations are unsigned, one scale a tensor (the range seen in calibration); weights are signed, one scale a channel.
Processors without VNNI add pairs of products in 16 bits, which overflow: there, weights have 7 bits. Dynamic
quantisation is not offered: on convolutions it is slower than float32.
"""

from __future__ import annotations

import copy
import platform
import statistics
import time
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from efuda.errors import ArtifactError, ExportError, MissingExtra
from efuda.files import replacing
from efuda.tagging.tagger import Tagger

__all__ = ["Quantiser", "needs_reduced_range", "pictures_a_second"]

Inputs = NDArray[np.float32]
_WEIGHTED: Final = ("Conv", "Gemm", "MatMul")
# These pass 8 bits on, or are fused with what has weights; what else there is works in float32.
_PASSED_ON: Final = ("Clip", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Flatten", "Reshape")
_TRANSFORMER: Final = frozenset({"LayerNormalization", "Softmax"})
_OPSET: Final = 13  # scales a channel came with it
_SENSED: Final = 16  # pictures that the layers' errors are measured on


def needs_reduced_range(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor's 8-bit products may overflow: x86 without VNNI, or an x86 that does not say."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    try:
        flags = cpu_info.read_text(encoding="utf-8")
    except OSError:
        return True
    return "avx512_vnni" not in flags and "avx_vnni" not in flags


class Quantiser:
    """A model whose tensors' ranges are known, to be written with any of its layers kept in float32.

    Attributes:
        layers: names of the nodes that have weights, in the order of the graph.
    """

    def __init__(self, source: Path, inputs: Iterable[Inputs], *, reduced_range: bool | None = None) -> None:
        """Read the model and see the range of every tensor on the inputs.

        Args:
            inputs: batches; a few are in memory at a time, the first is kept.
            reduced_range: weights of 7 bits; by default where this processor needs it.

        Raises:
            ArtifactError: the model cannot be read, or has nothing to quantise.
            MissingExtra: onnx is not installed.
        """
        self.reduced_range = needs_reduced_range() if reduced_range is None else reduced_range
        self._model = _prepared(source)
        nodes = self._model.graph.node
        self.layers = tuple(node.name for node in nodes if node.op_type in _WEIGHTED)
        if not self.layers:
            raise ArtifactError(f"{source} has no convolution and no matrix product, so there is nothing to quantise.")
        transformer = any(node.op_type in _TRANSFORMER for node in nodes)
        # Sums of residuals in a transformer have outliers that 8 bits do not hold.
        self._types = [*_WEIGHTED, *([] if transformer else ["Add"]), *_PASSED_ON]
        self._seen: list[Inputs] = []
        self._ranges = self._calibrated(inputs)

    def write(self, out: Path, keep: Collection[str] = ()) -> None:
        """Write the quantised model, whole or not at all; the layers in `keep` stay in float32."""
        import onnx

        with replacing(out) as beside:
            onnx.save(self._quantised([name for name in self.layers if name not in keep]), str(beside))

    def by_sensitivity(self) -> list[str]:
        """The layers, worst first: by how far the first output moves when that layer alone is quantised."""
        import onnxruntime

        def outputs(model: Any) -> Inputs:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
            )
            name = session.get_inputs()[0].name
            return np.concatenate([session.run(None, {name: batch})[0] for batch in self._seen])

        exact = outputs(self._model)
        errors = {layer: float(np.abs(outputs(self._quantised([layer])) - exact).mean()) for layer in self.layers}
        return sorted(self.layers, key=lambda layer: -errors[layer])

    def _calibrated(self, inputs: Iterable[Inputs]) -> Any:
        import onnx
        from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

        kept = self._keeping(inputs)
        first = next(kept, None)
        if first is None:
            raise ExportError("There is no picture to calibrate 8-bit integers on.")
        (name,) = [entry.name for entry in self._model.graph.input]
        with TemporaryDirectory(prefix="efuda-int8-") as folder:
            prepared = Path(folder) / "prepared.onnx"
            onnx.save(self._model, str(prepared))
            calibrator = create_calibrator(
                prepared, self._types, str(Path(folder) / "augmented.onnx"), calibrate_method=CalibrationMethod.MinMax
            )
            calibrator.collect_data(_Reader(chain([first], kept), name))
            return calibrator.compute_data()

    def _keeping(self, inputs: Iterable[Inputs]) -> Iterator[Inputs]:
        for batch in inputs:
            if sum(map(len, self._seen)) < _SENSED:
                self._seen.append(batch)
            yield batch

    def _quantised(self, layers: Collection[str]) -> Any:
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import QuantType

        model = copy.deepcopy(self._model)
        left_out = [node.name for node in model.graph.node if node.op_type in _WEIGHTED and node.name not in layers]
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=self.reduced_range,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=list(layers) if len(layers) == 1 else [],
            nodes_to_exclude=left_out,
            op_types_to_quantize=self._types,
            # What a layer writes has 8 bits only where another one reads it so: logits in 8 bits are coarse, and a
            # layer that is kept has neighbours.
            extra_options={"OpTypesToExcludeOutputQuantization": list(_WEIGHTED)},
        )
        quantizer.quantize_model()
        return quantizer.model.model


class _Reader:
    """Batches as onnxruntime's calibration asks for them."""

    def __init__(self, inputs: Iterable[Inputs], name: str) -> None:
        self._inputs, self._name = iter(inputs), name

    def get_next(self) -> dict[str, Inputs] | None:
        batch = next(self._inputs, None)
        return None if batch is None else {self._name: batch}


def pictures_a_second(taggers: Collection[Tagger], batch: Inputs, *, rounds: int = 5) -> list[float]:
    """Each tagger's speed on the same batch, median of rounds in turn, so that company on the machine is shared."""
    seconds: list[list[float]] = [[] for _ in taggers]
    for number in range(rounds + 1):
        for taken, tagger in zip(seconds, taggers, strict=True):
            began = time.perf_counter()
            tagger.scores(batch)
            if number:  # the first warms up
                taken.append(time.perf_counter() - began)
    return [len(batch) / statistics.median(taken) for taken in seconds]


def _prepared(source: Path) -> Any:
    """The model with shapes, a name for every node, and an operator set that has scales a channel."""
    try:
        import onnx
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ModuleNotFoundError as error:
        raise MissingExtra("Quantisation", "train", "onnx") from error
    try:
        model = onnx.load(str(source))
        if next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) < _OPSET:
            model = onnx.version_converter.convert_version(model, _OPSET)
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{number}"
        with TemporaryDirectory(prefix="efuda-int8-") as folder:
            named, shaped = str(Path(folder) / "named.onnx"), str(Path(folder) / "shaped.onnx")
            onnx.save(model, named)
            quant_pre_process(named, shaped, skip_symbolic_shape=True)
            return onnx.load(shaped)
    except Exception as error:  # onnx and onnxruntime raise classes without a common base
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{source} cannot be prepared for quantisation: {line}.") from error


def _options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options
