"""What cheap steps could save at best: rules replayed on a record of designs, of what each was worth at each step.

`python -m benchmarks.rungs_replay record SEED...` evaluates the designs that a random search asks for, through all of
the steps of `benchmarks.rungs`, and adds them to benchmarks/tables/rungs.json. Without arguments each rule goes through
the record until it has the hypervolume of a search without steps; so do three that know how trials end, and bound what
a rule could reach, and one that has trials wait. Prints a table and writes benchmarks/results/rungs_replay.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.rungs import BUDGETS, EVALUATION, RUNGS, make_spec
from search_spaces.check import check_spec
from search_spaces.design import Design
from search_spaces.known import Sources
from search_spaces.objectives import TrialState
from search_spaces.pareto import Values, front_indices, hypervolume, reference_point
from search_spaces.rungs import Ended, Standing, promise, stand, why_stopped
from search_spaces.samplers import ToldTrial, make_sampler
from search_spaces.spec import RungsSpec
from workers.announce import local_known
from workers.jobs import evaluate, prepare

TABLE = Path(__file__).parent / "tables" / "rungs.json"
RESULTS = Path(__file__).parent / "results" / "rungs_replay.json"
DESIGNS = 250
ENOUGH = 1.4
"""Times the trials of a search without steps, that must be recorded to replay one with steps."""
WAITING = 20
"""Trials that have been scored at the first step, where the most promising one goes on first."""
SPEC = make_spec("random", 1, DESIGNS, EVALUATION | {"rungs": RUNGS})
OBJECTIVES = SPEC.objectives
FORETOLD = RungsSpec.model_validate(RUNGS)
RANKED = RungsSpec.model_validate(RUNGS | {"keep": 0.33})


@dataclass(frozen=True)
class Curve:
    """A trial: what it is worth at each step, the last being the full evaluation, and seconds until then.

    Attributes:
        whole_s: until the full evaluation without steps before it.
    """

    macs: float
    accuracy: list[float]
    climb_s: list[float]
    whole_s: float

    def at(self, step: int) -> dict[str, float]:
        return {"accuracy": self.accuracy[step], "macs": self.macs}

    @property
    def end(self) -> dict[str, float]:
        return self.at(-1)


@dataclass(frozen=True)
class Searched:
    """What a random search asks for, behind the uniform baseline.

    Attributes:
        trials: of the search without steps.
    """

    uniform: list[Curve]
    found: list[Curve]
    trials: int

    @cached_property
    def reference(self) -> dict[str, float]:
        return reference_point([curve.end for curve in self.uniform], OBJECTIVES)

    def volume(self, ends: Sequence[Values]) -> float:
        return hypervolume(ends, OBJECTIVES, self.reference)

    @cached_property
    def goal(self) -> float:
        return self.volume([curve.end for curve in (self.uniform + self.found)[: len(self.uniform) + self.trials]])

    @cached_property
    def whole_s(self) -> float:
        """Until a search without steps is there."""
        ends, seconds = [], 0.0
        for curve in self.uniform + self.found:
            ends.append(curve.end)
            seconds += curve.whole_s
            if self.volume(ends) >= self.goal:
                break
        return seconds


def record(seeds: Sequence[int]) -> None:
    time.perf_counter = time.process_time  # stages too are told in processor time
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    with tempfile.TemporaryDirectory() as home:
        base_key = prepare(SPEC, Sources(), Path(home))["base_key"]
        for seed in seeds:
            checked = check_spec(make_spec("random", seed, DESIGNS, EVALUATION), local_known())
            sampler = make_sampler(checked.spec, checked.space)
            uniform = [draw(design, base_key, Path(home)) for design in checked.space.uniform]
            told = [_told(*pair, baseline=True) for pair in enumerate(checked.space.uniform)]
            sampler.tell(told)
            found = []
            for number in track(range(len(told), len(told) + DESIGNS), f"seed {seed}", console=Console(stderr=True)):
                design = sampler.ask(1, number, [])[0].design
                found.append(draw(design, base_key, Path(home)))
                sampler.tell([_told(number, design, baseline=False)])
            table["uniform"], table[str(seed)] = [asdict(one) for one in uniform], [asdict(one) for one in found]
    TABLE.write_text(json.dumps(table) + "\n")


def _told(number: int, design: Design, *, baseline: bool) -> ToldTrial:
    """A random search heeds what is taken and nothing else."""
    return ToldTrial(number, design, TrialState.FAILED, {}, {}, {}, baseline)


def draw(design: Design, base_key: str, home: Path) -> Curve:
    """A trial that is not stopped.

    Without steps it is spared half of what its pause and its end take besides training, which are alike, and the
    scoring at the first step, which is a third of it all.
    """
    building_s: list[float] = []
    begun_s = time.process_time()

    def progress(stage: str, done: float, message: str) -> None:
        if stage == "build":
            building_s.append(time.process_time() - begun_s)

    outcome = evaluate(SPEC, Sources(), design, base_key, home, progress)
    climb_s = [*building_s[1:], time.process_time() - begun_s]
    stage_s = outcome.details["stage_s"]
    besides_s = climb_s[-1] - climb_s[0] - stage_s["fine_tune"]
    whole_s = climb_s[0] + stage_s["fine_tune"] + besides_s / 2 - stage_s["score"] / 3
    accuracy = [values["accuracy"] for values in (*outcome.rungs, outcome.values)]
    return Curve(outcome.values["macs"], accuracy, climb_s, whole_s)


@dataclass
class Replay:
    """A search by steps: what is known so far."""

    searched: Searched
    seconds: float = 0.0
    ends: list[Values] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        for curve in self.searched.uniform:
            self.climb(curve, None, is_own=False)

    @property
    def is_there(self) -> bool:
        return self.searched.volume(self.ends) >= self.searched.goal

    def climb(self, curve: Curve, rungs: RungsSpec | None, first: int = 0, *, is_own: bool = True) -> None:
        """Go through the steps from one of them, unless it is stopped; without `rungs` it is not."""
        before_s = curve.climb_s[first - 1] if first else 0.0
        points = {step: list(curve.at(step).values()) for step in range(len(FORETOLD.steps))}
        for step in range(first, len(FORETOLD.steps)):
            if rungs and why_stopped(curve.at(step), step, self.standing, rungs, OBJECTIVES):
                reached = {one: points[one] for one in range(step + 1)}
                self._end(Ended(reached, None, step, curve.climb_s[step] - before_s, is_own))
                return
        self.ends.append(curve.end)
        self._end(Ended(points, list(curve.end.values()), None, curve.climb_s[-1] - before_s, is_own))

    def _end(self, ended: Ended) -> None:
        self.seconds += ended.seconds
        self.ended.append(ended)

    @property
    def standing(self) -> Standing:
        return stand(self.ended, len(FORETOLD.steps))


def by_rule(searched: Searched, rungs: RungsSpec) -> float | None:
    """Seconds until the goal; None if the record ends before."""
    replay = Replay(searched)
    for curve in searched.found:
        replay.climb(curve, rungs)
        if replay.is_there:
            return replay.seconds
    return None


def by_best_first(searched: Searched) -> float | None:
    """Of those that wait behind the first step goes on who is foretold to add most; nobody is stopped there."""
    replay = Replay(searched)
    coming, waiting = list(searched.found), list[Curve]()
    while not replay.is_there:
        while coming and len(waiting) < WAITING:
            waiting.append(coming.pop(0))
            replay.seconds += waiting[-1].climb_s[0]
        gains = [promise(curve.at(0), 0, replay.standing, OBJECTIVES)[0] for curve in waiting]
        if not gains or (max(gains) <= 0 and not coming):
            return None
        if max(gains) <= 0:
            waiting.clear()
        else:
            replay.climb(waiting.pop(gains.index(max(gains))), FORETOLD, first=1)
    return replay.seconds


def by_oracle(searched: Searched, *, pays_first_step: bool) -> float | None:
    """Knows what each trial ends with, and evaluates in full what adds to the front as it is then."""
    replay = Replay(searched)
    for curve in searched.found:
        if searched.volume([*replay.ends, curve.end]) > searched.volume(replay.ends):
            replay.climb(curve, None)
        elif pays_first_step:
            replay.seconds += curve.climb_s[0]
        if replay.is_there:
            return replay.seconds
    return None


def by_foresight(searched: Searched) -> float | None:
    """Knows the front of the search without steps beforehand, and evaluates nothing else."""
    replay = Replay(searched)
    within = (searched.uniform + searched.found)[: len(searched.uniform) + searched.trials]
    for place in front_indices([curve.end for curve in within], OBJECTIVES):
        if place >= len(searched.uniform):
            replay.climb(within[place], None)
    return replay.seconds


RULES: dict[str, Callable[[Searched], float | None]] = {
    "ranked, the best third goes on": lambda searched: by_rule(searched, RANKED),
    "foretold to be worth its seconds": lambda searched: by_rule(searched, FORETOLD),
    f"the best of {WAITING} that wait": by_best_first,
    "knows who adds, behind the first step": lambda searched: by_oracle(searched, pays_first_step=True),
    "knows who adds": lambda searched: by_oracle(searched, pays_first_step=False),
    "knows the last front": by_foresight,
}


def main(arguments: Sequence[str]) -> None:
    if arguments:
        record([int(seed) for seed in arguments[1:]])
        return
    table = json.loads(TABLE.read_text())
    uniform = [Curve(**one) for one in table.pop("uniform")]
    found = {seed: [Curve(**one) for one in curves] for seed, curves in table.items()}
    told = {trials: replay_all(uniform, found, trials) for trials in BUDGETS}
    designs = {seed: len(curves) for seed, curves in found.items()}
    RESULTS.write_text(json.dumps({"designs": designs, "ratios": told}, indent=2) + "\n")


def replay_all(uniform: list[Curve], found: dict[str, list[Curve]], trials: int) -> dict[str, dict[str, float | None]]:
    """For each rule the share of the seconds, by search, of those that are recorded for long enough; shown too."""
    searches = {
        seed: Searched(uniform, curves, trials) for seed, curves in found.items() if len(curves) >= ENOUGH * trials
    }
    title = f"Evaluator seconds until the hypervolume of a search of {trials} trials without steps: share"
    shown, ratios = Table("rule", *searches, title=title), dict[str, dict[str, float | None]]()
    for name, rule in RULES.items():
        taken = {seed: rule(searched) for seed, searched in searches.items()}
        ratios[name] = {seed: one and round(one / searches[seed].whole_s, 2) for seed, one in taken.items()}
        shown.add_row(name, *("record ends" if ratio is None else f"{ratio:.2f}" for ratio in ratios[name].values()))
    Console().print(shown)
    return ratios


if __name__ == "__main__":
    main(sys.argv[1:])
