"""The interpreters of a Network agree: torch and ONNX Runtime in float, ONNX Runtime and a reference in integers."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from search_spaces.catalog import build_network
from search_spaces.network import ACTIVATION_OPS, InputContract, Network, Node, Op, Shape, infer_shapes
from search_spaces.precision import FP32, W8A8, Precision
from search_spaces.quantisation import is_quantised_layer, plan_quantisation
from search_spaces.spec import Family, NetworkSpec
from workers.calibrate import calibrate
from workers.fold import fold_batch_norms
from workers.onnx_quantize import (
    activation_grid,
    image_range,
    quantise_bias,
    quantise_weight,
)
from workers.onnx_session import (
    PrecisionMismatch,
    check_executed,
    open_session,
)
from workers.onnx_writer import INPUT_NAME, OUTPUT_NAME, with_batch, write_onnx
from workers.splits import normalise
from workers.testing import random_weights
from workers.torch_network import OPERATORS, build_module
from workers.weights import Weights

SHAPE = (4, 8, 8)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make_network(*nodes: Node, shape: tuple[int, int, int] = SHAPE) -> Network:
    contract = InputContract(shape, (0.4,) * shape[0], (0.3,) * shape[0])
    return Network("small", contract, (Node("input", Op.INPUT), *nodes), nodes[-1].name)


def random_images(network: Network, count: int, seed: int = 1) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *network.input.shape), dtype=np.uint8)
    return normalise(pixels, network.input)


def run_torch(network: Network, weights: Weights, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return build_module(network, weights).eval()(torch.from_numpy(images)).numpy()


def run_onnx(model: bytes, images: np.ndarray) -> np.ndarray:
    return open_session(model).run([OUTPUT_NAME], {INPUT_NAME: images})[0]


def with_precision(network: Network, precision: Precision, *blocks: str) -> Network:
    """Every layer, or those of the named blocks, in another precision."""
    chosen = [layer for layer in network.compute_nodes() if not blocks or layer.block in blocks]
    return network.with_nodes({layer.name: replace(layer, precision=precision) for layer in chosen})


def fake_quantised(network: Network, weights: Weights, ranges: dict, images: np.ndarray) -> np.ndarray:
    """The meaning of a quantised network in float64: every tensor that is read in integers is rounded to its grid."""
    plan = plan_quantisation(network)
    ranges = {**ranges, network.nodes[0].name: image_range(network.input)}
    grids = {name: activation_grid(ranges[name], bits) for name, bits in plan.bits.items()}
    rounded = dict(weights)
    for layer in filter(is_quantised_layer, network.compute_nodes()):
        integers, scale = quantise_weight(weights[f"{layer.name}.weight"], layer.precision.weight_bits)
        rounded[f"{layer.name}.weight"] = integers * scale.reshape(-1, *[1] * (integers.ndim - 1))
        if layer.bias:
            input_scale = grids[plan.root[layer.inputs[0]]].scale
            bias, bias_scale = quantise_bias(weights[f"{layer.name}.bias"], input_scale, scale)
            rounded[f"{layer.name}.bias"] = bias * bias_scale
    tensors = {network.nodes[0].name: torch.from_numpy(images).double()}

    def read(reader: str, tensor: str) -> torch.Tensor:
        if not plan.reads_quantised(reader, tensor):
            return tensors[tensor]
        grid = grids[plan.root[tensor]]
        integers = torch.clamp(torch.round(tensors[tensor] / float(grid.scale)) + grid.zero_point, 0, grid.top)
        return (integers - grid.zero_point) * float(grid.scale)

    for node in network.nodes[1:]:
        inputs = [read(node.name, name) for name in node.inputs]
        tensors[node.name] = OPERATORS[node.op](DoubleWeights(rounded), node, inputs)
    return read("", network.output).numpy()


class DoubleWeights:
    """Weights for the torch interpreter's operators, in float64."""

    training = False

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def weight(self, name: str) -> torch.Tensor | None:
        return torch.from_numpy(self._weights[name]).double() if name in self._weights else None


