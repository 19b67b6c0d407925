"""Activation maps of real files: what is counted is what is computed, and what is told is what streams take."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from search_spaces.activation_codes import CodecName, fit_code
from search_spaces.activation_maps import travelling_maps
from search_spaces.catalog import build_network
from search_spaces.design import Design
from search_spaces.known import Sources
from search_spaces.network import Network, Op
from search_spaces.objectives import Metric, TrialState
from search_spaces.precision import Precision
from search_spaces.quantisation import plan_quantisation
from search_spaces.spec import Family, NetworkSpec
from tests.workers.on_digits import digits_document, digits_spec, half
from workers.activation_maps import (
    code_maps,
    compress_report,
    count_maps,
    map_symbols,
    rounded_model,
    symbols_of,
    total_values,
)
from workers.calibrate import calibrate
from workers.codecs import open_codec
from workers.fold import fold_batch_norms
from workers.jobs import confirm, evaluate, export, prepare
from workers.onnx_quantize import ActivationGrid, activation_grid
from workers.onnx_session import open_session
from workers.onnx_writer import INPUT_NAME, with_batch, write_onnx
from workers.testing import random_weights
from workers.torch_network import build_module
from workers.weights import Weights

CODES = [name for name in CodecName if name is not CodecName.NONE]


def folded_network(family: Family, precision: str = "fp32") -> tuple[Network, Weights]:
    spec = NetworkSpec(family=family, width=0.1, input=(1, 16, 16))
    network = build_network(spec, 10, (0.3,), (0.35,))
    folded, weights = fold_batch_norms(network, random_weights(network))
    if precision == "fp32":
        return folded, weights
    bits = Precision(*(int(part) for part in precision[1:].split("a")))
    return folded.with_nodes({layer.name: replace(layer, precision=bits) for layer in folded.compute_nodes()}), weights


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1, 16, 16), dtype=np.float32)


def in_torch(network: Network, weights: Weights, batch: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    with torch.no_grad():
        tensors = build_module(network, weights).eval().observe(torch.from_numpy(batch), names)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("family", [Family.MOBILENET_V1, Family.RESNET_56, Family.SHUFFLENET_V2, Family.VGG_13])
def test_maps_of_floats_are_what_torch_computes_rounded_to_q_bits(family):
    network, weights = folded_network(family)
    fit, others = images(20), images(37, seed=1)
    counted = count_maps(network, write_onnx(network, weights), fit, others, float_bits=8)
    names = [one.map.tensor for one in counted]
    fitted_tensors, tensors = (in_torch(network, weights, batch, names) for batch in (fit, others))
    for one in counted:
        name = one.map.tensor
        assert (one.map.bits, one.map.is_quantised) == (8, False)
        low, high = fitted_tensors[name].min(), fitted_tensors[name].max()
        zero = round(-min(low, 0) / (max(high, 0) - min(low, 0)) * 255)
        steps = np.clip(np.rint(tensors[name] / (max(high, 0) - min(low, 0)) * 255) + zero, 0, 255).astype(int)
        expected = np.bincount(steps.reshape(-1), minlength=256)
        found = one.counted[symbols_of(ActivationGrid(np.float32(1), zero, 255))]
        # Sums in another order: a value in ten thousand may round to a neighbour.
        assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= max(2, 2e-3 * expected.sum()), name
        assert one.counted.sum() == expected.sum() == 37 * one.map.elements
        assert one.images == 37


def test_maps_are_what_one_operator_writes_and_another_reads():
    network, _ = folded_network(Family.RESNET_56)
    maps = {one.tensor: one for one in travelling_maps(network)}
    nodes = network.by_name()
    assert all(nodes[name].op is not Op.ADD for name in maps), "a relu is behind each addition"
    assert network.output not in maps
    assert network.nodes[0].name not in maps
    assert {one.bits for one in maps.values()} == {16}
    behind_relu = [name for name in maps if nodes[name].op is Op.RELU]
    assert len(behind_relu) >= 55


@pytest.mark.parametrize(("precision", "bits"), [("w8a8", 8), ("w4a4", 4), ("w2a2", 2)])
@pytest.mark.parametrize("family", [Family.MOBILENET_V1, Family.RESNET_56, Family.SHUFFLENET_V2])
def test_maps_of_quantised_layers_are_the_integers_of_their_file(family, precision, bits):
    network, weights = folded_network(family, precision)
    fit, others = images(20), images(30, seed=1)
    ranges = calibrate(network, weights, fit)
    model = write_onnx(network, weights, ranges, batch="N")
    counted = {one.map.tensor: one for one in count_maps(network, model, fit, others) if one.map.is_quantised}
    assert {one.map.bits for one in counted.values()} <= {bits, 8}
    assert len(counted) > 0.6 * len(travelling_maps(network))
    for name, dequantised in as_written(model, list(counted), others).items():
        one = counted[name]
        root = plan_quantisation(network).root[name]
        grid = activation_grid(ranges[root], one.map.bits)
        integers = np.rint(dequantised / grid.scale).astype(int) + grid.zero_point
        expected = np.bincount(integers.reshape(-1), minlength=grid.top + 1)
        found = one.counted[symbols_of(grid)]
        # Fused integer operators round now and then to a neighbour of what floats between them lead to.
        assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= 0.03 * expected.sum(), name


def as_written(model: bytes, tensors: list[str], batch: np.ndarray) -> dict[str, np.ndarray]:
    """What readers of each tensor are fed, when the file is computed node by node, without anything fused."""
    proto = onnx.ModelProto.FromString(model)
    made = {output for node in proto.graph.node for output in node.output}
    names = {name: f"{name}/dequantised" for name in tensors if f"{name}/dequantised" in made}
    assert len(names) >= len(tensors) - 2, "all but what only a flatten or a pad reads"
    for output in names.values():
        proto.graph.output.add(name=output).type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(list(names.values()), {INPUT_NAME: batch}), strict=True))


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("precision", ["fp32", "w8a8", "w4a4"])
def test_what_is_told_is_what_real_streams_take(name, precision):
    """Each map of each image coded for itself, and read back; the bits are counted to the last one."""
    network, weights = folded_network(Family.MOBILENET_V1, precision)
    fit, others = images(16), images(8, seed=1)
    model = write_onnx(network, weights, calibrate(network, weights, fit))
    counted = count_maps(network, model, fit, others, float_bits=12)
    maps = map_symbols(network, model, fit, others, float_bits=12)
    assert list(maps) == [one.map.tensor for one in counted]
    for one, told in zip(counted, code_maps(counted, name), strict=True):
        codec = open_codec(fit_code(name, one.fitted))
        symbols = maps[told.tensor]
        streams = [codec.encode(image) for image in symbols]
        for stream, image in zip(streams, symbols, strict=True):
            np.testing.assert_array_equal(codec.decode(stream, image.size), image)
        assert told.coded_bytes == codec.length_bits(symbols) / 8 / 8
        filling = sum(map(len, streams)) - told.coded_bytes * len(streams)
        assert 0 <= filling < len(streams), "each stream ends in a whole byte"


@pytest.mark.parametrize(
    ("zero_point", "top"), [(0, 255), (128, 255), (100, 255), (200, 255), (255, 255), (0, 1), (7, 15)]
)
def test_small_values_of_both_signs_are_small_numbers(zero_point, top):
    symbols = symbols_of(ActivationGrid(np.float32(0.5), zero_point, top))
    assert sorted(symbols) == list(range(top + 1)), "each has one, in the same bits"
    assert symbols[zero_point] == 0
    size = np.abs(np.arange(top + 1) - zero_point)
    assert (np.diff(size[np.argsort(symbols)]) >= 0).all()
    if zero_point == 0:
        np.testing.assert_array_equal(symbols, np.arange(top + 1))
    if zero_point == 128:
        # An odd number i is -(i + 1) / 2, an even one i / 2.
        inverse = np.argsort(symbols) - 128
        assert inverse[:7].tolist() == [0, -1, 1, -2, 2, -3, 3]


def test_a_report_has_a_row_for_each_map_and_every_codec():
    network, weights = folded_network(Family.MOBILENET_V1)
    rows = compress_report(network, weights, images(16), images(16, seed=1), q=8)
    json.dumps(rows)
    assert [row["tensor"] for row in rows] == [one.tensor for one in travelling_maps(network)]
    for row in rows:
        elements = row["elements"]
        assert (row["none_bytes"], row["raw_bytes"], row["bits"]) == (4 * elements, elements, 8)
        assert row["zvc_bytes"] == pytest.approx(elements * (1 + 8 * row["nonzero_share"]) / 8)
        assert row["entropy_bytes"] <= min(row[f"{name}_bytes"] for name in CODES) + 1e-9
        assert 0 <= row["seg_k"] <= 8


def test_maps_that_are_no_numbers_are_refused():
    network, weights = folded_network(Family.MOBILENET_V1)
    broken = {name: array * np.float32(1e20) if name.endswith(".weight") else array for name, array in weights.items()}
    with pytest.raises(FloatingPointError, match="activation maps have values that are not finite"):
        count_maps(network, write_onnx(network, broken), images(4), images(4))


@pytest.mark.parametrize("family", [Family.MOBILENET_V1, Family.RESNET_56])
def test_rounding_maps_to_many_bits_changes_next_to_nothing_and_to_few_a_lot(family):
    network, weights = folded_network(family)
    batch = images(32)

    def run(model: bytes) -> np.ndarray:
        return np.asarray(open_session(with_batch(model, "N")).run(None, {INPUT_NAME: batch})[0])

    plain = run(write_onnx(network, weights))
    scale = np.abs(plain).max()
    errors = [np.abs(run(rounded_model(network, weights, batch, q)) - plain).max() / scale for q in (16, 8, 2)]
    assert 0 < errors[0] < 0.01
    assert errors[0] < errors[1] < errors[2]
    with pytest.raises(ValueError, match="in their own file"):
        rounded_model(*folded_network(family, "w8a8"), batch, 8)


# --- in a search ------------------------------------------------------------------------------------------------


def maps_spec(**changes):
    objectives = [
        {"metric": "accuracy", "direction": "maximize"},
        {"metric": "activation_bytes", "direction": "minimize"},
    ]
    space = digits_document()["space"] | {"activation_codec": {"choices": ["none", "raw", "seg", "huffman"]}}
    return digits_spec(**({"objectives": objectives, "space": space} | changes))


def coded_by(codec: str, precision: str = "fp32") -> Design:
    return Design.of({**half(precision), "activation_codec/network": codec})


def test_a_codec_changes_what_travels_and_nothing_else(digits_home):
    spec = maps_spec()
    outcomes = {
        codec: evaluate(spec, Sources(), coded_by(codec), digits_home.key, digits_home.folder)
        for codec in ("none", "raw", "seg", "huffman")
    }
    assert all(outcome.state is TrialState.SUCCEEDED for outcome in outcomes.values())
    taken = {codec: outcome.values[Metric.ACTIVATION_BYTES] for codec, outcome in outcomes.items()}
    assert taken["none"] == 2 * taken["raw"]
    assert taken["seg"] < taken["raw"]
    assert taken["huffman"] < taken["raw"], "though of 16 bits many values are not among those that it was fitted to"
    shares = {outcome.values[Metric.ACTIVATION_NONZERO_SHARE] for outcome in outcomes.values()}
    assert len(shares) == 1
    assert 0.1 < shares.pop() < 0.9
    assert len({outcome.values["accuracy"] for outcome in outcomes.values()}) == 1
    found = outcomes["seg"].details["activations"]
    assert (found["codec"], found["fit_images"], found["images"]) == ("seg", 144, 80)
    assert sum(one["coded_bytes"] for one in found["maps"]) == taken["seg"]
    json.dumps(outcomes["seg"].details, allow_nan=False)


def test_integers_travel_in_their_own_bits(digits_home):
    def taken(codec: str, precision: str = "w8a8") -> float:
        design = coded_by(codec, precision)
        outcome = evaluate(maps_spec(), Sources(), design, digits_home.key, digits_home.folder)
        return outcome.values[Metric.ACTIVATION_BYTES]

    assert taken("none") == taken("raw") == taken("none", "fp32") / 4
    assert taken("huffman") < taken("seg") < taken("raw")


def test_the_base_is_told_in_the_same_way_and_a_limit_ends_a_trial_before_it_is_scored(digits_home):
    limits = [{"metric": "activation_bytes", "max": 1000}]
    spec = maps_spec(limits=limits, evaluation=digits_document()["evaluation"] | {"activation_codec": "zvc"})
    base = prepare(spec, Sources(), digits_home.folder)["values"]
    assert base[Metric.ACTIVATION_BYTES] > 1000
    outcome = evaluate(spec, Sources(), half("fp32"), digits_home.key, digits_home.folder)
    assert outcome.state is TrialState.INFEASIBLE
    assert "activation_bytes" in outcome.reason
    assert outcome.details["activations"]["codec"] == "zvc"
    assert "accuracy" not in outcome.values


def test_nothing_is_counted_where_nobody_asks(digits_home):
    outcome = evaluate(digits_spec(), Sources(), half("fp32"), digits_home.key, digits_home.folder)
    assert not {Metric.ACTIVATION_BYTES, Metric.ACTIVATION_NONZERO_SHARE} & outcome.values.keys()
    assert "activations" not in outcome.details


def test_finalists_and_exports_are_told_it_again(digits_home):
    spec = maps_spec(evaluation=digits_document()["evaluation"] | {"finalists": {"top": 1, "finetune_epochs": 0}})
    design = coded_by("seg", "w8a8")
    confirmed = confirm(spec, Sources(), design, digits_home.key, digits_home.folder)
    reported = confirmed["values"]
    exported = export(
        spec, Sources(), design, digits_home.key, confirmed["weights_digest"], reported, digits_home.folder
    )
    assert exported["report"]["remeasured"][Metric.ACTIVATION_BYTES] == reported[Metric.ACTIVATION_BYTES] > 0


def test_simulated_memory_moves_what_is_coded(digits_home):
    objectives = [
        {"metric": "accuracy", "direction": "maximize"},
        {"metric": "energy_j", "direction": "minimize", "device": "bit-fusion-edge"},
    ]
    space = {"prune_ratio": {"high": 0.5}, "activation_codec": {"choices": ["none", "seg"]}}
    space["precision"] = {"choices": ["w8a8", "w4a4"], "scope": "layer"}
    spec = maps_spec(objectives=objectives, space=space)
    energy_j = {
        codec: evaluate(spec, Sources(), design, digits_home.key, digits_home.folder).values[Metric.ENERGY_J]
        for codec, design in {
            codec: Design.of(
                {f"precision/{layer}": "w8a8" for layer in _layers(digits_home)} | {"activation_codec/network": codec}
            )
            for codec in ("none", "seg")
        }.items()
    }
    assert 0 < energy_j["seg"] < energy_j["none"]


def _layers(digits_home) -> list[str]:
    from workers.base import load_base

    return [node.name for node in load_base(digits_home.key, digits_home.folder).network.compute_nodes()]


def test_totals_are_of_all_values():
    network, weights = folded_network(Family.MOBILENET_V1)
    counted = count_maps(network, write_onnx(network, weights), images(8), images(8, seed=1))
    totals = total_values(counted, code_maps(counted, CodecName.RAW))
    assert totals[Metric.ACTIVATION_BYTES] == 2 * sum(one.map.elements for one in counted)
    nonzero = sum(one.counted[1:].sum() for one in counted)
    assert totals[Metric.ACTIVATION_NONZERO_SHARE] == nonzero / sum(one.counted.sum() for one in counted)
