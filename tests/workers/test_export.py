"""What is counted of a stored file is its own, and a file that is not what was declared is refused in every way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import from_array, to_array

from search_spaces.costs import parameters, size_bytes
from search_spaces.design import Design
from search_spaces.network import InputContract, Network, Node, Op, in_precision
from search_spaces.precision import FP32, W8A8, Precision
from workers import agreement
from workers.calibrate import calibrate
from workers.deployed_file import DeployedNetwork, pack_deployed
from workers.onnx_session import PrecisionMismatch, check_executed, optimise
from workers.onnx_writer import write_onnx
from workers.opaque import encode_body
from workers.packed_weights import pack_weights
from workers.recount import FileMismatchError, check_activation_bits, recount, recount_optimised
from workers.splits import Split, normalise
from workers.verify import StoredFiles, verify
from workers.weight_grids import quantise_weights
from workers.weights import init_weights

SPLIT = Split("score", np.random.default_rng(0).integers(0, 256, (20, 2, 6, 6), np.uint8), np.zeros(20, int), "d")


def network_in(precision: Precision) -> Network:
    nodes = (
        Node("image", Op.INPUT),
        Node("conv", Op.CONV, ("image",), 9, (3, 3), padding=(1, 1, 1, 1), bias=True, precision=precision),
        Node("relu", Op.RELU, ("conv",)),
        Node("grouped", Op.CONV, ("relu",), 9, (3, 3), groups=3, bias=True, precision=precision),
        Node("relu2", Op.RELU, ("grouped",)),
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("relu2",)),
        Node("flat", Op.FLATTEN, ("pool",)),
        Node("classifier", Op.LINEAR, ("flat",), 3, bias=True, precision=precision),
    )
    return Network("small", InputContract((2, 6, 6), (0.5,) * 2, (0.25,) * 2), nodes, "classifier")


def deployed_in(precision: Precision) -> DeployedNetwork:
    network = network_in(precision)
    weights = init_weights(network, seed=1)
    weights |= {name: array + np.float32(0.1) for name, array in weights.items() if name.endswith("bias")}
    ranges = calibrate(network, weights, normalise(SPLIT.images, network.input))
    return DeployedNetwork(network, Design.of({}), quantise_weights(network, weights), ranges)


def written(deployed: DeployedNetwork) -> bytes:
    return write_onnx(deployed.network, deployed.weights, deployed.ranges)


def verified(deployed: DeployedNetwork, folder: Path, model: bytes | None = None, weights: bytes | None = None):
    """`verify` of the deployed network's own files, or of others in their place."""
    path = folder / "stored"
    path.write_bytes(pack_deployed(deployed) if weights is None else weights)
    return verify(deployed, StoredFiles(written(deployed) if model is None else model, path), {}, SPLIT)


BITS = [W8A8, Precision(4, 8), Precision(3, 4), Precision(2, 8), Precision(1, 4)]
FLOATS = [FP32, Precision(3, 32), Precision(16, 32), Precision(2, 32, is_codebook=True)]


@pytest.mark.parametrize("precision", [*FLOATS, *BITS], ids=str)
def test_files_are_what_was_declared(precision: Precision, tmp_path: Path) -> None:
    deployed = deployed_in(precision)
    checks = verified(deployed, tmp_path)
    network = deployed.network
    assert checks["recounted"] == {"parameters": parameters(network), "size_bytes": size_bytes(network)}
    assert set(checks["executed"]) == {"conv", "grouped", "classifier"}
    in_torch = ["torch"] if precision in FLOATS else []
    assert [told["runtime"].split(" ")[0] for told in checks["runtimes"]] == [*in_torch, "ONNX", "OpenVINO"]
    *ours, openvino = (told["difference"] for told in checks["runtimes"])
    assert max(ours) < 1e-6
    assert openvino < (1e-6 if precision in FLOATS else 0.1)


def test_bits_that_fill_no_byte_are_rounded_up_by_layer() -> None:
    """As they are counted from the design: 3 bits of 162, 243 and 27 weights."""
    deployed = deployed_in(Precision(3, 8))
    words = 4 * 2 * (9 + 9 + 3)
    assert recount(deployed.network, written(deployed))["size_bytes"] == 61 + 92 + 11 + words
    assert size_bytes(deployed.network) == 61 + 92 + 11 + words


# --- files that were changed ------------------------------------------------------------------------------------


def edited(model: bytes, edit: Callable[[onnx.GraphProto], object]) -> bytes:
    proto = onnx.ModelProto.FromString(model)
    edit(proto.graph)
    return bytes(proto.SerializeToString())


def array_of(graph: onnx.GraphProto, name: str) -> onnx.TensorProto:
    return next(array for array in graph.initializer if array.name == name)


