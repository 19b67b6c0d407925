import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.datasets import DATASETS
from search_spaces.spec import Family, Optimizer, RegulariserName, Schedule
from workers.recipe import Distillation, Recipe, Regulariser, count_steps, learning_rate_at, recipe_for


@given(st.floats(0.001, 100), st.integers(1, 5000), st.integers(1, 512))
def test_there_is_always_a_step_and_epochs_may_be_parts(epochs, images, batch_size):
    steps = count_steps(images, Recipe(epochs=epochs, batch_size=batch_size))
    assert steps >= 1
    assert abs(steps - epochs * (images // min(images, batch_size))) <= max(0.5, 1 - epochs)


@given(st.integers(1, 1000), st.sampled_from([Schedule.ONE_CYCLE, Schedule.COSINE]))
def test_the_learning_rate_stays_below_its_peak_and_ends_near_zero(steps, schedule):
    recipe = Recipe(epochs=1, learning_rate=0.3, schedule=schedule)
    rates = [learning_rate_at(recipe, step, steps) for step in range(steps)]
    assert all(0 < rate <= 0.3 + 1e-9 for rate in rates)
    if steps > 100:
        assert max(rates) > 0.29
        assert rates[-1] < 0.001
        assert rates[0] == pytest.approx(0.03 if schedule is Schedule.ONE_CYCLE else 0.3)


def test_a_schedule_may_be_constant_or_go_down_in_steps():
    rates = {
        schedule: [
            learning_rate_at(Recipe(epochs=1, learning_rate=1.0, schedule=schedule), step, 8) for step in range(8)
        ]
        for schedule in (Schedule.CONSTANT, Schedule.STEP)
    }
    assert rates[Schedule.CONSTANT] == [1.0] * 8
    assert rates[Schedule.STEP] == pytest.approx([1.0] * 4 + [0.1] * 2 + [0.01] * 2)


def test_every_family_has_a_recipe_for_every_data_set():
    for family in Family:
        for dataset in DATASETS:
            assert recipe_for(DATASETS[dataset], family).epochs > 0


def digest_of(recipe: Recipe) -> str:
    return hashlib.sha256(json.dumps(recipe.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def test_keys_of_recipes_are_what_they_were_before_there_was_more_to_choose():
    assert digest_of(recipe_for(DATASETS["fashion_mnist"], Family.MOBILENET_V1)) == "756767f4feadb524"
    assert digest_of(recipe_for(DATASETS["cifar10"], Family.VGG_13)) == "8e362e561921b69a"


def test_all_that_a_recipe_says_is_part_of_its_key():
    usual = Recipe(epochs=1)
    others = [
        replace(usual, optimizer=Optimizer.ADAMW),
        replace(usual, schedule=Schedule.STEP),
        replace(usual, regulariser=Regulariser(RegulariserName.MARGIN)),
        replace(usual, regulariser=Regulariser(RegulariserName.KURE)),
        replace(usual, regulariser=Regulariser(RegulariserName.KURE, 0.1)),
        replace(usual, distillation=Distillation()),
        replace(usual, distillation=Distillation(weight=0.1)),
        replace(usual, activation_l1=1e-6),
        replace(usual, activation_l1={"relu": 1e-6}),
    ]
    digests = {digest_of(recipe) for recipe in [usual, *others]}
    assert len(digests) == len(others) + 1
    assert json.loads(json.dumps(others[4].to_json()))["regulariser"] == {"name": "kure", "weight": 0.1}
