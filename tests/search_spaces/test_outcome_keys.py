"""Keys of outcomes: whatever may change what a trial finds changes its key, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.design import Design
from search_spaces.known import Sources
from search_spaces.outcome_keys import Setting, outcome_key, setting_digest
from search_spaces.spec import EvaluationSpec, SearchSpec

SETTING = Setting("b" * 64, {"train": "t", "calibrate": "c", "score": "s"}, 1, {"torch": "2.9"}, "f" * 64)
DOCUMENT: dict[str, Any] = {
    "name": "one",
    "network": {"family": "mobilenet_v1", "width": 0.25, "input": [1, 8, 8]},
    "dataset": {"name": "digits"},
    "space": {"prune_ratio": {"high": 0.5}, "precision": {"choices": ["fp32", "w8a8"]}},
    "objectives": [
        {"metric": "accuracy", "direction": "maximize"},
        {"metric": "latency_s", "direction": "minimize", "device": "local-cpu"},
    ],
    "limits": [{"metric": "size_bytes", "max": 1e6}],
}
DESIGN = Design.of({"channels/stem": 16})


def digest(setting: Setting = SETTING, sources: Sources | None = None, **changes: Any) -> str:
    spec = SearchSpec.model_validate(DOCUMENT | changes)
    return setting_digest(spec, sources or Sources(), setting)


def latency_on(device: str) -> list[dict[str, Any]]:
    return [DOCUMENT["objectives"][0], {"metric": "latency_s", "direction": "minimize", "device": device}]


@pytest.mark.parametrize(
    "changes",
    [
        {"network": {"family": "mobilenet_v1", "width": 0.5, "input": [1, 8, 8]}},
        {"dataset": {"name": "fashion_mnist"}},
        {"recipe": {"epochs": 3}},
        {"evaluation": {"reconstruct": "none"}},
        {"evaluation": {"score_images": 100}},
        {"evaluation": {"calibration_images": 100}},
        {"evaluation": {"bias_correction": True}},
        {"evaluation": {"finetune_epochs": 1}},
        {"evaluation": {"learning_rate": 0.02}},
        {"evaluation": {"quantisation_aware": {"epochs": 1}}},
        {"evaluation": {"distillation": {}}},
        {"objectives": latency_on("other-cpu")},
        {"objectives": DOCUMENT["objectives"][:1]},
        {"limits": [{"metric": "energy_j", "max": 1.0, "device": "local-cpu"}]},
        {"limits": [{"metric": "f1", "min": 0.5}]},
        {"limits": [{"metric": "activation_bytes", "max": 1e6}]},
    ],
    ids=str,
)
def test_what_may_change_what_is_found_changes_the_digest(changes: dict[str, Any]) -> None:
    assert digest(**changes) != digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"limits": []},
        {"limits": [{"metric": "macs", "max": 1e6}, {"metric": "accuracy", "min": 0.9}]},
        {"objectives": [*DOCUMENT["objectives"][::-1], {"metric": "macs", "direction": "minimize"}]},
        {"sampler": {"name": "tpe", "seed": 3}},
        {"budget": {"trials": 3, "wall_time_s": 5}},
        {"space": {"prune_ratio": {"high": 0.75}}},
        {"evaluation": {"finalists": {"top": 9, "finetune_epochs": 2}}},
        {"evaluation": {"measure": "always"}},
        {"evaluation": {"importance": "l2", "calibration": "kl"}},
    ],
    ids=str,
)
def test_what_is_done_with_what_is_found_does_not(changes: dict[str, Any]) -> None:
    assert digest(**changes) == digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"base_key": "c" * 64},
        {"splits": SETTING.splits | {"score": "other"}},
        {"splits": SETTING.splits | {"train": "other"}},
        {"threads": 2},
        {"versions": {"torch": "3.0"}},
        {"fingerprint_digest": "e" * 64},
    ],
    ids=str,
)
def test_another_setting_is_another_digest(changes: dict[str, Any]) -> None:
    assert digest(replace(SETTING, **changes)) != digest()


def test_an_imported_network_is_its_base_by_whatever_name() -> None:
    sources = Sources(network="a" * 64, dataset="d" * 64)
    mine, yours = ({"network": {"name": name}} for name in ("mine", "yours"))
    assert digest(sources=sources, **mine) == digest(sources=sources, **yours)
    assert digest(sources=Sources(network="a" * 64, dataset="e" * 64), **mine) != digest(sources=sources, **mine)


def test_methods_count_where_the_design_does_not_say_them() -> None:
    l1, l2 = EvaluationSpec(importance="l1"), EvaluationSpec(importance="l2")
    named = Design.of({**DESIGN, "importance/network": "l2"})
    assert outcome_key("s", l1, DESIGN, "k") != outcome_key("s", l2, DESIGN, "k")
    assert outcome_key("s", l1, named, "k") == outcome_key("s", l2, named, "k")


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_keys_are_equal_only_where_setting_and_design_are(one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = [outcome_key(setting, EvaluationSpec(), DESIGN, design_key) for setting, design_key in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
