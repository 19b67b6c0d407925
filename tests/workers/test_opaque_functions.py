"""Activation functions of imported networks in torch: the same values as in ONNX Runtime, and a gradient."""

import numpy as np
import onnx
import pytest
import torch

from workers import opaque
from workers.onnx_session import open_session

ATTRIBUTES = {"LeakyRelu": {"alpha": 0.2}, "Elu": {"alpha": 1.5}, "Celu": {"alpha": 2.0}, "Selu": {}}
POSITIVE = {"Log", "Sqrt", "Reciprocal"}


def body_of(function: str, **attributes: float) -> str:
    node = onnx.helper.make_node(function, [opaque.input_name(0)], [opaque.OUTPUT], **attributes)
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 6])
        for name in (opaque.input_name(0), opaque.OUTPUT)
    ]
    return opaque.encode_body(onnx.helper.make_graph([node], "body", ends[:1], ends[1:]))


@pytest.mark.parametrize("function", sorted(opaque._IN_TORCH))
@pytest.mark.parametrize("with_attributes", [False, True])
def test_it_computes_what_onnx_runtime_does_and_passes_a_gradient(function, with_attributes):
    body = body_of(function, **(ATTRIBUTES.get(function, {}) if with_attributes else {}))
    values = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    values = np.abs(values) + 0.1 if function in POSITIVE else values
    model = onnx.ModelProto(ir_version=opaque.IR_VERSION, graph=opaque.decode_body(body))
    model.opset_import.add(domain="", version=opaque.OPSET)
    (expected,) = open_session(model.SerializeToString(), 1).run(None, {opaque.input_name(0): values})
    inputs = torch.from_numpy(values).requires_grad_()
    outputs = opaque.compute(body, [inputs])
    np.testing.assert_allclose(outputs.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    torch.autograd.backward(outputs.sum())
    assert opaque.is_differentiable(body)
    assert torch.isfinite(inputs.grad).all()
    assert (inputs.grad != 0).any()
