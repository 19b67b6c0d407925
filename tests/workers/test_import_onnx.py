"""Importing ONNX files: every operator, from every exporter, computes what the file computes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from hypothesis import HealthCheck, given, settings
from torch import nn

from search_spaces.apply import apply, structure_of
from search_spaces.costs import macs, parameters
from search_spaces.design import Design
from search_spaces.importing import ImportSettings
from search_spaces.network import Op, infer_shapes
from search_spaces.precision import Precision
from tests.random_networks import networks
from tests.workers.onnx_files import SHAPE, Body, exported, exported_with_norms, model_of, plain_parts, run
from tests.workers.test_parity import random_weights
from workers.fold import fold_batch_norms
from workers.importing.import_file import ImportedNetwork, import_file
from workers.onnx_quantize import calibrated_tensors
from workers.onnx_session import check_executed
from workers.onnx_writer import write_onnx
from workers.splits import normalise
from workers.torch_network import build_module

ASSETS = Path(__file__).parent / "assets"


def imported(data: bytes, folder: Path, **given: object) -> ImportedNetwork:
    path = folder / "model"
    path.write_bytes(data)
    return import_file(path, "mine", ImportSettings(**{"mean": (0.5,) * 3, "std": (0.25,) * 3} | given))


def ops_of(found: ImportedNetwork) -> Counter[Op]:
    """How many of each there are, but for the norms that are put back."""
    return Counter(node.op for node in found.network.nodes if node.name not in found.report["added_norms"])


class Gate(nn.Module):
    def __init__(self, channels: int, gate: nn.Module, *, linear: bool = False) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, 4) if linear else nn.Conv2d(channels, 4, 1)
        self.expand = nn.Linear(4, channels) if linear else nn.Conv2d(4, channels, 1)
        self.gate, self.linear = gate, linear

    def forward(self, x):
        pooled = x.mean((2, 3)) if self.linear else F.adaptive_avg_pool2d(x, 1)
        scale = self.gate(self.expand(F.relu(self.reduce(pooled))))
        return x * (scale[:, :, None, None] if self.linear else scale)


class Shuffled(nn.Module):
    """ShuffleNet-V2's unit: split, work on one half, concatenate, shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels // 2, channels // 2, 3, padding=1)

    def forward(self, x):
        for _ in range(2):
            left, right = x.chunk(2, dim=1)
            x = torch.cat([left, F.relu(self.conv(right))], dim=1)
            batch, channels, height, width = x.shape
            x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return x


