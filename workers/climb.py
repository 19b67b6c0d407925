"""A trial's way through the steps of its evaluation: each but the last decides whether the next is worth its cost.

What costs nothing has been judged before. On the first file the device is asked, where its cost model has not answered:
what a network takes does not depend on how well it is trained, a limit that is missed ends the trial before any
training, and where latency or energy are objectives no step could rank a trial without them. A trial that was predicted
is measured only behind its full evaluation, and so never if it is stopped. Knows no database.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from search_spaces.design import Design
from search_spaces.objectives import Outcome, TrialState
from search_spaces.rungs import Standing, expect, objectives_of, why_stopped
from search_spaces.spec import StepSpec
from workers.attempt import Attempt
from workers.candidate import Candidate, timed
from workers.growing import Growing
from workers.hardware.base import Deployed
from workers.host_lock import training
from workers.progress import Progress
from workers.score import run_file, score_outputs
from workers.workbench import Workbench


def climb(bench: Workbench, design: Design, attempt: Attempt, standing: Standing | None, progress: Progress) -> Outcome:
    """Build, measure and score a design step by step.

    Args:
        standing: what other trials were worth at each step but the last; None for a trial that is not to be stopped.
    """
    growing = Growing(bench, design, attempt.details, progress)
    way = _Climb(bench, design, attempt, growing, progress)
    try:
        outcome = way.take_cheap_steps(standing) or way.take_full_step()
    except FloatingPointError as error:
        outcome = attempt.end(TrialState.FAILED, str(error))
    except Exception:  # another attempt would come to the same
        growing.forget()
        raise
    growing.forget()
    return outcome


@dataclass
class _Climb:
    """Where a trial is on its way: the file as it is now, and what it has put out for the images seen so far."""

    bench: Workbench
    design: Design
    attempt: Attempt
    growing: Growing
    progress: Progress
    deployed: Deployed | None = None
    outputs: list[np.ndarray] = field(default_factory=list)

    def take_cheap_steps(self, standing: Standing | None) -> Outcome | None:
        """Returns how the trial ends there; None if it goes on to the full evaluation."""
        for number, step in enumerate(self.bench.spec.evaluation.steps[:-1]):
            if outcome := self._take(step, is_full=False) or self._judge(number, step, standing):
                return outcome
        return None

    def take_full_step(self) -> Outcome:
        attempt = self.attempt
        if outcome := self._take(self.bench.spec.evaluation.steps[-1], is_full=True):
            return outcome
        if attempt.is_predicted and attempt.deserves_measuring():
            self.progress("measure", 0.0, "measuring, since it may be on the front")
            assert self.deployed is not None, "it has been scored"
            attempt.measure(self.bench, self.design, self.deployed)
        return attempt.missed() or attempt.end(TrialState.SUCCEEDED)

    def _take(self, step: StepSpec, *, is_full: bool) -> Outcome | None:
        """Bring the candidate to a step and score it there; returns how the trial ends if it misses a limit."""
        self.progress("build", 0.0, "building the candidate")
        if self.deployed is None and self._trains(step, is_full=is_full) and self.attempt.may_miss_on_device:
            untrained = step.model_copy(update={"finetune_epochs": 0.0})
            if outcome := self._deploy(*self.growing.bring_to(untrained, is_full=False), is_full=False):
                return outcome
        candidate, model = self.growing.bring_to(step, is_full=is_full)
        is_new = self.deployed is None or model is not self.deployed.model
        if is_new and (outcome := self._deploy(candidate, model, is_full=is_full)):
            return outcome
        self.progress("score", 0.0, "scoring")
        self._score(model, step)
        return self.attempt.missed(is_final=is_full)

    def _trains(self, step: StepSpec, *, is_full: bool) -> bool:
        return step.finetune_epochs > 0 or (is_full and self.bench.spec.evaluation.quantisation_aware.epochs > 0)

    def _deploy(self, candidate: Candidate, model: bytes, *, is_full: bool) -> Outcome | None:
        """Find out what a new file takes, as far as an older one has not told."""
        attempt, before = self.attempt, self.deployed
        split = self.bench.splits.score.first(self.bench.spec.evaluation.most_score_images)
        self.deployed = attempt.count(self.bench, self.design, candidate.network, model, split)
        self.outputs = []
        if outcome := attempt.missed(is_final=is_full):
            return outcome
        if attempt.is_predicted or (before is not None and not self._moves_other_bits(before, self.deployed)):
            return None
        self.progress("measure", 0.0, "measuring")
        attempt.measure(self.bench, self.design, self.deployed)
        return attempt.missed(is_final=is_full)

    def _moves_other_bits(self, before: Deployed, now: Deployed) -> bool:
        """Whether a model of hardware may tell something else; what executes a file does not code its maps."""
        device = self.bench.device
        return device is not None and device.capabilities().simulated and before.coded_bits != now.coded_bits

    def _score(self, model: bytes, step: StepSpec) -> None:
        """Run the file on the images of the step that it has not seen yet."""
        bench, details = self.bench, self.attempt.details
        split = bench.splits.score.first(step.score_images)
        seen = sum(map(len, self.outputs))
        with training(), timed(details["stage_s"], "score"):
            if seen < len(split):
                rest = split.after(seen)
                self.outputs.append(run_file(model, rest, bench.base.network.input, bench.threads))
            self.attempt.values |= score_outputs(bench.scores, np.concatenate(self.outputs), split.labels)
        details["images"] = {"split": split.name, "count": len(split), "digest": split.digest}

    def _judge(self, number: int, step: StepSpec, standing: Standing | None) -> Outcome | None:
        """Note what the trial is worth at a step, counted from 0, and stop it there if that promises too little."""
        attempt, evaluation = self.attempt, self.bench.spec.evaluation
        values = objectives_of(attempt.values, self.bench.spec.objectives)
        attempt.note_rung(step, values or {})
        if values is None or standing is None or evaluation.rungs is None:
            return None
        objectives = self.bench.spec.objectives
        reason = why_stopped(values, number, standing, evaluation.rungs, objectives)
        if reason is None:
            return None
        return replace(
            attempt.end(TrialState.STOPPED, reason), expected=expect(values, standing.pairs[number], objectives)
        )
