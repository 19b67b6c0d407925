"""Signatures, and tables in published formats: small files of the same form, since those published are not here."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from search_spaces.catalog import build_network
from search_spaces.costs import WorkloadKind, layer_costs, workloads
from search_spaces.network import Node, Op, in_precision
from search_spaces.objectives import Metric
from search_spaces.precision import FP32, Precision, parse_precision
from search_spaces.signatures import SignatureError, layer_of, read_signature, work_of
from search_spaces.spec import Family, NetworkSpec
from search_spaces.tables.apq import read_apq
from search_spaces.tables.blocks import blocks_of, parse_block
from search_spaces.tables.haq import layers_in, read_haq
from search_spaces.tables.networks import catalog_network
from search_spaces.tables.proxyless import read_proxyless
from search_spaces.tables.row import TableError

MOBILE = catalog_network(Family.MOBILENET_V2, 1.0, (3, 224, 224), None, 1000)
EXPANDED = "expanded_conv-input:112x112x16-output:56x56x24-expand:6-kernel:3-stride:2-idskip:0"


def npy(cycles: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, cycles)
    return content.getvalue()


@pytest.mark.parametrize("family", list(Family))
def test_signatures_of_the_catalog_are_read_back_and_tell_their_work(family: Family) -> None:
    side = 299 if family is Family.INCEPTION_V3 else 64
    spec = NetworkSpec(family=family, input=(3, side, side))
    network = build_network(spec, 10, (0.5,) * 3, (0.5,) * 3)
    told = {cost.name: cost for cost in layer_costs(network)}
    for one in workloads(network):
        read = read_signature(one.signature)
        assert (read.workload.digest, read.workload.signature, read.workload.kind) == (
            one.digest,
            one.signature,
            WorkloadKind.OPERATOR,
        )
        work = work_of(read.parts)
        assert work is not None
        if one.name in told:
            cost = told[one.name]
            assert work.macs == cost.macs
            assert work.moved_bytes == cost.input_bytes + cost.output_bytes + 4 * cost.parameters
            layer = layer_of(one)
            assert layer is not None
            layer_work = work_of(read_signature(layer.signature).parts)
            assert layer_work is not None
            assert layer_work.macs == cost.macs
        else:
            assert work.macs == 0


def test_keys_in_another_order_and_spaces_are_the_same_signature() -> None:
    one = workloads(MOBILE)[0]
    shuffled = json.dumps(dict(reversed(json.loads(one.signature).items())), indent=1)
    assert read_signature(shuffled).workload.digest == one.digest


@pytest.mark.parametrize("text", ["", "1", "{}", '{"block": "x"}', '{"operators": ["x"]}', '{"layer": "relu"}'])
def test_what_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(SignatureError):
        read_signature(text)


class TestHaq:
    def test_cycles_are_of_layers_in_pairs_of_bits(self) -> None:
        cycles = np.arange(1, 53 * 64 + 1).reshape(53, 8, 8)
        rows = {row.workload.digest: row for row in read_haq(npy(cycles), MOBILE, clock_hz=1e8)}
        for weight, activation in ((1, 1), (4, 8), (8, 8)):
            layers = layers_in(MOBILE, Precision(weight, activation))
            assert len(layers) == 53
            stem, last = rows[layers[0].digest], rows[layers[-1].digest]
            assert stem.value == cycles[0, weight - 1, activation - 1] / 1e8
            assert last.value == cycles[52, weight - 1, activation - 1] / 1e8
            assert (stem.metric, stem.place) == (Metric.LATENCY_S, f"stem, w{weight}a{activation}")

    def test_layers_that_do_the_same_work_are_one(self) -> None:
        cycles = np.full((53, 8, 8), 1000)
        names = [one.name for one in layers_in(MOBILE, FP32)]
        cycles[names.index("block9.depthwise")] = 3000  # as block8.depthwise
        rows = {row.workload.digest: row for row in read_haq(npy(cycles), MOBILE, 1.0)}
        same = next(one for one in layers_in(MOBILE, Precision(8, 8)) if one.name == "block9.depthwise")
        others = sum(one.digest == same.digest for one in layers_in(MOBILE, Precision(8, 8)))
        assert others >= 2
        assert rows[same.digest].value == pytest.approx((1000 * (others - 1) + 3000) / others)
        assert rows[same.digest].deviation > 0

    @pytest.mark.parametrize("shape", [(52, 8, 8), (53, 8), (53, 8, 9), (0, 8, 8), ()])
    def test_another_shape_is_refused_with_both(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(TableError, match="not 53 x 8 x 8: the network has 53 layers"):
            read_haq(npy(np.ones(shape, np.int64)), MOBILE, 1e8)

    def test_cycles_that_are_none_are_named(self) -> None:
        cycles = np.ones((53, 8, 8), np.int64)
        cycles[1, 3, 7] = 0
        with pytest.raises(TableError, match=r"block1\.depthwise, w4a8: 0 cycles"):
            read_haq(npy(cycles), MOBILE, 1e8)

    def test_hostile_files_run_nothing_and_take_no_memory(self) -> None:
        class Evil:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return pytest.fail, ("code of a file was run",)

        objects = io.BytesIO()
        np.save(objects, np.array([Evil()], dtype=object), allow_pickle=True)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"shape": (10**6, 10**6), "fortran_order": False, "descr": "<i8"})
        for content in (objects.getvalue(), pickle.dumps(Evil()), header.getvalue(), b"", b"\x93NUMPY", b"PK\x03\x04x"):
            with pytest.raises(TableError):
                read_haq(content, MOBILE, 1e8)
        for content in (npy(np.ones((53, 8, 8))), npy(np.ones((53, 8, 8), np.int64))[:-8]):
            with pytest.raises(TableError):
                read_haq(content, MOBILE, 1e8)


class TestProxyless:
    def test_blocks_are_those_of_the_network(self) -> None:
        content = f"{EXPANDED}: {{count: 10, mean: 4.0, var: 0.25}}\n".encode()
        (row,) = read_proxyless(content, FP32)
        assert (row.value, row.count) == (pytest.approx(4e-3), 10)
        assert row.deviation == pytest.approx(0.5e-3)
        names = {workload.digest: workload.name for workload, _ in blocks_of(MOBILE)}
        assert names[row.workload.digest] == "block2"

    def test_the_parts_around_the_blocks(self) -> None:
        keys = ["Conv-input:224x224x3-output:112x112x32", "Conv_1-input:7x7x320-output:7x7x1280"]
        keys.append("Logits-input:7x7x1280-output:1000")
        digests = {workload.digest: workload.name for workload, _ in blocks_of(MOBILE)}
        assert [digests[parse_block(key, FP32).digest] for key in keys] == ["stem", "head", "classifier"]

    def test_every_operator_is_part_of_a_block(self) -> None:
        told = {node for _, nodes in blocks_of(MOBILE) for node in nodes}
        assert {one.name for one in workloads(MOBILE)} <= told

    @pytest.mark.parametrize(
        "changes",
        [
            {"block2.expand": {"channels": 100}, "block2.depthwise": {"channels": 100, "groups": 100}},
            {"block2.depthwise.relu6": {"op": Op.HARD_SWISH}},
            {"block2.depthwise.relu6": {"op": Op.MAX_POOL, "kernel": (1, 1)}},
        ],
    )
    def test_a_block_that_such_a_table_cannot_name_is_none(self, changes: dict[str, dict[str, Any]]) -> None:
        nodes = tuple(replace(node, **changes.get(node.name, {})) for node in MOBILE.nodes)
        found = {workload.name for workload, _ in blocks_of(replace(MOBILE, nodes=nodes))}
        assert {workload.name for workload, _ in blocks_of(MOBILE)} - found == {"block2"}

    def test_a_pool_within_a_block_is_not_the_classifiers(self) -> None:
        pooled = Node("block1.pool", Op.GLOBAL_AVERAGE_POOL, ("block1.depthwise",), block="block1")
        nodes = list(MOBILE.nodes)
        nodes.insert(1 + [node.name for node in nodes].index("block1.depthwise"), pooled)
        found = {workload.name: nodes for workload, nodes in blocks_of(replace(MOBILE, nodes=tuple(nodes)))}
        assert "block1" not in found
        assert found["classifier"] == {w.name: n for w, n in blocks_of(MOBILE)}["classifier"]

    def test_the_work_of_a_block_is_that_of_its_layers(self) -> None:
        costs = layer_costs(MOBILE)
        for block, _ in blocks_of(MOBILE):
            if block.name.startswith("block"):
                work = work_of(read_signature(block.signature).parts)
                assert work is not None
                assert work.macs == sum(cost.macs for cost in costs if cost.block == block.name)

    def test_standard_deviations_and_unknown_fields_are_read(self) -> None:
        key = "expanded_conv-input:14x14x80-output:14x14x80-expand:3-kernel:5-stride:1-idskip:1-se:1-hs:1"
        (row,) = read_proxyless(json.dumps({key: {"count": 3, "mean": 1, "std": 0.1}}).encode(), FP32)
        assert row.deviation == pytest.approx(1e-4)
        assert '"se":1' in row.workload.signature

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a: &x [1]\nb: *x\n", "aliases"),
            (b"!!python/object/apply:os.system ['true']", "not YAML"),
            (b"[1, 2]", "a mapping of blocks"),
            (b"[" * 100_000, "nested more than 5 deep"),
            (b"\x00", "not YAML"),
            (b"Conv-input:2x2x3-output:2x2x3: 5\n", "a mapping with count, mean"),
            (b"Conv-input:2x2x3-output:2x2x3: {mean: .nan}\n", "finite number"),
            (b"Conv-input:2x2x3-output:2x2x3: {mean: -1}\n", "0 or more"),
            (b"Conv-input:2x2x3-output:2x2x3: {mean: 0}\n", "more than 0"),
            (b"Conv-input:2x2x3-output:2x2x3: {mean: 1, count: 0}\n", "count"),
            (b"Conv-input:2x2x3-output:abc: {mean: 1}\n", "output is 'abc'"),
            (b"what: {mean: 1}\n", "write NAME-input"),
            (f"{EXPANDED}: {{mean: 1}}\n{EXPANDED}: {{mean: 2}}\n".encode(), "is there twice"),
        ],
    )
    def test_what_is_no_such_table_is_refused(self, content: bytes, message: str) -> None:
        with pytest.raises(TableError, match=message):
            read_proxyless(content, FP32)


class TestApq:
    def test_energy_and_latency_of_a_conv(self) -> None:
        latency, energy = sorted(
            read_apq(b'{"(96,96,112,3,2,1,96)-W4A8": {"energy": 0.5, "latency": 0.25}}'),
            key=lambda row: row.metric,
            reverse=True,
        )
        assert (latency.metric, latency.value) == (Metric.LATENCY_S, pytest.approx(2.5e-4))
        assert (energy.metric, energy.value) == (Metric.ENERGY_J, pytest.approx(5e-4))
        network = in_precision(MOBILE, parse_precision("w4a8"))
        layers = {layer.digest: layer.name for one in workloads(network) if (layer := layer_of(one)) is not None}
        assert layers[latency.workload.digest] == "block2.depthwise"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"{", "not JSON"),
            (b"[]", "an object of convs"),
            (b'{"(1,2,3)-W4A8": {"latency": 1}}', "write \\(cin"),
            (b'{"(1,1,8,3,0,1,1)-W4A8": {"latency": 1}}', "no such conv"),
            (b'{"(3,8,8,3,1,1,2)-W4A8": {"latency": 1}}', "no such conv"),
            (b'{"(8,8,8,3,1,1,1)-W99A8": {"latency": 1}}', "is not a precision"),
            (b'{"(8,8,8,3,1,1,1)-W4A8": {"latency": NaN}}', "finite number"),
            (b'{"(8,8,8,3,1,1,1)-W4A8": {"latency": -1}}', "above 0"),
            (b'{"(8,8,8,3,1,1,1)-W4A8": {}}', "energy in mJ and latency in ms"),
            (b'{"(8,8,8,3,1,1,1)-W4A8": {"latency": 1}, "(8,8,8,3,1,1,1)-W4A8": {"latency": 2}}', "is there twice"),
        ],
    )
    def test_what_is_no_such_table_is_refused(self, content: bytes, message: str) -> None:
        with pytest.raises(TableError, match=message):
            read_apq(content)
