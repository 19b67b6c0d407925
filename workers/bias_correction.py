"""Biases corrected for what rounding the weights does to the mean of each output channel.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019), section 4.2: rounded
weights shift the outputs by E[W' x] - E[W x] = (W' - W) * E[x]. Means are those of calibration images here, place by
place, so that padding and stride count as they do in the layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import torch

from search_spaces.network import Network, Node, infer_shapes
from search_spaces.precision import FLOAT_BITS, FP32
from workers.onnx_session import open_session
from workers.onnx_writer import INPUT_NAME, write_onnx
from workers.torch_network import OPERATORS
from workers.weights import Weights

BATCH = 16
"""As in calibration: activations stay in the cache."""


def correct_biases(
    network: Network, weights: Mapping[str, np.ndarray], rounded: Weights, images: np.ndarray, threads: int = 1
) -> Weights:
    """`rounded` with corrected biases. A layer without one stays as it is; folding gives one to each that had a norm.

    Args:
        network: folded.
        weights: of it, before rounding.
        rounded: the same with every layer's weights on the grid of its precision.
        images: float32 (n, C, H, W), normalised, n >= 1.
        threads: that ONNX Runtime computes with.
    """
    layers = [node for node in network.compute_nodes() if node.bias and node.precision.weight_bits < FLOAT_BITS]
    if not layers:
        return rounded
    means = input_means(network, weights, [layer.inputs[0] for layer in layers], images, threads)
    return rounded | {
        f"{layer.name}.bias": rounded[f"{layer.name}.bias"] - _shift(layer, weights, rounded, means[layer.inputs[0]])
        for layer in layers
    }


def input_means(
    network: Network, weights: Mapping[str, np.ndarray], tensors: list[str], images: np.ndarray, threads: int = 1
) -> dict[str, np.ndarray]:
    """Mean over the images of each named tensor in fp32, without its batch dimension."""
    means, shapes = {network.nodes[0].name: images.mean(axis=0)}, infer_shapes(network)
    sums = {name: np.zeros(shapes[name]) for name in tensors if name not in means}
    if sums:
        session = open_session(_summing_model(network, weights, list(sums)), threads)
        outputs = [f"{name}/sum" for name in sums]
        for start in range(0, len(images), BATCH):
            totals = session.run(outputs, {INPUT_NAME: images[start : start + BATCH]})
            for name, total in zip(sums, totals, strict=True):
                sums[name] += total
    return means | {name: total / len(images) for name, total in sums.items()}


def _summing_model(network: Network, weights: Mapping[str, np.ndarray], tensors: list[str]) -> bytes:
    floats = {layer.name: replace(layer, precision=FP32) for layer in network.compute_nodes()}
    model = onnx.ModelProto.FromString(write_onnx(network.with_nodes(floats), weights, batch="N"))
    for name in tensors:
        model.graph.node.add(op_type="ReduceSum", input=[name, "batch/axis"], output=[f"{name}/sum"]).attribute.append(
            onnx.helper.make_attribute("keepdims", 0)
        )
        model.graph.output.add(name=f"{name}/sum").type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), "batch/axis"))
    return bytes(model.SerializeToString())


class _Difference:
    """What rounding adds to one layer's weights, for the torch interpreter; its bias is left out."""

    training = False

    def __init__(self, layer: Node, weights: Mapping[str, np.ndarray], rounded: Weights) -> None:
        name = f"{layer.name}.weight"
        self._arrays = {name: torch.from_numpy(rounded[name].astype(np.float64) - weights[name])}

    def weight(self, name: str) -> torch.Tensor | None:
        return self._arrays.get(name)


def _shift(layer: Node, weights: Mapping[str, np.ndarray], rounded: Weights, mean: np.ndarray) -> np.ndarray:
    """Mean change of each output channel, (O,): a layer is linear, so that of the mean input is that of all."""
    change = OPERATORS[layer.op](_Difference(layer, weights, rounded), layer, [torch.from_numpy(mean)[None].double()])
    shift: np.ndarray = change[0].flatten(1).mean(dim=1).numpy() if change.ndim > 2 else change[0].numpy()
    return shift.astype(np.float32)