def node_of(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    return next(node for node in graph.node if node.name == name)


def set_array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.GraphProto], object]:
    def edit(graph: onnx.GraphProto) -> None:
        array = array_of(graph, name)
        array.CopyFrom(from_array(change(to_array(array)), name))

    return edit


def one_more(array: np.ndarray) -> np.ndarray:
    """The first value a little larger."""
    changed = array.copy()
    changed.flat[0] += 1 if array.dtype.kind == "i" else np.float32(1e-6)
    return changed


def drop(name: str) -> Callable[[onnx.GraphProto], object]:
    def edit(graph: onnx.GraphProto) -> None:
        node = node_of(graph, name)
        for reader in graph.node:
            reader.input[:] = [node.input[0] if one == node.output[0] else one for one in reader.input]
        graph.node.remove(node)

    return edit


def add_layer(graph: onnx.GraphProto) -> None:
    graph.node.add(op_type="Gemm", name="more", input=["flat", "classifier.weight"], output=["more"])


def in_one_group(graph: onnx.GraphProto) -> None:
    next(one for one in node_of(graph, "grouped").attribute if one.name == "group").i = 1


def read_other_weights(graph: onnx.GraphProto) -> None:
    """The right array is still there; nobody reads it."""
    graph.initializer.append(from_array(to_array(array_of(graph, "conv.weight")) * 2, "other"))
    node_of(graph, "conv").input[1] = "other"


def without_clips(graph: onnx.GraphProto) -> None:
    for name in [node.name for node in graph.node if node.op_type == "Clip"]:
        drop(name)(graph)


FLOAT_FAULTS = {
    "a weight": (set_array("conv.weight", one_more), "not what is written from the safetensors file"),
    "a bias": (set_array("grouped.bias", one_more), "not what is written from the safetensors file"),
    "no number": (set_array("conv.weight", lambda array: array * np.nan), "not usable numbers"),
    "a channel less": (set_array("conv.weight", lambda array: array[1:]), "weight of 'conv' has the shape"),
    "a bias less": (lambda graph: node_of(graph, "conv").input.pop(), "bias of 'conv' has the shape None"),
    "a missing layer": (drop("grouped"), "no Conv 'grouped'"),
    "missing weights": (lambda graph: graph.initializer.remove(array_of(graph, "conv.weight")), "no weights of 'conv'"),
    "a layer more": (add_layer, "a layer 'more' that the network has not"),
    "other groups": (in_one_group, "'grouped' has group 1 in the file, declared 3"),
    "other weights are read": (read_other_weights, "not what is written from the safetensors file"),
    "an activation less": (drop("relu2"), "not what is written from the safetensors file"),
}


@pytest.mark.parametrize(("edit", "told"), FLOAT_FAULTS.values(), ids=FLOAT_FAULTS)
def test_a_changed_file_is_refused(edit, told: str, tmp_path: Path) -> None:
    deployed = deployed_in(FP32)
    with pytest.raises(FileMismatchError, match=told):
        verified(deployed, tmp_path, edited(written(deployed), edit))


INTEGER_FAULTS = {
    "a weight": (set_array("conv.weight", one_more), "not what is written from the safetensors file"),
    "a scale": (set_array("conv.weight/scale", one_more), "not what is written from the safetensors file"),
    "a scale of nothing": (set_array("conv.weight/scale", lambda array: array * 0), "not usable numbers"),
    "a bias": (set_array("conv.bias", one_more), "not what is written from the safetensors file"),
    "activations in more bits": (without_clips, "not what is written from the safetensors file"),
}


@pytest.mark.parametrize(("edit", "told"), INTEGER_FAULTS.values(), ids=INTEGER_FAULTS)
def test_a_changed_file_of_integers_is_refused(edit, told: str, tmp_path: Path) -> None:
    deployed = deployed_in(Precision(4, 4))
    with pytest.raises(FileMismatchError, match=told):
        verified(deployed, tmp_path, edited(written(deployed), edit))


@pytest.mark.parametrize("length", [0, 10, 1000, -1])
def test_a_file_that_is_cut_off_is_refused(length: int, tmp_path: Path) -> None:
    deployed = deployed_in(FP32)
    with pytest.raises(FileMismatchError):
        verified(deployed, tmp_path, written(deployed)[:length])


def test_a_changed_safetensors_file_is_refused(tmp_path: Path) -> None:
    deployed = deployed_in(W8A8)
    packed = pack_deployed(deployed)
    with pytest.raises(FileMismatchError, match="cannot be read back"):
        verified(deployed, tmp_path, weights=packed[:-1])
    with pytest.raises(FileMismatchError, match="cannot be read back"):
        verified(deployed, tmp_path, weights=packed[:-4] + b"\0\0\0\0")


