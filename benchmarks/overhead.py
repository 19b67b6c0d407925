"""What a trial costs besides its evaluation: claim, plan, tell, commits and messages, at 100 and 5,000 finished trials.

Real worker processes on the embedded default (SQLite and folders) with an evaluator that does nothing. A cycle is the
time from the end of one trial to the end of the next; the sampler's own `ask`, timed beside it on the same history,
is taken off. Prints a table and writes benchmarks/results/overhead.json.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, func, insert, select

from search_spaces.check import Checked, check_spec
from search_spaces.parse import parse_spec
from service.config import get_settings
from service.db import make_engine, reading, transaction, upgrade
from service.devices.actions import announce, this_process
from service.known import known_for
from service.lifeline import die_with_parent
from service.models import Search, Trial, utc_now
from service.queue import QueueName, TaskName, get_celery, send
from service.searches.actions import create_search
from service.states import SearchState, TrialState
from workers.announce import local_capabilities
from workers.evaluator import JobName, serve, take_standard_streams
from workers.live_sampler import make_live_sampler, unheard_trials

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "examples" / "mobilenet_v1_fashion_mnist.yaml"
RESULTS = Path(__file__).parent / "results" / "overhead.json"
ESPALIER = str(Path(sys.executable).with_name("espalier"))
TOLD = (100, 5_000)
MEASURED, DISCARDED = 100, 10
LIMIT_S = 300.0
AS_EVALUATOR = "evaluator"


def main() -> None:
    load = round(os.getloadavg()[0], 1)  # of what else the machine does: it adds to every figure
    rows = [measure(told) for told in TOLD]
    protocol: dict[str, Any] = {"trials": MEASURED, "discarded": DISCARDED, "spec": SPEC.name, "cores": os.cpu_count()}
    protocol["load_before"] = load
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"protocol": protocol, "rows": rows}, indent=2) + "\n")
    show(rows)


def measure(told: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="espalier-overhead-") as folder:
        os.environ["ESPALIER_HOME"] = folder
        get_settings.cache_clear()
        get_celery.cache_clear()
        upgrade(get_settings().resolved_database_url)
        engine = make_engine(get_settings().resolved_database_url)
        search_id = add_search(engine, told)
        with running_workers():
            send(TaskName.PLAN, search_id, QueueName.CONTROL)
            await_finished(engine, search_id, told + DISCARDED + MEASURED)
        cycles_s, gaps_s = read_times(engine, search_id)
        ask_s = time_ask(engine, search_id)
        engine.dispose()
    return {
        "finished_trials": told,
        "cycle_ms": round(1000 * median(cycles_s), 2),
        "ask_ms": round(1000 * ask_s, 2),
        "overhead_ms": round(1000 * (median(cycles_s) - ask_s), 2),
        "overhead_p90_ms": round(1000 * (sorted(cycles_s)[int(0.9 * len(cycles_s))] - ask_s), 2),
        "end_to_next_start_ms": round(1000 * median(gaps_s), 2),
    }


def add_search(engine: Engine, told: int) -> str:
    """A search in the middle of its life, with `told` finished trials of made-up values."""
    document = yaml.safe_load(SPEC.read_text())
    document |= {"limits": [], "sampler": {"name": "random", "seed": 1}}
    document["evaluation"]["finalists"]["top"] = 0
    document["budget"] = {"trials": told + DISCARDED + MEASURED, "concurrency": 1}
    with transaction(engine) as session:
        for capabilities in local_capabilities():
            announce(session, capabilities, this_process())
        spec = parse_spec(document)
        checked = check_spec(spec, known_for(session, spec))
        search = create_search(session, checked, None, "0" * 64)
        session.flush()
        search.state, search.base_key, search.finished_count = SearchState.RUNNING, "0" * 64, told
        search.started_at = utc_now()
        session.execute(insert(Trial), [finished_trial(search.id, number, checked) for number in range(told)])
    return str(search.id)


def finished_trial(search_id: str, number: int, checked: Checked) -> dict[str, Any]:
    chance = random.Random(number)
    design = checked.space.design_at([chance.randrange(len(one.choices)) for one in checked.space.decisions])
    then = utc_now() - timedelta(hours=1)
    return {
        "search_id": search_id,
        "number": number,
        "state": str(TrialState.SUCCEEDED),
        "design": design.to_json(),
        "design_key": f"{number:064d}",
        "memo": {},
        "values": {"accuracy": chance.random(), "latency_s": 1e-4 * (1 + chance.random()), "size_bytes": 1e5},
        "details": {"stage_s": {"slice": 0.01, "reconstruct": 0.4, "measure": 0.6, "score": 0.3}},
        "finish_number": number + 1,
        "attempt": 1,
        "published_at": then,
        "started_at": then,
        "finished_at": then,
    }


@contextmanager
def running_workers() -> Iterator[None]:
    evaluator = f"{sys.executable} {Path(__file__).resolve()} {AS_EVALUATOR}"
    commands = [
        [ESPALIER, "worker", "--queues", "control", "--concurrency", "2"],
        [ESPALIER, "worker", "--queues", "trials", "--evaluator", evaluator],
    ]
    processes = [subprocess.Popen(command, cwd=ROOT) for command in commands]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def await_finished(engine: Engine, search_id: str, count: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    ended = select(func.count()).where(Trial.search_id == search_id, Trial.finish_number.is_not(None))
    while True:
        with reading(engine) as session:
            if (session.scalar(ended) or 0) >= count:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} trials did not end within {LIMIT_S} s")
        time.sleep(0.5)


def read_times(engine: Engine, search_id: str) -> tuple[list[float], list[float]]:
    """Seconds from each trial's end to the next one's end, and to its start."""
    latest = select(Trial.started_at, Trial.finished_at).where(Trial.search_id == search_id)
    with reading(engine) as session:
        rows = session.execute(latest.order_by(Trial.number.desc()).limit(MEASURED + 1)).all()[::-1]
    pairs = list(pairwise(rows))
    cycles = [(after.finished_at - before.finished_at).total_seconds() for before, after in pairs]
    gaps = [(after.started_at - before.finished_at).total_seconds() for before, after in pairs]
    return cycles, gaps


def time_ask(engine: Engine, search_id: str) -> float:
    """Median seconds of one `ask` on this history."""
    with reading(engine) as session:
        live = make_live_sampler(session, session.get_one(Search, search_id))
        told = unheard_trials(session, search_id, live).trials
    live.sampler.tell(told)
    times = []
    for number in range(len(told), len(told) + 20):
        began = time.perf_counter()
        live.sampler.ask(1, number, [])
        times.append(time.perf_counter() - began)
    return median(times)


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Around one evaluation, ms")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def evaluate_nothing(arguments: dict[str, Any], home: Path, progress: Any) -> dict[str, Any]:
    chance = random.Random(json.dumps(arguments["design"], sort_keys=True))
    values = {"accuracy": chance.random(), "latency_s": 1e-4 * (1 + chance.random())}
    return {"state": "succeeded", "values": values, "sources": {}, "reason": "", "details": {}}


if __name__ == "__main__":
    if sys.argv[1:] == [AS_EVALUATOR]:
        die_with_parent()
        serve(*take_standard_streams(), {JobName.EVALUATE: evaluate_nothing})
    else:
        main()
