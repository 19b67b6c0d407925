"""Tables in a terminal of 80 columns: everything that tells designs apart can be read."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console

from search_spaces.spec import ObjectiveSpec
from service.terminal import comparison_table, trial_table

OBJECTIVES = [
    ObjectiveSpec(metric="accuracy", direction="maximize"),
    ObjectiveSpec(metric="latency_s", direction="minimize", device="meter"),
    ObjectiveSpec(metric="energy_j", direction="minimize", device="meter"),
]


def trial(number: int, **values: float) -> dict[str, Any]:
    found = {"accuracy": 0.9, "accuracy_low": 0.88, "accuracy_high": 0.92, "latency_s": 4e-4, "energy_j": 0.0123}
    design = {"channels/stem": 16, "precision/block1": "w8a8", "precision/block2": "fp32"}
    return {"number": number, "values": found | {"macs": 1e7} | values, "sources": {}, "design": design}


def shown(*trials: dict[str, Any]) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(trial_table("Front", trials, OBJECTIVES))
    return captured.get()


def test_a_front_with_energy_fits_into_80_columns() -> None:
    text = shown(trial(3, size_bytes=1000.0), trial(12, size_bytes=2000.0))
    lines = text.splitlines()
    assert "12.300" in text
    assert "MACs of all: 10.00 M" in lines[-1]
    assert "size" in lines[1]
    assert "MACs" not in lines[1]
    assert len(lines) < 14
    assert "…" not in text


def test_what_nobody_has_has_no_column_and_a_single_row_keeps_its_figures() -> None:
    text = shown(trial(3))
    assert "size" not in text
    assert "MACs of all" not in text
    assert "10.00" in text


def test_a_comparison_has_a_line_for_each_search():
    one = {"sampler": "tpe", "search": "0123456789", "inherited": 4, "seed": 1, "trials": 30, "evaluator_s": 65.0}
    items = [one | {"share_at_common": 0.5, "share": 0.75, "on_joint_front": 3}]
    console = Console(width=120)
    with console.capture() as capture:
        console.print(comparison_table({"common_trials": 12, "items": items}))
    told = capture.get()
    assert "at 12 trials" in told
    assert re.search(r"tpe +01234567 +1 +30 +4 +1 min 0?5 s +50\.0 % +75\.0 % +3", told)
