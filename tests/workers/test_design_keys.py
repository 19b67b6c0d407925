"""Designs have one key exactly where they lead to one file: what the key leaves out is tried on real files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import combinations, product

import numpy as np
import pytest

from search_spaces.design import Design, Value
from search_spaces.design_keys import design_key
from search_spaces.spec import Calibration, Reconstruct
from tests.workers.on_digits import CALIBRATION_IMAGES, DigitsHome
from workers.base import Base, load_base
from workers.candidate import Quantising, build_candidate
from workers.importance.norms import norm_scores
from workers.onnx_writer import write_onnx
from workers.splits import normalise
from workers.transforms.reconstruct import Observed, observe

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = 48


@pytest.fixture(scope="module")
def base(digits_home: DigitsHome) -> Base:
    return load_base(digits_home.key, digits_home.folder)


@pytest.fixture(scope="module")
def observed(base: Base, digits_home: DigitsHome) -> Observed:
    images = digits_home.splits.calibrate.first(min(IMAGES, CALIBRATION_IMAGES)).images
    return observe(base.network, base.weights, normalise(images, base.network.input))


def file_of(base: Base, observed: Observed, design: Design, corrects_biases: bool) -> str:
    """Digest of the file that a design which names both methods leads to."""
    scores: np.ndarray = norm_scores(base.network, base.weights, {"l1": 1, "l2": 2}[str(design["importance/network"])])
    quantising = Quantising(Calibration(design["calibration/network"]), corrects_biases)
    candidate = build_candidate(base, design, observed, Reconstruct.LEAST_SQUARES, scores, quantising)
    return hashlib.sha256(write_onnx(candidate.network, candidate.weights, candidate.ranges)).hexdigest()


@pytest.mark.parametrize(
    ("values", "files"),
    [
        ({}, 1),
        ({"channels/block13.pointwise": 128}, 2),
        ({"precision/block2": "k4a32"}, 1),
        ({"precision/block2": "w2a32"}, 1),
        ({"precision/block2": "w4a32"}, 3),  # KL looks at activations, and the grid reaches the peak as by min_max
        ({"precision/block2": "w4a32", "channels/block13.pointwise": 128}, 6),
        ({"precision/block2": "w4a4"}, 4),  # in 8 bits the least squared error is often that of the extremes
    ],
)
@pytest.mark.parametrize("corrects_biases", [False, True])
def test_designs_have_one_key_where_they_lead_to_one_file(
    values: Mapping[str, Value], files: int, corrects_biases: bool, base: Base, observed: Observed
) -> None:
    made = [
        Design.of({**values, "importance/network": importance, "calibration/network": str(calibration)})
        for importance, calibration in product(["l1", "l2"], Calibration)
    ]
    told = [(design_key(base.network, design), file_of(base, observed, design, corrects_biases)) for design in made]
    assert len({key for key, _ in told}) == files
    for (one, first), (other, second) in combinations(told, 2):
        assert (one == other) == (first == second)
