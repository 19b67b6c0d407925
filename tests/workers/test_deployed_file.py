"""A deployed network's file: the same ONNX file again from it, and nothing that is not whole gets in."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file

from search_spaces.design import Design
from search_spaces.network import InputContract, Network, Node, Op, network_to_json
from search_spaces.precision import FP32, W8A8, Precision
from workers.calibrate import calibrate
from workers.deployed_file import DeployedFileError, DeployedNetwork, load_deployed, pack_deployed
from workers.fold import fold_batch_norms
from workers.onnx_writer import write_onnx
from workers.opaque import encode_body
from workers.weights import init_weights, weight_shapes


def network_in(precision: Precision) -> Network:
    nodes = (
        Node("image", Op.INPUT),
        Node("conv", Op.CONV, ("image",), 8, (3, 3), padding=(1, 1, 1, 1), precision=precision),
        Node("norm", Op.BATCH_NORM, ("conv",)),
        Node("relu", Op.RELU, ("norm",)),
        Node("grouped", Op.CONV, ("relu",), 8, (3, 3), groups=4, bias=True, precision=precision, block="b"),
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("grouped",)),
        Node("flat", Op.FLATTEN, ("pool",)),
        Node("classifier", Op.LINEAR, ("flat",), 3, bias=True, precision=precision),
    )
    return Network("small", InputContract((2, 6, 6), (0.5,) * 2, (0.25,) * 2, 7), nodes, "classifier")


def deployed_in(precision: Precision) -> DeployedNetwork:
    network = network_in(precision)
    network, weights = fold_batch_norms(network, init_weights(network, seed=1))
    images = np.random.default_rng(0).standard_normal((8, 2, 6, 6)).astype(np.float32)
    design = Design.of({"precision/conv": str(precision), "channels/conv": 8})
    return DeployedNetwork(network, design, weights, calibrate(network, weights, images), {"search": "a <b>"})


@pytest.fixture(scope="module")
def packed() -> bytes:
    return pack_deployed(deployed_in(W8A8))


@pytest.mark.parametrize("precision", [FP32, W8A8, Precision(4, 8), Precision(3, 2)], ids=str)
def test_the_same_onnx_file_comes_out_again(precision: Precision, tmp_path: Path) -> None:
    deployed = deployed_in(precision)
    (tmp_path / "a.safetensors").write_bytes(pack_deployed(deployed))

    read = load_deployed(tmp_path / "a.safetensors")

    assert (read.network, read.design, read.ranges, read.origin) == (
        deployed.network,
        deployed.design,
        deployed.ranges,
        deployed.origin,
    )
    assert write_onnx(read.network, read.weights, read.ranges) == write_onnx(
        deployed.network, deployed.weights, deployed.ranges
    )
    assert pack_deployed(read) == pack_deployed(deployed)


def test_any_safetensors_reader_reads_the_weights(packed: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(packed)
    arrays = load_file(tmp_path / "a.safetensors")
    assert {name: array.shape for name, array in arrays.items()} == weight_shapes(deployed_in(W8A8).network)


def test_a_network_with_a_part_that_is_kept_as_it_is(tmp_path: Path) -> None:
    deployed = with_body(encode_body(body("LeakyRelu")))
    (tmp_path / "a.safetensors").write_bytes(pack_deployed(deployed))
    assert load_deployed(tmp_path / "a.safetensors").network == deployed.network


# --- what is refused --------------------------------------------------------------------------------------------


def refused(data: bytes, folder: Path) -> str:
    (folder / "bad.safetensors").write_bytes(data)
    with pytest.raises(DeployedFileError) as refusal:
        load_deployed(folder / "bad.safetensors")
    assert "bad.safetensors" in str(refusal.value)
    return str(refusal.value)


def told_by(data: bytes) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The file's header, our document in it, and where the arrays begin."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["espalier"]), 8 + length


def with_text(data: bytes, text: str) -> bytes:
    """The file with other metadata, its arrays as they are."""
    header, _, start = told_by(data)
    header["__metadata__"]["espalier"] = text
    text = json.dumps(header)
    return struct.pack("<Q", len(text)) + text.encode() + data[start:]


def with_changes(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    _, document, _ = told_by(data)
    change(document)
    return with_text(data, json.dumps(document))


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_file_that_is_cut_off(packed: bytes, length: int, tmp_path: Path) -> None:
    assert "no whole safetensors file" in refused(packed[:length], tmp_path)


def test_another_file_of_weights(tmp_path: Path) -> None:
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "plain.safetensors")
    assert "none of ours" in refused((tmp_path / "plain.safetensors").read_bytes(), tmp_path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_deployed(tmp_path / "nothing")
    with pytest.raises(DeployedFileError):
        load_deployed(tmp_path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_metadata_that_is_no_json(packed: bytes, text: str, tmp_path: Path) -> None:
    assert "is no JSON" in refused(with_text(packed, text), tmp_path)


DOCUMENTS = {
    "a later format": (lambda told: told.update(format_version=9), "has format version 9"),
    "another format": (lambda told: told.update(format="zip"), "none of ours"),
    "no network": (lambda told: told.pop("network"), "no 'network'"),
    "no digest": (lambda told: told.pop("sha256"), "no 'sha256'"),
    "a design that is none": (lambda told: told.update(design={"paint/x": 1}), "design: "),
    "an origin of numbers": (lambda told: told.update(origin={"a": 1}), "object of texts"),
    "no ranges": (lambda told: told.update(ranges={}), "must have the ranges of exactly"),
    "another design": (lambda told: told.update(design={}), "has been changed"),
    "a deep network": (lambda told: told.update(network=[[[]]]), "network: must be an object"),
}


@pytest.mark.parametrize(("change", "told"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_document_that_is_wrong(packed: bytes, change: Any, told: str, tmp_path: Path) -> None:
    assert told in refused(with_changes(packed, change), tmp_path)


@pytest.mark.parametrize("ends", [[1.0, 0.0], [0.0], [0, 1], None, "ab", [0.0, float("inf")], [float("nan"), 1.0]])
def test_ranges_that_are_none(packed: bytes, ends: Any, tmp_path: Path) -> None:
    changed = with_changes(packed, lambda told: told["ranges"].update(relu=ends))
    assert "relu: must be two finite numbers" in refused(changed, tmp_path)


NODES = {
    "the network loops": ({"inputs": ["classifier"]}, "no earlier node"),
    "more channels": ({"channels": 16}, "must be F32 (16, 2, 3, 3)"),
    "no such op": ({"op": "exec"}, "nodes/1/op"),
    "an unknown key": ({"code": "print()"}, "unknown key 'code'"),
    "bits of none": ({"precision": "w9000a8"}, "nodes/1/precision"),
    "bits that no file holds": ({"precision": "w32a8"}, "cannot be written"),
    "a body": ({"body": "x"}, "has no body"),
}


@pytest.mark.parametrize(("change", "told"), NODES.values(), ids=NODES)
def test_a_network_that_is_wrong(packed: bytes, change: Any, told: str, tmp_path: Path) -> None:
    changed = with_changes(packed, lambda told: told["network"]["nodes"][1].update(change))
    assert told in refused(changed, tmp_path)


@pytest.mark.parametrize("fault", ["missing", "more", "shape", "type", "nan"])
def test_weights_of_another_network(fault: str, tmp_path: Path) -> None:
    deployed = deployed_in(FP32)
    arrays: dict[str, np.ndarray] = dict(deployed.weights)
    bias = arrays.pop("classifier.bias")
    others = {"shape": bias[:-1], "type": bias.astype(np.float64), "nan": np.full_like(bias, np.nan), "more": bias}
    if fault in others:
        arrays["classifier.bias"] = others[fault]
    if fault == "more":
        arrays["evil.bias"] = bias
    metadata = told_by(pack_deployed(deployed))[0]["__metadata__"]
    told = {"missing": "missing or superfluous", "more": "missing or superfluous", "nan": "not finite"}
    assert told.get(fault, "classifier.bias must be F32 (3,)") in refused(save(arrays, metadata), tmp_path)


def body(op_type: str, **attributes: Any) -> onnx.GraphProto:
    return onnx.GraphProto(node=[onnx.helper.make_node(op_type, ["x0"], ["y"], **attributes)])


def with_body(text: str) -> DeployedNetwork:
    nodes = (Node("image", Op.INPUT), Node("kept", Op.POINTWISE, ("image",), body=text))
    network = Network("odd", InputContract((1, 2, 2), (0.0,), (1.0,)), nodes, "kept")
    return DeployedNetwork(network, Design.of({}), {}, {})


def reads_a_file() -> onnx.GraphProto:
    """A constant that lies in another file: ONNX Runtime would open it."""
    outside = onnx.TensorProto(name="c", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="secret")
    return onnx.GraphProto(node=[onnx.helper.make_node("Add", ["x0", "c"], ["y"])], initializer=[outside])


BODIES = {
    "a branch": encode_body(body("If", then_branch=body("Relu"), else_branch=body("Relu"))),
    "another domain": encode_body(body("Relu", domain="com.evil")),
    "another file": encode_body(reads_a_file()),
    "no base64": "<>",
    "no zlib": "AAAA",
    "nothing": "",
    "an empty graph": encode_body(onnx.GraphProto()),
}


@pytest.mark.parametrize("text", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_plain_graph(text: str, tmp_path: Path) -> None:
    assert "body of node 'kept' cannot be used" in refused(pack_deployed(with_body(text)), tmp_path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_changed_byte_gets_in(packed: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever byte is changed, the file is refused; or it was white space, and the same is read."""
    place = data.draw(st.integers(0, len(packed) - 1))
    changed = bytearray(packed)
    changed[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(changed)
    try:
        read = load_deployed(path)
    except DeployedFileError:
        return
    assert pack_deployed(read) == packed


def test_the_network_in_the_file_is_plain_json(packed: bytes) -> None:
    _, document, _ = told_by(packed)
    assert document["network"] == network_to_json(deployed_in(W8A8).network)
    assert document["design"]["channels/conv"] == 8
