"""Optuna as somebody would use it who has no Espalier: a study, its samplers as they come, and suggested decisions.

The baseline is enqueued. Under a limit a suggestion is repaired as ours are, and the repaired design is told in its
place: enqueued and asked for again, so that its sampler learns what was evaluated. Neither sampler keeps track of what
it has suggested: a design that comes again is an evaluation again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import optuna
from optuna.study import StudyDirection

from benchmarks.searching.problem import Searched
from search_spaces.design import Kind
from search_spaces.foreseen import ForeseenLimits
from search_spaces.projection import Projection
from search_spaces.quality import main_score, quality
from search_spaces.sensitivity import Sensitivity
from search_spaces.space import Indices

ALONE: Mapping[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "optuna tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "optuna nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
}


class OptunaAlone:
    """One study on one problem."""

    def __init__(self, problem: Searched, sampler: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._problem = problem
        directions = [StudyDirection[one.direction.name] for one in problem.spec.objectives]
        self._study = optuna.create_study(directions=directions, sampler=ALONE[sampler](seed))
        self._decided = [number for number, one in enumerate(problem.space.decisions) if len(one.choices) > 1]
        levels = [len(decision.choices) for decision in problem.space.decisions]
        self._projection = Projection(levels, ForeseenLimits(problem.space, problem.spec))
        self._sensitivity = Sensitivity(problem.space.decisions)
        self._score = main_score(problem.spec)

    def search(self, evaluations: int) -> list[Indices]:
        """The baseline, and then so many designs, which are returned."""
        for row in self._problem.baseline_indices():
            self._evaluate_again(row)
        return [self._evaluate() for _ in range(evaluations)]

    def _evaluate(self) -> Indices:
        trial = self._study.ask()
        suggested = self._suggest(trial)
        repaired = self._projection(suggested, self._sensitivity.losses())
        if repaired is None or repaired == suggested:
            self._tell(trial, suggested)
            return suggested
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._evaluate_again(repaired)
        return repaired

    def _evaluate_again(self, row: Indices) -> None:
        self._study.enqueue_trial(self._named(row))
        trial = self._study.ask()
        self._tell(trial, self._suggest(trial))

    def _suggest(self, trial: optuna.Trial) -> Indices:
        """Channels are ordered: the number of the choice. Precisions are names."""
        indices = [0] * len(self._problem.space.decisions)
        for number in self._decided:
            one = self._problem.space.decisions[number]
            if one.kind is Kind.CHANNELS:
                indices[number] = trial.suggest_int(one.name, 0, len(one.choices) - 1)
            else:
                indices[number] = one.choices.index(trial.suggest_categorical(one.name, one.choices))
        return tuple(indices)

    def _named(self, row: Indices) -> dict[str, int | str]:
        """A design in the words of `_suggest`."""
        decisions = [(self._problem.space.decisions[number], row[number]) for number in self._decided]
        return {one.name: i if one.kind is Kind.CHANNELS else one.choices[i] for one, i in decisions}

    def _tell(self, trial: optuna.Trial, row: Indices) -> None:
        values = self._problem.values_of(row)
        found = quality(values, self._score)
        if found is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        self._sensitivity.add(row, found)
        self._study.tell(trial, [values[objective.metric] for objective in self._problem.spec.objectives])
