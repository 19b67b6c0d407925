"""Ranges of the tensors that are to be quantised, read off a candidate that is fed real images.

The float file is run with reductions or samples as further outputs, so that no whole tensor is ever copied out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from search_spaces.network import Network, Node, Op, infer_shapes
from search_spaces.precision import FP32
from search_spaces.quantisation import plan_quantisation
from search_spaces.spec import Calibration
from workers.onnx_quantize import TensorRange, calibrated_tensors
from workers.onnx_session import open_session
from workers.onnx_writer import INPUT_NAME, write_onnx
from workers.ranges import range_of_sample

BATCH = 16
"""Small enough for the activations to stay in the cache."""

_SAMPLES_PER_IMAGE = 512
_OFFSET = "offset"
_OFFSET_STEP = 61


def calibrate(
    network: Network,
    weights: Mapping[str, np.ndarray],
    images: np.ndarray,
    method: Calibration = Calibration.MIN_MAX,
    threads: int = 1,
) -> dict[str, TensorRange]:
    """The ranges that `write_onnx` needs for this folded network.

    Args:
        network: with the precisions that are wanted; it is run in fp32.
        weights: of the folded network, float32.
        images: float32 (n, C, H, W), normalised, n >= 1.
        method: of telling the range.
        threads: that ONNX Runtime computes with.
    """
    probes = [_probe(node, method) for node in _observed_nodes(network)]
    if not probes:
        return {}
    session = open_session(_probed_model(network, weights, probes), threads)
    names = [output for probe in probes for output in probe.outputs]
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    runs = [session.run(names, _feed(batch, number, method)) for number, batch in enumerate(batches)]
    seen = {name: np.concatenate([np.ravel(run[index]) for run in runs]) for index, name in enumerate(names)}
    bits = plan_quantisation(network).bits
    return {probe.tensor: _range(probe, seen, bits[probe.tensor], method) for probe in probes}


@dataclass(frozen=True)
class _Probe:
    """What is read of one tensor, and the names of the outputs that carry it; an empty name is not read."""

    tensor: str
    low: str = ""
    high: str = ""
    sample: str = ""

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name in (self.low, self.high, self.sample) if name)


def _feed(batch: np.ndarray, number: int, method: Calibration) -> dict[str, np.ndarray]:
    """Another offset for each batch, so that a sample comes to every position."""
    if method is Calibration.MIN_MAX:
        return {INPUT_NAME: batch}
    return {INPUT_NAME: batch, _OFFSET: np.array([number * _OFFSET_STEP], np.int64)}


def _observed_nodes(network: Network) -> list[Node]:
    nodes = network.by_name()
    return [nodes[name] for name in calibrated_tensors(network)]


def _probe(node: Node, method: Calibration) -> _Probe:
    if method is not Calibration.MIN_MAX:
        return _Probe(node.name, sample=f"{node.name}/sample")
    # Nothing is below zero behind a relu, so that is not looked for.
    low = "" if node.op in (Op.RELU, Op.RELU6) else f"{node.name}/low"
    return _Probe(node.name, low, f"{node.name}/high")


def _range(probe: _Probe, seen: Mapping[str, np.ndarray], bits: int, method: Calibration) -> TensorRange:
    if probe.sample:
        return range_of_sample(seen[probe.sample], bits, method)
    return float(seen[probe.low].min()) if probe.low else 0.0, float(seen[probe.high].max())


def _probed_model(network: Network, weights: Mapping[str, np.ndarray], probes: Sequence[_Probe]) -> bytes:
    """The fp32 file for any batch, with the probes as further outputs."""
    floats = {layer.name: replace(layer, precision=FP32) for layer in network.compute_nodes()}
    model = onnx.ModelProto.FromString(write_onnx(network.with_nodes(floats), weights, batch="N"))
    shapes = infer_shapes(network)
    if any(probe.sample for probe in probes):
        offset = onnx.helper.make_tensor_value_info(_OFFSET, onnx.TensorProto.INT64, [1])
        model.graph.input.append(offset)
    for probe in probes:
        for output in probe.outputs:
            model.graph.output.add(name=output).type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        if probe.sample:
            _add_sample(model.graph, probe, int(np.prod(shapes[probe.tensor])))
        if probe.low:
            model.graph.node.add(op_type="ReduceMin", input=[probe.tensor], output=[probe.low])
        if probe.high:
            # On maps a pool runs in the layout of ONNX Runtime's convs; a reduction would first convert the map.
            reduction = "GlobalMaxPool" if len(shapes[probe.tensor]) == 3 else "ReduceMax"
            model.graph.node.add(op_type=reduction, input=[probe.tensor], output=[probe.high])
    return bytes(model.SerializeToString())


def _add_sample(graph: onnx.GraphProto, probe: _Probe, size: int) -> None:
    """Every so many-th value of each image, from the offset on."""
    step = max(1, size // _SAMPLES_PER_IMAGE)
    while math.gcd(step, size) > 1:  # A step that shares no factor with the size drifts over the columns.
        step += 1
    for part, value in {"end": size, "axis": 1, "step": step}.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([value], np.int64), f"{probe.sample}/{part}"))
    flat, start = f"{probe.sample}/flat", f"{probe.sample}/start"
    graph.node.add(op_type="Mod", input=[_OFFSET, f"{probe.sample}/step"], output=[start])
    graph.node.add(op_type="Flatten", input=[probe.tensor], output=[flat])
    slicing = [flat, start, *(f"{probe.sample}/{part}" for part in ("end", "axis", "step"))]
    graph.node.add(op_type="Slice", input=slicing, output=[probe.sample])