CONV = Node("conv", Op.CONV, ("input",), channels=8, kernel=(3, 3), padding=(1, 1, 1, 1), bias=True)
HEAD = (Node("mean", Op.GLOBAL_AVERAGE_POOL, ("next",)), Node("flat", Op.FLATTEN, ("mean",)))
GRAPHS = {
    "conv": (CONV,),
    "conv without bias": (replace(CONV, bias=False),),
    "conv with stride": (replace(CONV, stride=(2, 2)),),
    "conv padded on one side": (replace(CONV, padding=(0, 1, 2, 0)),),
    "oblong conv": (replace(CONV, kernel=(1, 3), padding=(0, 1, 0, 1), stride=(2, 1)),),
    "odd channels": (replace(CONV, channels=7),),
    "depthwise": (replace(CONV, channels=4, groups=4),),
    "depthwise with multiplier": (replace(CONV, channels=8, groups=4),),
    "grouped": (replace(CONV, groups=2),),
    "batch norm": (CONV, Node("norm", Op.BATCH_NORM, ("conv",))),
    "batch norm on the input": (Node("norm", Op.BATCH_NORM, ("input",)),),
    "relu": (CONV, Node("relu", Op.RELU, ("conv",))),
    "relu6": (CONV, Node("relu", Op.RELU6, ("conv",))),
    "sigmoid": (CONV, Node("sigmoid", Op.SIGMOID, ("conv",))),
    "hard sigmoid": (CONV, Node("gate", Op.HARD_SIGMOID, ("conv",))),
    "swish": (CONV, Node("swish", Op.SWISH, ("conv",))),
    "hard swish": (CONV, Node("swish", Op.HARD_SWISH, ("conv",))),
    "dilated conv": (replace(CONV, dilation=(2, 3), padding=(2, 3, 2, 3)),),
    "dilated depthwise": (replace(CONV, channels=4, groups=4, dilation=(2, 2), padding=(2, 2, 2, 2)),),
    "slice": (CONV, Node("slice", Op.SLICE, ("conv",), channels=3, start=2)),
    "pad": (CONV, Node("pad", Op.PAD, ("conv",), padding=(0, 1, 2, 0))),
    "add": (CONV, replace(CONV, name="other"), Node("add", Op.ADD, ("conv", "other"))),
    "add of three": (CONV, replace(CONV, name="b"), replace(CONV, name="c"), Node("add", Op.ADD, ("conv", "b", "c"))),
    "multiply": (CONV, replace(CONV, name="other"), Node("multiply", Op.MULTIPLY, ("conv", "other"))),
    "gate": (
        CONV,
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("conv",)),
        Node("squeeze", Op.CONV, ("pool",), channels=8, bias=True),
        Node("sigmoid", Op.SIGMOID, ("squeeze",)),
        Node("multiply", Op.MULTIPLY, ("conv", "sigmoid")),
    ),
    "concat": (CONV, replace(CONV, name="other", channels=4), Node("concat", Op.CONCAT, ("conv", "other"))),
    "shuffle": (CONV, Node("shuffle", Op.SHUFFLE, ("conv",), groups=2)),
    "max pool": (CONV, Node("pool", Op.MAX_POOL, ("conv",), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1))),
    "average pool": (CONV, Node("pool", Op.AVERAGE_POOL, ("conv",), kernel=(3, 3), stride=(2, 2), padding=(1,) * 4)),
    "global average pool": (CONV, Node("pool", Op.GLOBAL_AVERAGE_POOL, ("conv",))),
    "linear": (
        Node("flatten", Op.FLATTEN, ("input",)),
        Node("linear", Op.LINEAR, ("flatten",), channels=5, bias=True),
        Node("relu", Op.RELU, ("linear",)),
        Node("last", Op.LINEAR, ("relu",), channels=3),
    ),
}


