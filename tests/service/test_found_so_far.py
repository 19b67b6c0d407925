"""How a search stands is the same whether its trials are read at once or as they finish, and told at once."""

from time import perf_counter

import numpy as np
import pytest
from sqlalchemy import Engine, insert

from search_spaces import pareto
from search_spaces.spec import SearchSpec
from service.db import open_session, reading, transaction
from service.models import Trial, utc_now
from service.searches.queries import get_search
from service.trials.found_so_far import found_so_far
from service.trials.fronts import find_front
from tests.service.builders import add_running_search


def add_rows(engine: Engine, search_id: str, values: list[dict[str, float]], first: int) -> None:
    rows = [
        {
            "search_id": search_id,
            "number": number,
            "finish_number": number + 1,
            "state": "succeeded" if number % 7 else "infeasible",
            "baseline": number < 5,
            "design": {},
            "design_key": f"{number:064x}",
            "values": one,
            "reason": "",
            "attempt": 1,
            "created_at": utc_now(),
        }
        for number, one in enumerate(values, first)
    ]
    with transaction(engine) as session:
        session.execute(insert(Trial), rows)


def some_values(count: int, seed: int) -> list[dict[str, float]]:
    generator = np.random.default_rng(seed)
    drawn = [{"accuracy": float(a), "latency_s": float(b)} for a, b in generator.random((count, 2))]
    drawn[count // 2].pop("latency_s")  # one of them has not all objectives
    return drawn


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_all_trials_together_come_to(engine: Engine, seed: int) -> None:
    search_id, everything = add_running_search(engine), []
    for batch in range(6):
        values = some_values(20, 100 * seed + batch)
        add_rows(engine, search_id, values, first=len(everything))
        everything += values
        judged = [(n, one) for n, one in enumerate(everything) if n % 7 and len(one) == 2]
        with reading(engine) as session:
            search = get_search(session, search_id)
            objectives = SearchSpec.model_validate(search.spec).objectives
            found = found_so_far(session, search)
        front = pareto.front_indices([one for _, one in judged], objectives)
        assert [one.number for one in found.front] == [judged[index][0] for index in front]
        uniform = [(n, one) for n, one in judged if n < 5]
        front = pareto.front_indices([one for _, one in uniform], objectives)
        assert [one.number for one in found.baseline] == [uniform[index][0] for index in front]
        expected = pareto.reference_point([one for _, one in judged], objectives)
        assert found.reference_point(objectives) == pytest.approx(expected)
        with transaction(engine) as session:  # which keeps nothing, and reads all
            assert found_so_far(session, get_search(session, search_id)) == found


def test_what_is_rolled_back_is_not_kept(engine: Engine) -> None:
    search_id = add_running_search(engine)
    add_rows(engine, search_id, some_values(10, 0), first=0)
    with reading(engine) as session:
        before = found_so_far(session, get_search(session, search_id))
    row = {"search_id": search_id, "number": 99, "finish_number": 99, "state": "succeeded", "design": {}}
    row |= {"values": {"accuracy": 2.0, "latency_s": 0.0}, "design_key": "f" * 64, "created_at": utc_now()}
    with open_session(engine) as session:  # closed without a commit
        session.execute(insert(Trial), [row])
        assert found_so_far(session, get_search(session, search_id)).front[0].number == 99
    with reading(engine) as session:
        assert found_so_far(session, get_search(session, search_id)) == before


def test_a_front_of_fifty_thousand_trials_takes_milliseconds_once_it_was_read(engine: Engine) -> None:
    search_id = add_running_search(engine)
    for first in range(0, 50_000, 5_000):
        add_rows(engine, search_id, some_values(5_000, first), first)
    seconds = []
    for _ in range(5):
        start = perf_counter()
        with reading(engine) as session:
            assert find_front(session, get_search(session, search_id)).members
        seconds.append(perf_counter() - start)
    assert min(seconds[1:]) < 0.05
