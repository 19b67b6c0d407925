"""Searches of one question beside each other: who is compared, what counts, and what people see of it."""

from __future__ import annotations

import html
import json
import re
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from service.comparisons.queries import Comparison, compare
from service.db import reading, transaction
from service.models import Search, Trial
from service.searches.queries import get_search
from service.states import Obtained
from service.variants import variants
from tests.service.builders import add_running_search, add_trial_rows, example_spec, run_trial, success

SAMPLERS = ("random", "tpe", "evolution", "nsga2")
TEXT = "{http://www.w3.org/2000/svg}text"


def spec_with(sampler: str, **changes: Any) -> dict[str, Any]:
    return example_spec(sampler={"name": sampler, "seed": 3}, limits=[], **changes)


def add_found(engine: Engine, search_id: str, values: list[tuple[float, float]], *, baseline: bool = False) -> None:
    """Trials that ended with these accuracies and latencies, and took a second each."""
    for trial, one in zip(add_trial_rows(engine, search_id, len(values), baseline=baseline), values, strict=True):
        run_trial(engine, trial.id, success(*one))
        with transaction(engine) as session:
            session.get_one(Trial, trial.id).evaluator_s = 1.0


def compared(engine: Engine, search_id: str) -> Comparison:
    with reading(engine) as session:
        return compare(session, get_search(session, search_id))


@pytest.fixture
def two(engine: Engine) -> tuple[str, str]:
    """Over a baseline of (0.5, 2 s) and (0.6, 3 s): one search finds half of what the other does, and takes longer."""
    ids = []
    for sampler, found in (("random", [(0.55, 2.5), (0.7, 3.0), (0.7, 2.0)]), ("tpe", [(0.7, 2.0), (0.8, 1.0)])):
        search_id = add_running_search(engine, spec_with(sampler, name=f"by {sampler}"))
        add_found(engine, search_id, [(0.5, 2.0), (0.6, 3.0)], baseline=True)
        add_found(engine, search_id, found)
        ids.append(search_id)
    return ids[0], ids[1]


def test_shares_are_against_one_point_after_as_many_trials(engine: Engine, two: tuple[str, str]):
    found = compared(engine, two[0])
    assert found.reference_point == pytest.approx({"accuracy": 0.5 - 0.01, "latency_s": 3.0 + 0.1})
    assert found.common_trials == 2
    better, worse = found.standings
    assert (better.search.id, worse.search.id) == (two[1], two[0])
    whole = (0.8 - 0.49) * (3.1 - 1.0)
    assert better.share == better.share_at_common == pytest.approx(1.0)
    assert worse.share == pytest.approx((0.7 - 0.49) * (3.1 - 2.0) / whole)
    after_two = ((0.7 - 0.49) * 0.1 + (0.55 - 0.49) * 0.5 + (0.5 - 0.49) * 0.5) / whole
    assert worse.share_at_common == pytest.approx(after_two)
    assert (better.on_joint_front, worse.on_joint_front) == (1, 0)
    assert (better.evaluator_s, worse.evaluator_s) == (4.0, 5.0)
    assert [step.trials for step in worse.curve] == [0, 1, 2, 3]
    assert [step.evaluator_s for step in worse.curve] == [2.0, 3.0, 4.0, 5.0]


def test_other_questions_are_not_compared(engine: Engine, two: tuple[str, str]):
    limited = spec_with("random") | {"limits": [{"metric": "size_bytes", "max": 400_000}]}
    others = [limited, spec_with("random", objectives=example_spec()["objectives"][:1])]
    for other in others:
        add_running_search(engine, other)
    alone = add_running_search(engine, spec_with("random", evaluation={"score_images": 100}))
    assert {one.search.id for one in compared(engine, two[0]).standings} == set(two)
    assert [one.search.id for one in compared(engine, alone).standings] == [alone]


def test_budget_name_and_cheap_steps_are_no_part_of_the_question(engine: Engine, two: tuple[str, str]):
    steps = {"steps": [{"score_images": 500}]}
    evaluation = {**example_spec()["evaluation"], "rungs": steps}
    third = add_running_search(engine, spec_with("evolution", name="x", budget={"trials": 7}, evaluation=evaluation))
    assert {one.search.id for one in compared(engine, two[0]).standings} == {*two, third}


def test_another_base_is_another_question(engine: Engine, two: tuple[str, str]):
    with transaction(engine) as session:
        session.get_one(Search, two[1]).base_key = "another"
    assert [one.search.id for one in compared(engine, two[0]).standings] == [two[0]]


def test_reused_trials_count_with_the_time_that_they_took(engine: Engine, two: tuple[str, str]):
    with transaction(engine) as session:
        rows = session.query(Trial).filter_by(search_id=two[0]).order_by(Trial.number).all()
        session.query(Trial).filter_by(search_id=two[1], number=2).one().evaluator_s = 30.0
        last = rows[-1]
        last.obtained, last.evaluator_s = Obtained.REUSED, 0.0
        last.origin = {"search": two[1], "trial": 2, "name": "by tpe"}
    (worse,) = [one for one in compared(engine, two[0]).standings if one.search.id == two[0]]
    assert worse.evaluator_s == 4.0 + 30.0


