"""What several chapters do to a base: bring it to few bits, after training or through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from benchmarks.report.cells import Scale
from benchmarks.report.experiment import DATASET, Subject
from benchmarks.report.material import THREADS, Bench, accuracy
from search_spaces.network import Network
from search_spaces.precision import parse_precision
from search_spaces.spec import Calibration, Estimator
from workers.base import Base
from workers.bias_correction import correct_biases
from workers.calibrate import calibrate
from workers.fold import fold_batch_norms
from workers.progress import ignore_progress
from workers.quantisation_aware.training import train_quantised
from workers.recipe import fine_tuning
from workers.splits import normalise
from workers.weight_grids import quantise_weights

CALIBRATION_IMAGES = 500
SCORED = "confirm"
FIRST_AND_LAST = "w8a8"


def in_bits(network: Network, precision: str) -> Network:
    """All layers in a precision but the first and the last: these keep eight bits; of codebooks they are floats."""
    layers = network.compute_nodes()
    ends = {layers[0].name, layers[-1].name}
    outer = "fp32" if parse_precision(precision).activation_bits == 32 else FIRST_AND_LAST
    told = {layer.name: parse_precision(outer if layer.name in ends else precision) for layer in layers}
    return network.with_nodes({layer.name: replace(layer, precision=told[layer.name]) for layer in layers})


def calibration_images(bench: Bench, network: Network) -> np.ndarray:
    return normalise(bench.splits(DATASET).calibrate.first(CALIBRATION_IMAGES).images, network.input)


def after_training(
    bench: Bench, base: Base, precision: str, calibration: Calibration, *, corrected: bool = False
) -> float:
    """Accuracy of a base that is brought to a precision as it is."""
    folded, weights = fold_batch_norms(in_bits(base.network, precision), base.weights)
    images = calibration_images(bench, folded)
    ranges = calibrate(folded, weights, images, calibration, THREADS)
    rounded = quantise_weights(folded, weights, calibration)
    if corrected:
        rounded = correct_biases(folded, weights, rounded, images, THREADS)
    return accuracy(folded, rounded, getattr(bench.splits(DATASET), SCORED), ranges)


def through_training(
    bench: Bench,
    base: Base,
    subject: Subject,
    scale: Scale,
    seed: int,
    precision: str,
    estimator: Estimator,
    epochs: float,
) -> float:
    """Accuracy of a base that is trained on in a precision, quantisation-aware."""
    folded, weights = fold_batch_norms(in_bits(base.network, precision), base.weights)
    ranges = calibrate(folded, weights, calibration_images(bench, folded), Calibration.MIN_MAX, THREADS)
    recipe = fine_tuning(subject.recipe(scale, seed), epochs * scale.epochs, 1e-3)
    splits = bench.splits(DATASET)
    trained: tuple[Mapping[str, np.ndarray], Mapping[str, tuple[float, float]]] = train_quantised(
        folded, weights, ranges, splits.train, recipe, estimator, ignore_progress, lambda: None
    )
    return accuracy(folded, trained[0], getattr(splits, SCORED), trained[1])


def of_floats(bench: Bench, base: Base) -> float:
    return accuracy(*fold_batch_norms(base.network, base.weights), getattr(bench.splits(DATASET), SCORED))
