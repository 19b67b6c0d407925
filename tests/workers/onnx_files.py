"""Small ONNX files for tests: made by torch's exporters, by our own writer, or node by node."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

SHAPE = (3, 16, 16)


def exported(module: nn.Module, *, dynamo: bool = False, opset: int = 17, shape: tuple[int, ...] = SHAPE) -> bytes:
    """A module in evaluation mode, batch open, as either of torch's exporters writes it."""
    module = with_odd_norms(module).eval()
    example, file = torch.randn(1, *shape), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            sizes = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(module, (example,), dynamo=True, dynamic_shapes=sizes, verbose=False)
            assert program is not None
            return bytes(program.model_proto.SerializeToString())
        torch.onnx.export(
            module, (example,), file, dynamo=False, opset_version=opset, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    return file.getvalue()


def exported_with_norms(module: nn.Module, shape: tuple[int, ...] = SHAPE) -> bytes:
    """As with training=PRESERVE: batch norms are not folded away, and shapes are computed in the file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            with_odd_norms(module).eval(),
            (torch.randn(1, *shape),),
            file,
            dynamo=False,
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return file.getvalue()


def with_odd_norms(module: nn.Module) -> nn.Module:
    """Batch norms with statistics that are not neutral, so that forgetting one shows."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor in (part.running_mean, part.bias.data):
                tensor.normal_(0, 0.3, generator=generator)
            for tensor in (part.running_var, part.weight.data):
                tensor.uniform_(0.5, 1.5, generator=generator)
    return module


class Body(nn.Module):
    """A function of maps between a conv and a classifier."""

    def __init__(self, middle: Callable[[torch.Tensor], torch.Tensor], channels: int = 8, outputs: int = 0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(SHAPE[0], channels, 3, padding=1)
        self.middle = middle
        self.head = nn.Conv2d(outputs or channels, 6, 1)
        self.classifier = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.head(self.middle(self.stem(x))).mean((2, 3)))


def model_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    *,
    shape: tuple[Any, ...] = ("n", *SHAPE),
    opset: int = 17,
    output: str = "y",
) -> onnx.ModelProto:
    """A model of hand-written nodes, from `x` to `y`, unchecked."""
    graph = onnx.GraphProto(name="written", node=nodes)
    graph.input.append(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape))
    graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    model = onnx.ModelProto(ir_version=8, graph=graph)
    model.opset_import.add(domain="", version=opset)
    return model


def plain_parts(channels: int = 4) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes and constants of a conv, a pool and a classifier: a network that can be imported."""
    generator = np.random.default_rng(0)
    constants = {
        "w": generator.normal(size=(channels, SHAPE[0], 3, 3)).astype(np.float32),
        "v": generator.normal(size=(5, channels)).astype(np.float32),
    }
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["a"], ["b"]),
        onnx.helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        onnx.helper.make_node("Flatten", ["c"], ["d"]),
        onnx.helper.make_node("Gemm", ["d", "v"], ["y"], name="last", transB=1),
    ]
    return nodes, constants


def run(model: bytes, images: np.ndarray) -> np.ndarray:
    """The outputs, one image at a time."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0].reshape(1, -1) for image in images])
