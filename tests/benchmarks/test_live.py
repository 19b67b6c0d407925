"""Searches whose designs are tried: each once, in order, with the time that it took; and what is made of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import full_space
from benchmarks.full_space import panels_of, points_of, search, summary, volume
from benchmarks.report.cells import Result
from benchmarks.searching import live
from benchmarks.searching.subject import recorded_spec, space_of
from search_spaces.accelerators.models import simulate
from search_spaces.apply import apply
from search_spaces.objectives import Metric, Outcome, TrialState
from service.web.curves import render_panels

EVALUATION_S = 0.002


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Iterator[full_space.Subject]:
    """Of the recorded table's space; each design is as good as it has MACs, and takes a stated time."""
    space = space_of(recorded_spec())
    tried: list[Any] = []

    def evaluate(spec: Any, sources: Any, design: Any, key: str, home: Path) -> Outcome:
        tried.append(design)
        end = time.process_time() + EVALUATION_S
        while time.process_time() < end:
            pass
        costs = dict(simulate("bit-serial-edge", apply(space.network, design)))
        accuracy = 0.2 + 0.5 * costs[Metric.LATENCY_S] / 0.0013
        return Outcome(TrialState.SUCCEEDED, {Metric.ACCURACY: accuracy, **costs})

    monkeypatch.setattr(live, "evaluate", evaluate)
    monkeypatch.setattr(full_space, "BUDGET", 8)
    subject = full_space.Subject(recorded_spec(), space, "a key", Path("unused"), {})
    yield subject
    assert len(tried) == len(set(tried)) == len(subject.known)


@pytest.mark.parametrize("sampler", ["random", "optuna tpe"])
def test_a_search_tells_its_evaluations_in_order_with_their_time(subject: full_space.Subject, sampler: str):
    told = search(subject, sampler, seed=0)
    assert told["baseline"] == len(subject.space.uniform)
    assert len(told["evaluations"]) == told["baseline"] + 8
    seconds = [row[2] for row in told["evaluations"]]
    assert seconds == sorted(seconds)
    assert seconds[-1] >= EVALUATION_S * len(seconds)


def test_a_design_that_is_known_takes_the_time_that_it_took(subject: full_space.Subject):
    first, again = (search(subject, "random", seed=0) for _ in range(2))
    assert [row[:2] for row in first["evaluations"]] == [row[:2] for row in again["evaluations"]]
    assert again["evaluations"][-1][2] >= EVALUATION_S * len(again["evaluations"])


def test_shares_are_of_what_all_have_found_together(subject: full_space.Subject, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(full_space, "COUNTS", (0, 5, 8))
    results = [
        Result({"dataset": "d", "sampler": name, "seed": 0}, search(subject, name, seed=0), 0.0, "c")
        for name in ("random", "optuna nsga2")
    ]
    told = summary(results)
    together = volume(np.concatenate([points_of(one) for one in results]))
    assert told["hypervolume"] == pytest.approx(together, abs=1e-6)
    for (run,) in told["samplers"].values():
        assert run["share"] == sorted(run["share"])
        assert 0 < run["share"][-1] <= 1
    best = max(run["share"][-1] for (run,) in told["samplers"].values())
    assert best == pytest.approx(max(volume(points_of(one)) for one in results) / together, abs=1e-5)
    picture = render_panels(panels_of("d", told), columns=2)
    assert "optuna nsga2" in picture
    assert "processor seconds" in picture