class LastNorm(nn.Module):
    """ConvNeXt's block: a norm and two linear layers over the channels of channels-last maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, 12), nn.Linear(12, channels)

    def forward(self, x):
        y = x.permute(0, 2, 3, 1)
        return x + self.down(F.relu(self.up(self.norm(y)))).permute(0, 3, 1, 2)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels, eps=1e-3), nn.ReLU6()
        )

    def forward(self, x):
        return x + self.body(x)


MIDDLES = {
    "norm and relu": (lambda: nn.Sequential(nn.BatchNorm2d(8, eps=1e-3), nn.ReLU()), {Op.RELU: 1}),
    "residual": (lambda: Residual(8), {Op.ADD: 1, Op.RELU6: 1}),
    "grouped and dilated": (lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2), {Op.CONV: 3}),
    "depthwise": (lambda: nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8), {Op.CONV: 3}),
    "asymmetric pad": (lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(8, 8, 3, 2)), {Op.PAD: 0}),
    "pad alone": (lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), nn.MaxPool2d(2)), {Op.PAD: 1}),
    "hard swish": (nn.Hardswish, {Op.HARD_SWISH: 1}),
    "swish": (nn.SiLU, {Op.SWISH: 1}),
    "hard sigmoid": (nn.Hardsigmoid, {Op.HARD_SIGMOID: 1}),
    "sigmoid": (nn.Sigmoid, {Op.SIGMOID: 1}),
    "squeeze and excite": (lambda: Gate(8, nn.Sigmoid()), {Op.MULTIPLY: 1, Op.CONV: 4, Op.LINEAR: 1}),
    "linear squeeze and excite": (lambda: Gate(8, nn.Hardsigmoid(), linear=True), {Op.MULTIPLY: 1, Op.LINEAR: 1}),
    "shuffle": (lambda: Shuffled(8), {Op.SHUFFLE: 2, Op.SLICE: 4, Op.CONCAT: 2}),
    "max pool": (lambda: nn.MaxPool2d(3, 2, padding=1), {Op.MAX_POOL: 1}),
    "max pool rounded up": (lambda: nn.MaxPool2d(3, 2, ceil_mode=True), {Op.MAX_POOL: 1}),
    "average pool": (lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), {Op.AVERAGE_POOL: 1, Op.PAD: 0}),
    "average pool counting": (lambda: nn.AvgPool2d(3, 1, padding=1), {Op.AVERAGE_POOL: 1, Op.PAD: 1}),
    "average pool rounded up": (lambda: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), {Op.AVERAGE_POOL: 1}),
    "dropout and identity": (lambda: nn.Sequential(nn.Dropout(), nn.Identity(), nn.ReLU()), {Op.RELU: 1}),
    "leaky relu": (lambda: nn.LeakyReLU(0.1), {Op.POINTWISE: 1, Op.OPAQUE: 0}),
    "tanh": (nn.Tanh, {Op.POINTWISE: 1, Op.OPAQUE: 0}),
    "resize": (lambda: nn.Upsample(scale_factor=2), {Op.OPAQUE: 1}),
    "channels-last norm": (lambda: LastNorm(8), {Op.OPAQUE: 1, Op.CONV: 4}),
}


HOW = ("opset 11", "opset 17", "norms kept", "new exporter")
SLOWLY_EXPORTED = frozenset({"residual", "hard swish", "linear squeeze and excite", "shuffle", "channels-last norm"})
"""The new exporter takes more than a second for each; the others take milliseconds."""

CASES = [(name, how) for name in MIDDLES for how in (HOW if name in SLOWLY_EXPORTED else HOW[:3])]
CASES.remove(("channels-last norm", "opset 11"))  # there a layer norm is many nodes; it has a test of its own


@pytest.mark.parametrize(("name", "how"), CASES)
def test_what_torch_exports_is_recognised_and_computes_the_same(name, how, tmp_path):
    make, expected = MIDDLES[name]
    torch.manual_seed(0)
    module = Body(make())
    if how == "norms kept":
        data = exported_with_norms(module)
    else:
        data = exported(module, dynamo=how == "new exporter", opset=11 if how == "opset 11" else 17)
    found = imported(data, tmp_path)  # checks parity with the file, in ONNX Runtime and in torch
    ops = ops_of(found)
    assert {op: ops[op] for op in expected} == expected
    assert {"stem", "head", "classifier"} <= {node.name for node in found.network.nodes}
    groups = {group.name: group for group in structure_of(found.network).coupling.groups}
    searchable = "resize" not in name and "channels-last" not in name
    assert (groups["stem"].frozen == "") is searchable
    assert len(found.report["fixed"]) == ops[Op.OPAQUE]


def test_a_norm_in_many_nodes_leaves_what_is_behind_it_searchable(tmp_path):
    found = imported(exported(Body(LastNorm(8)), opset=11), tmp_path)
    groups = {group.name: group.frozen for group in structure_of(found.network).coupling.groups}
    assert groups["middle.up"] == ""
    assert "kept as it is" in groups["stem"]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(network=networks(), batch=st.sampled_from([1, "N"]))
def test_any_network_that_we_write_is_imported_as_itself(network, batch, tmp_path_factory):
    folder, channels = tmp_path_factory.mktemp("own"), network.input.shape[0]
    data = write_onnx(network, random_weights(network), batch=batch)
    found = imported(data, folder, input=network.input.shape, mean=(0.4,) * channels, std=(0.3,) * channels)
    assert (macs(found.network), parameters(found.network)) == (macs(network), parameters(network))
    shapes, expected = infer_shapes(found.network), infer_shapes(network)
    assert shapes[found.network.output] == expected[network.output]
    free = [
        sum(group.size for group in structure_of(one).coupling.groups if not group.frozen)
        for one in (network, found.network)
    ]
    assert free[1] >= free[0]  # a shuffle that undoes another ties nothing together


def test_what_tensorflow_exports_is_imported(tmp_path):
    """Made with Keras and tf2onnx: channels last, rescaling inside, SAME padding, dense layers on maps, softmax."""
    found = imported((ASSETS / "tf2onnx.onnx").read_bytes(), tmp_path)
    assert found.network.input.shape == (3, 13, 15)
    assert found.report["fixed"] == []
    assert any("Softmax" in note for note in found.report["notes"])
    ops = ops_of(found)
    assert (ops[Op.SWISH], ops[Op.MULTIPLY], ops[Op.CONCAT], ops[Op.LINEAR]) == (1, 1, 1, 2)


def test_an_imported_network_is_pruned_like_any_other(tmp_path):
    torch.manual_seed(0)
    found = imported(exported(Body(Residual(8))), tmp_path)
    assert found.report["groups"][1]["producers"] == ["stem", "middle.body.0"]
    pruned = apply(found.network, Design.of({"channels/stem": 4, "channels/head": 3}))
    assert infer_shapes(pruned)[pruned.output] == (4,)
    assert macs(pruned) < 0.6 * macs(found.network)


def test_weights_are_the_files_own(tmp_path):
    torch.manual_seed(0)
    module = Body(nn.ReLU())
    found = imported(exported(module), tmp_path)
    _, weights = fold_batch_norms(found.network, found.weights)
    for key, value in module.state_dict().items():
        np.testing.assert_allclose(weights[key], value.numpy(), rtol=1e-6)


def test_a_file_for_one_image_only_is_imported(tmp_path):
    nodes, constants = plain_parts()
    data = model_of(nodes, constants, shape=(1, *SHAPE)).SerializeToString()
    found = imported(data, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    images = normalise(pixels, found.network.input)
    with torch.inference_mode():
        outputs = build_module(found.network, found.weights).eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(outputs, run(data, images), rtol=1e-4, atol=1e-4)


def test_an_open_size_is_given_by_the_user(tmp_path):
    nodes, constants = plain_parts()
    data = model_of(nodes, constants, shape=("n", 3, "h", "w")).SerializeToString()
    assert imported(data, tmp_path, input=(3, 20, 24)).network.input.shape == (3, 20, 24)


def test_the_report_says_what_was_found(tmp_path):
    report = imported(exported(Body(nn.Upsample(scale_factor=2))), tmp_path, mean=None, std=None).report
    assert (report["layers"], report["outputs"], report["source"]["opset"]) == (3, 4, 17)
    assert report["parity"]["images"] == 4
    assert max(report["parity"]["in_onnx_runtime"], report["parity"]["in_torch"]) < 1e-4
    assert report["fixed"][0]["node"] == "middle"
    assert "Resize" in report["fixed"][0]["reason"]
    assert any("ImageNet" in note for note in report["notes"])
    assert {group["name"] for group in report["groups"] if not group["frozen"]} == {"head"}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_constants_that_scale_and_shift_become_weights(layout, tmp_path):
    nodes, constants = plain_parts()
    side = (1, 4, 1, 1) if layout == "NCHW" else (4,)
    generator = np.random.default_rng(1)
    constants |= {name: generator.uniform(0.5, 1.5, side).astype(np.float32) for name in ("s", "t")}
    middle = [
        onnx.helper.make_node("Mul", ["a", "s"] if layout == "NCHW" else ["p", "s"], ["m"]),
        onnx.helper.make_node("Sub", ["t", "m"], ["n" if layout == "NHWC" else "q"]),
    ]
    if layout == "NHWC":
        there = onnx.helper.make_node("Transpose", ["a"], ["p"], perm=[0, 2, 3, 1])
        middle = [there, *middle, onnx.helper.make_node("Transpose", ["n"], ["q"], perm=[0, 3, 1, 2])]
    nodes[1] = onnx.helper.make_node("Relu", ["q"], ["b"])
    found = imported(model_of([nodes[0], *middle, *nodes[1:]], constants).SerializeToString(), tmp_path)
    assert ops_of(found) == {
        Op.INPUT: 1,
        Op.CONV: 1,
        Op.RELU: 1,
        Op.GLOBAL_AVERAGE_POOL: 1,
        Op.FLATTEN: 1,
        Op.LINEAR: 1,
    }


@pytest.mark.parametrize(
    "activation",
    [nn.LeakyReLU(0.1), nn.ELU(), nn.Softplus(), nn.SiLU(), nn.SELU(), nn.CELU(2.0), nn.Softsign()],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("which", [(), (1, 2), (0, 3), (0, 1, 2, 3)], ids=str)
def test_layers_execute_as_declared_whatever_follows_them(activation, which, tmp_path):
    """ONNX Runtime names what it has fused after the layer, after the function, or after what it has put between."""
    layers = [
        nn.Sequential(nn.Conv2d(16 if n else 3, 16, 3, padding=1), nn.BatchNorm2d(16), activation) for n in range(4)
    ]
    found = imported(exported(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())), tmp_path)
    network, weights = fold_batch_norms(found.network, found.weights)
    convs = network.compute_nodes()
    chosen = {convs[number].name: replace(convs[number], precision=Precision(8, 8)) for number in which}
    network = network.with_nodes(chosen)
    model = write_onnx(network, weights, dict.fromkeys(calibrated_tensors(network), (-1.0, 4.0)))
    executed = check_executed(network, model)
    assert {name for name, operator in executed.items() if operator.startswith("Q")} == set(chosen)
