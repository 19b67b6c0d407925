"""What is known of data sets without loading them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from search_spaces.datasets import DATASETS, Task, dataset_from_json, dataset_to_json

OWN = replace(
    DATASETS["cifar10"],
    name="mine",
    classes=2,
    images=100,
    test_images=0,
    class_names=("cat", "dog"),
    digest="ab" * 32,
    held_out={"calibrate": 10, "score": 20, "confirm": 21},
    is_resized=True,
)


@pytest.mark.parametrize("info", [*DATASETS.values(), OWN, replace(OWN, classes=0, task=Task.REGRESSION)])
def test_it_survives_json(info):
    assert dataset_from_json(json.loads(json.dumps(dataset_to_json(info)))) == info


def test_split_sizes_follow_from_the_images_or_are_told():
    assert DATASETS["fashion_mnist"].split_size("score") == 3000
    assert OWN.split_size("score") == 20


def test_colours_that_are_shown_in_grey_have_statistics_too():
    assert OWN.statistics(3) == (OWN.mean, OWN.std)
    mean, std = OWN.statistics(1)
    assert mean == (pytest.approx(sum(OWN.mean) / 3),)
    assert std == (pytest.approx(sum(OWN.std) / 3),)