def test_changed_packed_weights_are_refused(tmp_path: Path) -> None:
    deployed = deployed_in(Precision(4, 8))
    (tmp_path / "stored").write_bytes(pack_deployed(deployed))

    def verified_with(packed: bytes):
        return verify(deployed, StoredFiles(written(deployed), tmp_path / "stored", packed), {}, SPLIT)

    packed = pack_weights(deployed.network, deployed.weights)
    assert verified_with(packed) == verified(deployed, tmp_path)
    for changed in (packed[:-1], b"", pack_deployed(deployed)):
        with pytest.raises(FileMismatchError, match="packed weights cannot be read back"):
            verified_with(changed)
    others = pack_weights(deployed.network, {name: array * 2 for name, array in deployed.weights.items()})
    with pytest.raises(FileMismatchError, match="in the packed file has other values"):
        verified_with(others)
    fewer = {name: array for name, array in deployed_in(FP32).weights.items() if name != "conv.bias"}
    with pytest.raises(FileMismatchError, match="packed weights cannot be read back"):
        verified_with(without_bias_of_conv(fewer))


def without_bias_of_conv(weights: dict[str, np.ndarray]) -> bytes:
    network = network_in(FP32)
    conv = replace(network.by_name()["conv"], bias=False)
    return pack_weights(network.with_nodes({"conv": conv}), weights)


OTHERS = {
    "another design": ({"design": Design.of({"channels/conv": 9})}, "the design in"),
    "another network": ({"network": replace(network_in(W8A8), name="other")}, "the network in"),
    "another origin": ({"origin": {"base": "b"}}, "the origin in"),
    "other weights": (
        {"weights": {name: array * 2 for name, array in deployed_in(W8A8).weights.items()}},
        "other values",
    ),
    "other ranges": ({"ranges": dict.fromkeys(deployed_in(W8A8).ranges, (0.0, 1.0))}, "the ranges in"),
}


@pytest.mark.parametrize(("changes", "told"), OTHERS.values(), ids=OTHERS)
def test_a_whole_safetensors_file_of_something_else_is_refused(changes, told: str, tmp_path: Path) -> None:
    deployed = deployed_in(W8A8)
    with pytest.raises(FileMismatchError, match=told):
        verified(deployed, tmp_path, weights=pack_deployed(replace(deployed, **changes)))


@pytest.mark.parametrize(("declared", "found"), [(W8A8, FP32), (FP32, W8A8), (Precision(2, 8), W8A8)], ids=str)
def test_a_file_in_other_bits_than_declared_is_refused(declared: Precision, found: Precision) -> None:
    with pytest.raises(FileMismatchError, match=rf"'conv' is stored as .* values, declared {declared}"):
        recount(network_in(declared), written(deployed_in(found)))


@pytest.mark.parametrize("precision", [Precision(4, 8), Precision(1, 8), Precision(4, 32), FLOATS[-1]], ids=str)
def test_one_weight_off_the_declared_grid_is_found(precision: Precision) -> None:
    """However the rest of the file may have been made to fit it."""

    def off(array: np.ndarray) -> np.ndarray:
        changed = array.copy()
        changed.flat[5] = 11 if array.dtype == np.int8 else array.flat[5] * np.float32(1.001) + 1e-3
        return changed

    deployed = deployed_in(precision)
    with pytest.raises(FileMismatchError, match=rf"'conv' is stored as .* values, declared {precision}"):
        recount(deployed.network, edited(written(deployed), set_array("conv.weight", off)))


def test_activations_in_more_bits_than_declared_are_refused() -> None:
    """Weights and operators are the same then, and say nothing."""
    declared, found = network_in(Precision(8, 3)), deployed_in(W8A8)
    images = np.random.default_rng(1).standard_normal((2, 2, 6, 6)).astype(np.float32)
    check_executed(declared, written(found))
    with pytest.raises(FileMismatchError, match=r"'conv' is fed .* declared 3 bits"):
        check_activation_bits(declared, written(found), images)
    check_activation_bits(declared, written(deployed_in(Precision(8, 3))), images)


def test_a_layer_in_another_precision_is_refused(tmp_path: Path) -> None:
    deployed = deployed_in(W8A8)
    mixed = replace(deployed.network.by_name()["grouped"], precision=FP32)
    other = replace(deployed, network=deployed.network.with_nodes({"grouped": mixed}))
    with pytest.raises(FileMismatchError, match=r"'grouped' is stored as float32 of .* declared w8a8"):
        verified(deployed, tmp_path, written(other))
    with pytest.raises(PrecisionMismatch, match="grouped: declared w8a8, executes as"):
        check_executed(deployed.network, written(other))


