"""What cheap steps before the full evaluation save: evaluator seconds until a search has the same hypervolume.

Real designs of a MobileNet-V1 on digits, each fine-tuned, proposed by one sampler with and without steps, one after the
other in this process, on one thread. Without steps a search has a budget of trials; with steps it may ask for more in
the same seconds. A search of fewer trials is the beginning of one of more, and is told from it. Seconds are processor
time of `workers.jobs.evaluate`, the uniform baseline included, whose worst values moved a tenth beyond are the
reference point of both. Prints a table and keeps benchmarks/results/rungs.json after each pair of searches: it goes on
where it was stopped.

    python -m benchmarks.rungs [--seeds 1 2 3 4 5]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.progress import track
from rich.table import Table

from search_spaces.check import Checked, check_spec
from search_spaces.design import Design
from search_spaces.known import Sources
from search_spaces.objectives import Outcome, TrialState
from search_spaces.pareto import hypervolume, reference_point
from search_spaces.rungs import Ended, stand
from search_spaces.samplers import ToldTrial, make_sampler
from search_spaces.spec import SearchSpec
from workers.announce import local_known
from workers.jobs import evaluate, prepare

RESULTS = Path(__file__).parent / "results" / "rungs.json"
SAMPLERS = ("random", "nsga2", "evolution")
BUDGETS = (30, 100)
"""Trials of a search without steps, beside the uniform ones."""
SHARES = (0.9, 0.95, 1.0)
"""Of what the search without steps has gained over the uniform baseline in the end."""
EVALUATION = {"calibration_images": 128, "score_images": 240, "finetune_epochs": 4.0, "finalists": {"top": 0}}
STEPS = [{"score_images": 240}, {"score_images": 240, "finetune_epochs": 2.0}]
RUNGS = {"least": 6, "steps": STEPS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    protocol = {"rule": "marginal value", "budgets": list(BUDGETS), "evaluation": EVALUATION, "rungs": RUNGS}
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows = kept["rows"] if kept.get("protocol") == protocol else []
    done = {(row["sampler"], row["seed"]) for row in rows}
    cells = [(sampler, seed) for seed in parser.parse_args().seeds for sampler in SAMPLERS]
    with tempfile.TemporaryDirectory() as home:
        missing = [cell for cell in cells if cell not in done]
        for sampler, seed in track(missing, "searches", console=Console(stderr=True)):
            rows += compare(sampler, seed, Path(home))
            RESULTS.write_text(json.dumps({"protocol": protocol, "rows": rows}, indent=2) + "\n")
    show(rows)


def make_spec(sampler: str, seed: int, trials: int, evaluation: dict[str, Any]) -> SearchSpec:
    return SearchSpec.model_validate(
        {
            "name": "rungs",
            "network": {"family": "mobilenet_v1", "width": 0.25, "input": [1, 8, 8], "stem_stride": 1},
            "dataset": {"name": "digits"},
            "space": {"prune_ratio": {"low": 0.0, "high": 0.8, "step": 0.2}},
            "objectives": [
                {"metric": "accuracy", "direction": "maximize"},
                {"metric": "macs", "direction": "minimize"},
            ],
            "sampler": {"name": sampler, "seed": seed, "population": 10 if sampler == "nsga2" else None},
            "evaluation": evaluation,
            "budget": {"trials": trials, "concurrency": 1000},  # one thread to each
        }
    )


@dataclass
class Run:
    """A search as it goes: values of each trial that was evaluated in full, and the seconds until then."""

    checked: Checked
    base_key: str
    home: Path
    told: list[ToldTrial] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    seconds: float = 0.0
    full: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    stopped: int = 0

    def try_design(self, design: Design, memo: Any, *, baseline: bool) -> ToldTrial:
        spec = self.checked.spec
        standing = None if baseline or spec.evaluation.rungs is None else stand(self.ended, len(STEPS))
        begun_s = process_time()
        outcome = evaluate(spec, Sources(), design, self.base_key, self.home, standing=standing)
        self._note(outcome, process_time() - begun_s, baseline=baseline)
        fidelity = len(outcome.rungs) / len(spec.evaluation.steps) if outcome.state is TrialState.STOPPED else 1.0
        values = {**outcome.values, **outcome.expected}
        trial = ToldTrial(len(self.told), design, outcome.state, values, {}, memo, baseline, fidelity)
        self.told.append(trial)
        return trial

    def _note(self, outcome: Outcome, took_s: float, *, baseline: bool) -> None:
        is_full, is_stopped = outcome.state is TrialState.SUCCEEDED, outcome.state is TrialState.STOPPED
        self.seconds += took_s
        self.stopped += is_stopped
        if is_full:
            self.full.append((self.seconds, dict(outcome.values)))
        at_steps = {number: self._point(values) for number, values in enumerate(outcome.rungs)}
        full = self._point(outcome.values) if is_full else None
        self.ended.append(Ended(at_steps, full, len(at_steps) - 1 if is_stopped else None, took_s, not baseline))

    def _point(self, values: Mapping[str, float]) -> list[float]:
        return [values[objective.metric] for objective in self.checked.spec.objectives]

    def volume(self, reference: dict[str, float], count: int | None = None) -> float:
        return hypervolume([values for _, values in self.full[:count]], self.checked.spec.objectives, reference)


def start(sampler: str, seed: int, home: Path, trials: int, evaluation: dict[str, Any]) -> Run:
    """The base, and the uniform baseline in full."""
    checked = check_spec(make_spec(sampler, seed, trials, evaluation), local_known())
    run = Run(checked, prepare(checked.spec, Sources(), home)["base_key"], home)
    for design in checked.space.uniform:
        run.try_design(design, {}, baseline=True)
    return run


def search(run: Run, is_enough: Callable[[Run], bool]) -> None:
    """Ask and tell."""
    sampler = make_sampler(run.checked.spec, run.checked.space)
    sampler.tell(run.told)
    while not is_enough(run):
        proposals = sampler.ask(1, len(run.told), [])
        if not proposals:
            return
        sampler.tell([run.try_design(proposals[0].design, dict(proposals[0].memo), baseline=False)])


def compare(sampler: str, seed: int, home: Path) -> list[dict[str, Any]]:
    """A row for each budget."""
    most = max(BUDGETS)
    whole = start(sampler, seed, home, most, EVALUATION)
    uniform = len(whole.full)
    reference = reference_point([values for _, values in whole.full], whole.checked.spec.objectives)
    search(whole, lambda run: len(run.told) == uniform + most)
    last = whole.volume(reference)
    by_steps = start(sampler, seed, home, most, EVALUATION | {"rungs": RUNGS})
    search(by_steps, lambda run: run.seconds >= whole.seconds or run.volume(reference) >= last)
    first = whole.volume(reference, uniform)
    rows = []
    for trials in BUDGETS:
        last = whole.volume(reference, uniform + trials)
        levels = {share: first + share * (last - first) for share in SHARES}
        seconds = {
            str(share): [seconds_until(run, level, reference) for run in (whole, by_steps)]
            for share, level in levels.items()
        }
        volumes = {"uniform_hypervolume": first, "hypervolume": last}
        rows.append({"sampler": sampler, "seed": seed, "trials": trials, **volumes, "seconds": seconds})
    rows[-1] |= {
        "hypervolume_by_steps": by_steps.volume(reference),
        "trials_by_steps": len(by_steps.told) - uniform,
        "stopped": by_steps.stopped,
    }
    return rows


def seconds_until(run: Run, level: float, reference: dict[str, float]) -> float | None:
    """Evaluator seconds until the hypervolume is there; None if it never is."""
    for count, (seconds, _) in enumerate(run.full, start=1):
        if run.volume(reference, count) >= level:
            return round(seconds, 2)
    return None


def show(rows: list[dict[str, Any]]) -> None:
    for trials in BUDGETS:
        alike = [row for row in rows if row["trials"] == trials]
        headings = ("sampler", "seed", *(f"{100 * share:g} %" for share in SHARES))
        title = f"{trials} trials: evaluator seconds to a share of the gain over uniform, without steps / with them"
        table = Table(*headings, title=title)
        for row in alike:
            cells = [_ratio(*row["seconds"][str(share)]) for share in SHARES]
            table.add_row(row["sampler"], str(row["seed"]), *cells)
        medians = [median(_ratios(alike, share)) for share in SHARES]
        table.add_row("median", "", *(f"{one:.2f}" for one in medians))
        Console().print(table)


def _ratios(rows: list[dict[str, Any]], share: float) -> list[float]:
    """Infinite where the search with steps never gets there."""
    pairs = [row["seconds"][str(share)] for row in rows]
    return [after / before if after else math.inf for before, after in pairs]


def _ratio(before: float | None, after: float | None) -> str:
    if not before or not after:
        return f"{before} / never"
    return f"{before:.1f} / {after:.1f} = {after / before:.2f}"


if __name__ == "__main__":
    main()
