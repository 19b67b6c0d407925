"""What is trained through its rounding in a search comes out of it: confirmed, stored and exported as it was scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from search_spaces.design import Design
from search_spaces.known import Sources
from search_spaces.network import Network, Node, Op
from search_spaces.precision import Precision
from search_spaces.spec import SearchSpec
from service.artifacts.store import ARTIFACTS, open_path
from tests.workers.on_digits import DigitsHome, digits_document, half
from workers.appraise import build
from workers.base import Base
from workers.jobs import confirm, evaluate, export
from workers.stored_candidate import arrays_of, raw_weights_of, restored
from workers.transforms.reconstruct import observe
from workers.weight_grids import quantised_weight
from workers.weights import WeightsError, init_weights
from workers.weights_file import load_weights
from workers.workbench import set_up


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def few_bits() -> Design:
    return Design.of({name: "w4a4" if value == "w8a8" else value for name, value in half("w8a8").items()})


def spec_with(for_each: dict, for_finalists: dict) -> SearchSpec:
    document = digits_document()
    document["evaluation"] |= {"quantisation_aware": for_each}
    document["evaluation"]["finalists"] = {"top": 1, "quantisation_aware": for_finalists}
    return SearchSpec.model_validate(document)


LONG = {"epochs": 2, "estimator": "lsq", "learning_rate": 0.003}
SHORT = LONG | {"epochs": 0.5}


def test_a_finalist_is_trained_through_its_rounding_and_exported_as_it_was_confirmed(digits_home: DigitsHome):
    spec, design = spec_with({}, LONG), few_bits()
    tried = evaluate(spec, Sources(), design, digits_home.key, digits_home.folder)
    assert "train_rounded" not in tried.details["stage_s"]
    confirmed = confirm(spec, Sources(), design, digits_home.key, digits_home.folder)
    assert confirmed["details"]["fine_tuning"]["kept"]
    assert confirmed["details"]["fine_tuning"]["after"] > confirmed["details"]["fine_tuning"]["before"]
    assert confirmed["details"]["stage_s"]["train_rounded"] > 0
    exported = export(
        spec,
        Sources(),
        design,
        digits_home.key,
        confirmed["weights_digest"],
        confirmed["values"],
        digits_home.folder,
    )
    differences = exported["report"]["differences"]
    assert {name: differences[name] for name in ("accuracy", "size_bytes")} == {"accuracy": 0, "size_bytes": 0}


@pytest.mark.parametrize("weights_alone", ["w4a32", "k3a32"])
def test_weights_in_few_bits_beside_integers_stay_in_few_bits(digits_home: DigitsHome, weights_alone: str):
    spec = spec_with(SHORT, {})
    design = Design.of(few_bits().to_json() | {f"precision/block{number}": weights_alone for number in range(2, 6)})
    outcome = evaluate(spec, Sources(), design, digits_home.key, digits_home.folder)
    assert outcome.details["stage_s"]["train_rounded"] > 0
    exported = export(spec, Sources(), design, digits_home.key, None, outcome.values, digits_home.folder)
    assert exported["report"]["differences"]["accuracy"] == 0
    assert any(file["filename"].endswith(".packed.safetensors") for file in exported["files"])


def test_candidates_are_trained_where_the_evaluation_has_epochs(digits_home: DigitsHome):
    outcome = evaluate(spec_with(SHORT, {}), Sources(), few_bits(), digits_home.key, digits_home.folder)
    assert outcome.details["stage_s"]["train_rounded"] > 0
    floats = evaluate(spec_with(SHORT, {}), Sources(), half("fp32"), digits_home.key, digits_home.folder)
    assert "train_rounded" not in floats.details["stage_s"]


def test_a_network_of_which_only_the_image_is_rounded_is_trained_too(digits_home: DigitsHome):
    bench = set_up(spec_with(SHORT, {}), Sources(), digits_home.key, digits_home.folder)
    nodes = (
        Node("image", Op.INPUT),
        Node("flat", Op.FLATTEN, ("image",)),
        Node("classifier", Op.LINEAR, ("flat",), 10, bias=True),
    )
    network = Network("linear", bench.base.network.input, nodes, "classifier")
    weights = init_weights(network, seed=0)
    base = Base("0" * 64, network, weights, {})
    bench = replace(bench, base=base, observed=observe(network, weights, bench.observed.images))
    candidate = build(bench, Design.of({"precision/classifier": "w3a8"}), {"stage_s": {}})[0]
    assert candidate.is_rounded
    assert candidate.ranges == {}
    name = "classifier.weight"
    assert not np.array_equal(candidate.weights[name], quantised_weight(weights[name], Precision(3, 8)))
    back = restored(replace(candidate, weights={}), arrays_of(candidate))
    assert np.array_equal(back.weights[name], candidate.weights[name])


def test_a_candidate_comes_back_as_it_was_from_its_arrays(digits_home: DigitsHome):
    spec, design = spec_with(SHORT, {}), few_bits()
    bench = set_up(spec, Sources(), digits_home.key, digits_home.folder)
    candidate = build(bench, design, {"stage_s": {}})[0]
    plain = build(set_up(spec_with({}, {}), Sources(), digits_home.key, digits_home.folder), design, {"stage_s": {}})[0]
    assert candidate.is_rounded
    assert not plain.is_rounded
    assert arrays_of(plain) is plain.raw_weights
    arrays = arrays_of(candidate)
    assert raw_weights_of(arrays).keys() == candidate.raw_weights.keys()
    back = restored(plain, arrays)
    assert back.ranges == candidate.ranges
    assert all(np.array_equal(back.weights[name], array) for name, array in candidate.weights.items())
    assert restored(plain, plain.raw_weights) is plain
    without = {name: array for name, array in arrays.items() if not name.startswith("range/stem")}
    with pytest.raises(WeightsError, match="ranges are not those of the network"):
        restored(plain, without)


def test_the_stored_file_holds_raw_weights_too_so_that_a_refinement_can_begin_with_them(digits_home: DigitsHome):
    spec = spec_with(SHORT, {})
    confirmed = confirm(spec, Sources(), few_bits(), digits_home.key, digits_home.folder)
    arrays = load_weights(open_path(digits_home.folder / ARTIFACTS, confirmed["weights_digest"]))
    assert any(name.startswith("rounded/") for name in arrays)
    assert "classifier.weight" in raw_weights_of(arrays)