# --- what the runtime executes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [FP32, W8A8], ids=str)
def test_a_runtime_that_executes_other_constants_is_seen(precision: Precision) -> None:
    deployed = deployed_in(precision)
    model = written(deployed)
    optimised = optimise(model)
    recount_optimised(deployed.network, model, optimised)
    weights = [array for array in optimised.graph.initializer if array.dims and np.prod(array.dims) >= 27]
    for array in weights:
        changed = onnx.ModelProto.FromString(optimised.SerializeToString())
        set_array(array.name, one_more)(changed.graph)
        with pytest.raises(FileMismatchError, match="that the runtime executes are not those of the file"):
            recount_optimised(deployed.network, model, changed)
    assert len(weights) == 3


def test_a_runtime_that_executes_a_layer_more_is_seen() -> None:
    deployed = deployed_in(FP32)
    optimised = optimise(written(deployed))
    optimised.graph.node.add(op_type="Conv", name="more", output=["more"])
    with pytest.raises(FileMismatchError, match="executes a layer 'more'"):
        recount_optimised(deployed.network, written(deployed), optimised)


def test_a_runtime_that_executes_other_groups_is_seen() -> None:
    deployed = deployed_in(W8A8)
    optimised = optimise(written(deployed))
    for node in optimised.graph.node:
        for attribute in node.attribute:
            attribute.i = 1 if attribute.name == "group" else attribute.i
    with pytest.raises(FileMismatchError, match="'grouped' executes in 1 groups, declared 3"):
        recount_optimised(deployed.network, written(deployed), optimised)


def test_a_part_that_is_kept_as_it_is_may_be_merged_into_the_layer_before_it() -> None:
    """A product with a constant is: what executes are products of the file's weights."""
    graph = onnx.GraphProto(name="halve", initializer=[from_array(np.float32(0.5), "c")])
    graph.node.add(op_type="Mul", input=["x0", "c"], output=["y"])
    kept = Node("relu", Op.POINTWISE, ("conv",), body=encode_body(graph))
    network = network_in(FP32).with_nodes({"relu": kept})
    model = write_onnx(network, init_weights(network, seed=1))
    optimised = optimise(model)
    assert "Mul" not in {node.op_type for node in optimised.graph.node}
    recount_optimised(network, model, optimised)


# --- whether all compute the same -------------------------------------------------------------------------------


def test_a_runtime_that_computes_something_else_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = deployed_in(FP32)
    other = written(replace(deployed, weights={name: array * 1.01 for name, array in deployed.weights.items()}))
    real = agreement.compile_file
    monkeypatch.setattr(agreement, "compile_file", lambda _: real(other))
    with pytest.raises(FileMismatchError, match=r"in OpenVINO .* outputs differ by .*e-02 of their size"):
        verified(deployed, tmp_path)


def test_a_file_that_openvino_does_not_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = agreement.compile_file
    monkeypatch.setattr(agreement, "compile_file", lambda model: real(model[:100]))
    with pytest.raises(FileMismatchError, match=r"OpenVINO .* does not run the file"):
        verified(deployed_in(FP32), tmp_path)


def test_where_openvino_is_not_installed_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.hardware.openvino_cpu.find_spec", lambda _: None)
    *_, last = verified(deployed_in(FP32), tmp_path)["runtimes"]
    assert (last["runtime"], last["difference"]) == ("OpenVINO", None)
    assert "not installed" in last["note"]


def test_quantising_and_no_more_explains_a_difference() -> None:
    """What is allowed is told from how far quantising moved the outputs: not at all, where nothing is quantised."""
    images = normalise(SPLIT.images, network_in(FP32).input)
    allowed = {}
    for precision in (FP32, W8A8, Precision(4, 4)):
        deployed = deployed_in(precision)
        found = agreement.compare_runtimes(deployed.network, deployed.weights, written(deployed), images)
        allowed[str(precision)] = found[-1].tolerance
    assert allowed["fp32"] == agreement.FLOAT_TOLERANCE
    assert 1e-3 < 2 * allowed["w8a8"] < allowed["w4a4"]
    assert in_precision(network_in(W8A8), FP32) == network_in(FP32)


def test_however_few_the_bits_what_was_scored_cannot_compute_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = deployed_in(Precision(2, 2))
    images = normalise(SPLIT.images, deployed.network.input)
    silent = {name: array * (not name.startswith("classifier")) for name, array in deployed.weights.items()}
    nothing = written(replace(deployed, weights={name: array.astype(np.float32) for name, array in silent.items()}))
    real = agreement.open_session
    monkeypatch.setattr(agreement, "open_session", lambda _, threads: real(nothing, threads))
    monkeypatch.setattr(agreement, "ROUNDINGS", 100.0)  # a deep network in 4 bits has 0.8 by itself, three times over
    with pytest.raises(FileMismatchError, match=r"in ONNX Runtime .* outputs differ by 1.0e\+00 of their size"):
        agreement.compare_runtimes(deployed.network, deployed.weights, written(deployed), images)
