"""A design's candidate, brought on from step to step of its evaluation. No work is done twice.

A step that trains no further has the file of the step before; one that does goes on where training had paused. Training
through the rounding belongs to the full evaluation alone. Knows no limits, no ranks and no scores.
"""

from __future__ import annotations

from search_spaces.design import Design, Kind
from search_spaces.methods import method_of
from search_spaces.network import Network
from search_spaces.spec import StepSpec
from workers.appraise import Details, train_through_rounding, write_checked
from workers.candidate import Candidate, begin_candidate, finish_candidate, timed
from workers.host_lock import TrainingTurn, training
from workers.progress import Progress
from workers.tune import Tuning
from workers.weights import Weights
from workers.workbench import Workbench


class Growing:
    """One candidate in the making; its evidence goes into `details`, see `workers.appraise`."""

    def __init__(self, bench: Workbench, design: Design, details: Details, progress: Progress) -> None:
        self._bench, self._design, self._details, self._progress = bench, design, details, progress
        self._begun: tuple[Network, Weights] | None = None
        self._tuning: Tuning | None = None
        self._epochs = 0.0
        self._finished: Candidate | None = None
        self._written: tuple[Candidate, bytes] | None = None

    def bring_to(self, step: StepSpec, *, is_full: bool) -> tuple[Candidate, bytes]:
        """The candidate as a step wants it, and its file: those of the step before where nothing is to be done.

        Raises:
            DesignError: the design does not fit the network.
            PrecisionMismatch: the runtime would not execute the declared precisions.
            TrainingDivergedError: fine-tuning diverged.
        """
        with training() as turn:
            if self._finished is None or step.finetune_epochs > self._epochs:
                self._finished, self._epochs = self._finish(step, turn), step.finetune_epochs
            candidate = self._finished
            if is_full:
                candidate = train_through_rounding(
                    self._bench, self._design, candidate, turn, self._progress, is_finalist=False
                )
            if self._written is None or self._written[0] is not candidate:
                self._written = candidate, write_checked(candidate, self._details)
            return self._written

    def forget(self) -> None:
        """Remove what a training has left to go on from: nobody will."""
        if self._tuning is not None:
            self._tuning.forget()

    def _finish(self, step: StepSpec, turn: TrainingTurn) -> Candidate:
        stage_s = self._details["stage_s"]
        applied, weights = self._begin(turn)
        if step.finetune_epochs > 0:
            with timed(stage_s, "fine_tune"):
                weights = self._tune(applied, weights, step, turn)
        quantising = self._bench.quantising_of(self._design)
        return finish_candidate(applied, weights, self._bench.observed, quantising, stage_s, self._bench.threads)

    def _begin(self, turn: TrainingTurn) -> tuple[Network, Weights]:
        if self._begun is None:
            bench = self._bench
            importance = method_of(self._design, Kind.IMPORTANCE, bench.spec)
            scores = bench.atom_scores(importance, turn.yield_)
            method, stage_s = bench.spec.evaluation.reconstruct, self._details["stage_s"]
            self._begun = begin_candidate(bench.base, self._design, bench.observed, method, scores, stage_s)
        return self._begun

    def _tune(self, applied: Network, weights: Weights, step: StepSpec, turn: TrainingTurn) -> Weights:
        if self._tuning is None:
            evaluation = self._bench.spec.evaluation
            epochs, learning_rate = evaluation.finetune_epochs, evaluation.learning_rate
            self._tuning = Tuning(self._bench, applied, weights, epochs, learning_rate)
        return self._tuning.train(self._progress, turn, step.finetune_epochs)
