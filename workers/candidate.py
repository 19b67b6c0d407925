"""A candidate: a base's weights brought to a design, through the transforms in their one order.

rank on raw weights -> slice -> regroup -> reconstruct -> (fine-tune) -> fold -> calibrate -> quantise. The order
decides accuracy, so it is written down here and nowhere else. Knows nothing of searches, limits or files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from search_spaces.apply import apply
from search_spaces.design import Design
from search_spaces.network import Network
from search_spaces.spec import Calibration, Reconstruct
from workers.base import Base
from workers.bias_correction import correct_biases
from workers.calibrate import calibrate
from workers.fold import fold_batch_norms
from workers.onnx_quantize import TensorRange
from workers.transforms.prune import choose_channels, slice_weights
from workers.transforms.reconstruct import Observed, reconstruct
from workers.transforms.regroup import regroup
from workers.weight_grids import quantise_weights
from workers.weights import Weights

FineTune = Callable[[Network, Weights], Weights]
"""Trains the weights of an applied network further, in whatever way and for however long the caller wants."""


@dataclass(frozen=True)
class Candidate:
    """A network and weights that are ready to be written to a file.

    Attributes:
        network, weights: with batch norms folded, and weights in few bits on the grids of their precisions.
        ranges: of the tensors that are quantised; empty when none is.
        raw_weights: of the applied network, before folding: what a candidate is rebuilt from.
        stage_s: seconds that each stage took.
        is_rounded: whether weights and ranges were trained through their rounding, and so are no function of the raw
            weights.
    """

    network: Network
    weights: Weights
    ranges: dict[str, TensorRange]
    raw_weights: Weights
    stage_s: dict[str, float]
    is_rounded: bool = False


@dataclass(frozen=True, slots=True)
class Quantising:
    """How a candidate is brought to its precisions.

    Attributes:
        calibration: how ranges are told.
        corrects_biases: whether biases make up for the rounded weights.
    """

    calibration: Calibration = Calibration.MIN_MAX
    corrects_biases: bool = False


USUALLY = Quantising()


def build_candidate(
    base: Base,
    design: Design,
    observed: Observed,
    method: Reconstruct,
    scores: np.ndarray,
    quantising: Quantising = USUALLY,
    fine_tune: FineTune | None = None,
    threads: int = 1,
) -> Candidate:
    """Bring the base's weights to a design.

    Args:
        base: the trained network.
        design: what is made of it.
        observed: the base on the calibration images; the candidate is calibrated on the same images.
        method: how the candidate is reconstructed.
        scores: how much each atom of the base matters, (atoms,).
        quantising: how it is brought to its precisions.
        fine_tune: what to train after reconstruction.
        threads: for ONNX Runtime; torch has its own setting.

    Raises:
        DesignError: the design does not fit the base's network.
    """
    stage_s: dict[str, float] = {}
    applied, weights = begin_candidate(base, design, observed, method, scores, stage_s)
    if fine_tune is not None:
        with timed(stage_s, "fine_tune"):
            weights = fine_tune(applied, weights)
    return finish_candidate(applied, weights, observed, quantising, stage_s, threads)


def begin_candidate(
    base: Base,
    design: Design,
    observed: Observed,
    method: Reconstruct,
    scores: np.ndarray,
    stage_s: dict[str, float],
) -> tuple[Network, Weights]:
    """The transforms before any training: the applied network and its weights. See `build_candidate`."""
    with timed(stage_s, "slice"):
        applied = apply(base.network, design)
        kept = choose_channels(base.network, design, scores)
        weights = regroup(applied, slice_weights(base.network, base.weights, kept))
    with timed(stage_s, "reconstruct"):
        weights = reconstruct(base.network, applied, weights, kept, observed, method)
    return applied, weights


def finish_candidate(
    applied: Network,
    weights: Weights,
    observed: Observed,
    quantising: Quantising,
    stage_s: dict[str, float],
    threads: int = 1,
) -> Candidate:
    """The last transforms, for weights that have been through the others: fold, calibrate, quantise."""
    with timed(stage_s, "fold"):
        folded, folded_weights = fold_batch_norms(applied, weights)
    with timed(stage_s, "calibrate"):
        ranges = calibrate(folded, folded_weights, observed.images, quantising.calibration, threads)
    with timed(stage_s, "quantise"):
        rounded = quantise_weights(folded, folded_weights, quantising.calibration)
        if quantising.corrects_biases:
            rounded = correct_biases(folded, folded_weights, rounded, observed.images, threads)
    return Candidate(folded, rounded, ranges, weights, stage_s)


@contextmanager
def timed(stage_s: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds that the block takes to `stage_s`."""
    begun_s = time.perf_counter()
    yield
    stage_s[stage] = stage_s.get(stage, 0.0) + time.perf_counter() - begun_s