def test_what_a_search_began_with_is_told_and_no_trial_of_its_sampler(engine: Engine, two: tuple[str, str]):
    with transaction(engine) as session:
        session.query(Trial).filter_by(search_id=two[0], number=4).one().obtained = Obtained.INHERITED
    (worse,) = [one for one in compared(engine, two[0]).standings if one.search.id == two[0]]
    assert (worse.trials, worse.inherited) == (2, 1)
    assert worse.curve[0].share == pytest.approx(worse.share)  # the best came with it


def test_a_search_that_began_with_others_has_a_curve_of_its_own(
    client: httpx.Client, engine: Engine, two: tuple[str, str]
):
    third = add_running_search(engine, spec_with("tpe", name="begun with others"))
    add_found(engine, third, [(0.5, 2.0), (0.6, 3.0)], baseline=True)
    add_found(engine, third, [(0.7, 2.0), (0.8, 1.0)])
    assert "tpe, 2 searches" in texts_of(client, third)
    with transaction(engine) as session:
        session.query(Trial).filter_by(search_id=third, number=2).one().obtained = Obtained.INHERITED
    texts = texts_of(client, third)
    assert "tpe, not from scratch" in texts
    assert "2 searches" not in texts


def texts_of(client: httpx.Client, search_id: str, **query: str) -> str:
    """What is written in the picture."""
    answer = client.get(f"/searches/{search_id}/comparison.svg", params=query)
    assert answer.headers["content-type"].startswith("image/svg+xml")
    return " ".join(one.text or "" for one in ElementTree.fromstring(answer.text).iter(TEXT))


def test_searches_without_any_figure(engine: Engine):
    ids = {add_running_search(engine, spec_with(sampler)) for sampler in ("random", "tpe")}
    found = compared(engine, min(ids))
    assert {one.search.id for one in found.standings} == ids
    assert (found.common_trials, dict(found.reference_point)) == (0, {})
    assert all(not one.curve and one.share == 0 for one in found.standings)


def test_api_page_and_picture_tell_the_same(client: httpx.Client, engine: Engine, two: tuple[str, str]):
    told = client.get(f"/v1/searches/{two[0]}/comparison").json()
    assert [(one["sampler"], one["seed"], one["trials"]) for one in told["items"]] == [("tpe", 3, 2), ("random", 3, 3)]
    page = client.get(f"/searches/{two[0]}/comparison", headers={"Accept": "text/html"}).text
    table = page[page.index("<tbody>") :]
    assert table.index("by tpe") < table.index("by random")
    assert "at 2 trials" in page
    assert "100.0 %" in page
    for by, axis in (("trials", "trials behind the uniform baseline"), ("time", "seconds of evaluators")):
        texts = texts_of(client, two[0], by=by)
        assert all(told in texts for told in ("tpe", "random", axis))


def test_a_search_alone_says_how_to_add_others(client: httpx.Client, engine: Engine):
    alone = add_running_search(engine, spec_with("random"))
    page = client.get(f"/searches/{alone}/comparison", headers={"Accept": "text/html"}).text
    assert "No other search asks this yet" in page
    assert "comparison.svg" not in page
    assert client.get(f"/searches/{alone}/comparison.svg").status_code == 404


def test_the_form_has_the_same_question(client: httpx.Client, engine: Engine, two: tuple[str, str]):
    page = client.get("/searches/new", params={"like": two[0]}).text
    text = re.search(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)
    assert text is not None
    spec = yaml.safe_load(html.unescape(text[1]))
    assert spec["sampler"] == {"name": "random", "seed": 3}
    another = add_running_search(engine, spec | {"sampler": {"name": "evolution"}})
    assert {one.search.id for one in compared(engine, another).standings} == {*two, another}


def test_a_search_that_there_is_not(client: httpx.Client):
    nowhere = "/v1/searches/00000000-0000-4000-8000-000000000000/comparison"
    assert client.get(nowhere).status_code == 404


NAMES = st.lists(st.sampled_from(SAMPLERS), unique=True, max_size=4)


@given(NAMES, st.lists(st.integers(0, 9), unique=True, max_size=3), st.sampled_from(SAMPLERS))
def test_variants_differ_in_sampler_and_seed_alone(names: list[str], seeds: list[int], written: str):
    document = {"name": "x", "sampler": {"name": written, "seed": 5, "population": 8, "seed_uniform": False}}
    before = json.dumps(document)
    found = variants(document, names, seeds)
    assert json.dumps(document) == before
    assert [(one["sampler"]["name"], one["sampler"]["seed"]) for one in found] == [
        (name, seed) for name in names or [written] for seed in seeds or [5]
    ]
    for one in found:
        assert one["name"] == "x"
        assert one["sampler"]["seed_uniform"] is False
        assert ("population" in one["sampler"]) == (one["sampler"]["name"] == written)


@pytest.mark.parametrize("written", ["tpe", None, ["tpe"]])
def test_a_sampler_that_is_no_object_is_left_for_the_service_to_refuse(written: Any):
    document = {"name": "x", "sampler": written}
    assert variants(document, [], [0, 1]) == [document]