@pytest.mark.parametrize("nodes", GRAPHS.values(), ids=GRAPHS.keys())
def test_torch_and_onnx_runtime_agree_on_each_operator(nodes):
    network = make_network(*nodes)
    weights, images = random_weights(network), random_images(network, 3)
    model = write_onnx(network, weights, batch=3)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    np.testing.assert_allclose(run_onnx(model, images), run_torch(network, weights, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("nodes", GRAPHS.values(), ids=GRAPHS.keys())
def test_integers_mean_what_the_reference_says_for_each_operator(nodes):
    network = with_precision(make_network(*nodes), W8A8)
    assert_integers_agree(network, random_weights(network))


@pytest.mark.parametrize("activation", sorted(ACTIVATION_OPS))
def test_float_layers_are_found_whatever_was_fused_into_them(activation):
    network = make_network(CONV, Node("y", activation, ("conv",)), replace(CONV, name="next", inputs=("y",)), *HEAD)
    assert set(check_executed(network, write_onnx(network, random_weights(network)))) == {"conv", "next"}


def assert_integers_agree(network: Network, weights: Weights, steps: float = 2.0) -> None:
    """Equal but for roundings at ties, which may move a value by a grid step or two of the widest tensor.

    Both sides round after other orders of addition, so a tie may fall either way; nothing else may differ.
    """
    network, weights = fold_batch_norms(network, weights)
    images = random_images(network, 16)
    ranges = calibrate(network, weights, images)
    model = write_onnx(network, weights, ranges, batch=16)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    actual, expected = run_onnx(model, images), fake_quantised(network, weights, ranges, images)
    step = (expected.max() - expected.min()) / 255
    assert np.abs(actual - expected).max() <= steps * step + 1e-4
    assert np.abs(actual - expected).mean() <= 0.25 * step + 1e-4


class Sketch:
    """A network that is being drawn, node by node."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.shape = (draw(st.sampled_from([1, 3, 8])), 8, 8)
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {"input": self.shape}

    def append(self, op: Op, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(Node(f"n{len(self.nodes)}.{op}", op, inputs, **attributes))
        self.shapes = infer_shapes(self.network())
        return self.nodes[-1].name

    def conv(self, source: str, channels: int, **attributes: Any) -> str:
        window = {"kernel": (3, 3), "padding": (1, 1, 1, 1), "bias": self.draw(st.booleans())}
        return self.append(Op.CONV, source, channels=channels, **window, **attributes)

    def network(self) -> Network:
        return make_network(*self.nodes, shape=self.shape)


def grow_conv(sketch: Sketch, tip: str) -> str:
    stride = sketch.draw(st.sampled_from([(1, 1), (2, 2)]))
    return sketch.conv(tip, sketch.draw(st.sampled_from([8, 12, 16])), stride=stride)


def grow_grouped(sketch: Sketch, tip: str) -> str:
    channels = sketch.shapes[tip][0]
    return sketch.conv(tip, channels, groups=sketch.draw(st.sampled_from([channels, channels // 4, channels // 2])))


def grow_residual(sketch: Sketch, tip: str) -> str:
    channels = sketch.shapes[tip][0]
    inside = sketch.append(Op.RELU, sketch.conv(tip, channels))
    return sketch.append(Op.ADD, sketch.conv(inside, channels), tip)


def grow_gate(sketch: Sketch, tip: str) -> str:
    pooled = sketch.append(Op.GLOBAL_AVERAGE_POOL, tip)
    squeezed = sketch.append(Op.CONV, pooled, channels=sketch.shapes[tip][0], bias=True)
    return sketch.append(Op.MULTIPLY, tip, sketch.append(Op.SIGMOID, squeezed))


def grow_pool(sketch: Sketch, tip: str) -> str:
    if min(sketch.shapes[tip][1:]) < 2:
        return tip
    kind = sketch.draw(st.sampled_from([Op.MAX_POOL, Op.AVERAGE_POOL]))
    return sketch.append(kind, tip, kernel=(2, 2), stride=(2, 2))


GROWERS = (
    grow_conv,
    grow_grouped,
    grow_residual,
    grow_gate,
    grow_pool,
    lambda sketch, tip: sketch.append(Op.BATCH_NORM, tip),
    lambda sketch, tip: sketch.append(Op.RELU, tip),
    lambda sketch, tip: sketch.append(Op.RELU6, tip),
    lambda sketch, tip: sketch.append(Op.SHUFFLE, tip, groups=2),
    lambda sketch, tip: sketch.append(Op.CONCAT, sketch.conv(tip, 4), sketch.append(Op.RELU, sketch.conv(tip, 8))),
)


@st.composite
def random_networks(draw: st.DrawFn) -> Network:
    """Networks of every operator, with branches, ending in a classifier."""
    sketch = Sketch(draw)
    tip = sketch.conv("input", 8)
    for grow in draw(st.lists(st.sampled_from(GROWERS), min_size=1, max_size=6)):
        tip = grow(sketch, tip)
    flat = sketch.append(Op.FLATTEN, sketch.append(Op.GLOBAL_AVERAGE_POOL, tip))
    sketch.append(Op.LINEAR, flat, channels=5, bias=True)
    return sketch.network()


@QUICK
@given(random_networks())
def test_torch_and_onnx_runtime_agree_on_random_graphs_folded_and_not(network):
    weights, images = random_weights(network), random_images(network, 2)
    expected = run_torch(network, weights, images)
    for form in ((network, weights), fold_batch_norms(network, weights)):
        actual = run_onnx(write_onnx(*form, batch=2), images)
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


@QUICK
@given(random_networks())
def test_random_graphs_in_integers_execute_as_declared_and_mean_what_the_reference_says(network):
    quantised = with_precision(network, W8A8)
    folded, weights = fold_batch_norms(quantised, random_weights(quantised))
    ranges = calibrate(folded, weights, random_images(folded, 16))
    check_executed(folded, write_onnx(folded, weights, ranges))
    assert_integers_agree(quantised, random_weights(quantised), steps=8.0)


def catalog_network(family: Family) -> Network:
    return build_network(
        NetworkSpec(family=family, width=0.25, input=(3, 32, 32), stem_stride=1), 10, (0.5,) * 3, (0.3,) * 3
    )


def blocks_of(network: Network) -> list[str]:
    return list(dict.fromkeys(layer.block for layer in network.compute_nodes()))


def quantised_file(network: Network) -> tuple[Network, bytes]:
    """Folded and written with calibrated ranges."""
    folded, weights = fold_batch_norms(network, random_weights(network))
    return folded, write_onnx(folded, weights, calibrate(folded, weights, random_images(folded, 8)))


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("which", ["none", "all", "even", "odd"])
def test_catalog_networks_execute_as_declared_whichever_blocks_are_integers(family, which):
    network = catalog_network(family)
    chosen = {"none": [], "all": blocks_of(network), "even": blocks_of(network)[::2], "odd": blocks_of(network)[1::2]}
    quantised = with_precision(network, W8A8, *chosen[which]) if chosen[which] else network
    folded, model = quantised_file(quantised)
    executed = check_executed(folded, model)
    integers = {layer.name for layer in folded.compute_nodes() if layer.block in chosen[which]}
    assert {name for name, operator in executed.items() if operator.startswith("Q")} == integers
    assert executed.keys() == {layer.name for layer in folded.compute_nodes()}


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("precision", [Precision(4, 4), Precision(1, 2), Precision(8, 3)], ids=str)
def test_catalog_networks_in_few_bits_fuse(family, precision):
    """Also behind a relu6, whose own clip would keep the layer from fusing."""
    folded, model = quantised_file(with_precision(catalog_network(family), precision))
    assert set(check_executed(folded, model).values()) == {"QLinearConv", "QGemm"}


# ONNX Runtime has no integer form of MobileNet-V3's hard swish and hard sigmoid.
@pytest.mark.parametrize("family", [family for family in Family if family is not Family.MOBILENET_V3_SMALL])
def test_catalog_networks_in_integers_leave_no_float_work_between_layers(family):
    folded, model = quantised_file(with_precision(catalog_network(family), W8A8))
    operators = [node.op_type for node in optimised_graph(model).node]
    assert operators.count("QuantizeLinear") == 1, "the image"
    assert "DequantizeLinear" not in operators
    assert "Add" not in operators
    assert len(check_executed(folded, model)) == len(folded.compute_nodes())


def test_a_padded_average_of_integers_is_one_itself():
    pad = Node("pad", Op.PAD, ("conv",), padding=(0, 1, 2, 1))
    average = Node("average", Op.AVERAGE_POOL, ("pad",), kernel=(3, 3))
    network = make_network(CONV, pad, average, replace(CONV, name="next", inputs=("average",)), *HEAD)
    network = with_precision(network, W8A8)
    assert_integers_agree(network, random_weights(network))
    operators = [node.op_type for node in optimised_graph(quantised_file(network)[1]).node]
    assert (operators.count("QuantizeLinear"), operators.count("DequantizeLinear")) == (1, 1), "image and output"


@pytest.mark.parametrize("precision", [Precision(4, 4), Precision(2, 8), Precision(8, 3)], ids=str)
def test_low_bits_fuse_and_mean_what_the_reference_says(precision):
    network = with_precision(catalog_network(Family.MOBILENET_V1), precision)
    folded, model = quantised_file(network)
    assert set(check_executed(folded, model).values()) == {"QLinearConv", "QGemm"}
    assert [node.op_type for node in optimised_graph(model).node].count("DequantizeLinear") == 0
    for nodes in (GRAPHS["relu"], GRAPHS["add"], GRAPHS["linear"]):
        small = with_precision(make_network(*nodes), precision)
        coarse = 255 / (2 ** min(precision.activation_bits, precision.weight_bits) - 1)
        assert_integers_agree(small, random_weights(small), steps=2 * coarse)


def test_a_float_layer_that_would_silently_become_integers_is_named():
    network = with_precision(make_network(*chain(3)), W8A8)
    network = network.with_nodes({"conv1": replace(network.by_name()["conv1"], precision=FP32)})
    folded, model = quantised_file(network)
    with pytest.raises(PrecisionMismatch, match="conv1: declared fp32, executes as QLinearConv") as raised:
        check_executed(folded, model)
    assert list(raised.value.layers) == ["conv1"]


def test_a_file_whose_integers_do_not_execute_is_refused():
    network = make_network(*chain(2))
    model = write_onnx(network, random_weights(network))
    with pytest.raises(PrecisionMismatch, match="conv0: declared w8a8, executes as"):
        check_executed(with_precision(network, W8A8), model)


def chain(length: int) -> list[Node]:
    nodes, source = [], "input"
    for number in range(length):
        nodes += [
            replace(CONV, name=f"conv{number}", inputs=(source,)),
            Node(f"relu{number}", Op.RELU, (f"conv{number}",)),
        ]
        source = f"relu{number}"
    return nodes


def optimised_graph(model: bytes) -> onnx.GraphProto:
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = f"{folder}/optimised.onnx"
        options.log_severity_level = 3
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return onnx.load(f"{folder}/optimised.onnx").graph


def test_every_batch_size_gives_the_same_logits():
    for network in (make_network(*GRAPHS["shuffle"]), with_precision(make_network(*GRAPHS["linear"]), W8A8)):
        weights, images = random_weights(network), random_images(network, 4)
        model = write_onnx(network, weights, calibrate(network, weights, images))
        one_by_one = np.concatenate([run_onnx(model, images[index : index + 1]) for index in range(4)])
        for batch in (4, "N"):
            np.testing.assert_allclose(run_onnx(with_batch(model, batch), images), one_by_one, rtol=1e-5, atol=1e-5)


def test_the_file_says_what_it_must_be_fed():
    network = make_network(*GRAPHS["conv"])
    proto = onnx.load_from_string(write_onnx(network, random_weights(network), metadata={"espalier.design": "{}"}))
    stated = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(stated["espalier.input.mean"]) == list(network.input.mean)
    assert json.loads(stated["espalier.input.std"]) == list(network.input.std)
    assert stated["espalier.input.layout"] == "NCHW"
    assert stated["espalier.design"] == "{}"
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["image", "logits"]


def test_the_same_network_and_weights_make_the_same_bytes():
    network = with_precision(make_network(*GRAPHS["gate"]), W8A8)
    weights = random_weights(network)
    ranges = calibrate(network, weights, random_images(network, 4))
    assert write_onnx(network, weights, ranges) == write_onnx(network, weights, ranges)


def test_what_cannot_be_written_is_refused():
    network = with_precision(make_network(*GRAPHS["relu"]), W8A8)
    with pytest.raises(ValueError, match=r"'relu' is quantised and has no range"):
        write_onnx(network, random_weights(network))
    with pytest.raises(ValueError, match="not a range"):
        write_onnx(network, random_weights(network), {"relu": (0.0, float("nan"))})
    for precision, reason in {
        Precision(16, 8): "activations of 8 bits or fewer are computed with integer weights",
        Precision(9, 8): "weights take 1, 2, 3, 4, 5, 6, 7, 8, 16 or 32 bits, not 9",
        Precision(8, 1): "activations take 2, 3, 4, 5, 6, 7, 8, 16 or 32 bits, not 1",
        Precision(16, 32, True): "a codebook takes 1, 2, 3, 4, 5, 6, 7 or 8 bits, not 16",
    }.items():
        with pytest.raises(ValueError, match=f"layer 'conv' cannot be written in {precision}: {reason}"):
            write_onnx(with_precision(network, precision), random_weights(network))


def test_readers_that_disagree_take_the_higher_bits():
    nodes = (
        CONV,
        replace(CONV, name="a", inputs=("conv",)),
        replace(CONV, name="b", inputs=("conv",)),
        Node("sum", Op.ADD, ("a", "b")),
    )
    network = with_precision(make_network(*nodes), W8A8)
    network = network.with_nodes({"a": replace(network.by_name()["a"], precision=Precision(8, 4))})
    assert plan_quantisation(network).bits == {"input": 8, "conv": 8, "a": 8, "b": 8, "sum": 8}


def test_a_dead_tensor_and_a_dead_channel_are_harmless():
    network = with_precision(make_network(*chain(2)), W8A8)
    weights = random_weights(network)
    weights["conv0.weight"][:] = 0
    weights["conv0.bias"][:] = 0
    weights["conv1.weight"][3] = 0
    assert_integers_agree(network, weights)
