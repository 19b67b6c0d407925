"""What a sampler costs: restoring it from history, and one ask and one tell, at 100, 1,000 and 5,000 told trials.

Prints a table and writes benchmarks/results/samplers.json. Times are medians in milliseconds on one thread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from search_spaces.samplers import ToldTrial, make_sampler
from search_spaces.spec import SamplerName
from search_spaces.testing import contract_spec, play, pruning_problem

RESULTS = Path(__file__).parent / "results" / "samplers.json"
DECISIONS, CHOICES = 30, 8
TOLD = (100, 1_000, 5_000)
ASKS = 9
APART = (SamplerName.DDPG,)
"""Have a benchmark of their own: telling an agent thousands of trials takes an hour, which its snapshots save."""


def main() -> None:
    problem = pruning_problem([CHOICES] * DECISIONS)
    random = make_sampler(contract_spec(seed=1, name=SamplerName.RANDOM), problem.space)
    history = play(random, problem, max(TOLD) + ASKS)
    rows = [measure(name, history, told) for name in SamplerName if name not in APART for told in TOLD]
    RESULTS.parent.mkdir(exist_ok=True)
    protocol = {"decisions": DECISIONS, "choices": CHOICES, "asks": ASKS, "optuna": version("optuna")}
    RESULTS.write_text(json.dumps({"protocol": protocol, "rows": rows}, indent=2) + "\n")
    show(rows)


def measure(name: SamplerName, history: list[ToldTrial], told: int) -> dict[str, Any]:
    """Restore from `told` trials, then alternate asking for one and telling one."""
    space = pruning_problem([CHOICES] * DECISIONS).space
    sampler = make_sampler(contract_spec(trials=100_000, name=name), space)
    restore_ms = milliseconds(lambda: sampler.tell(history[:told]))
    asks, tells = [], []
    for trial in history[told : told + ASKS]:
        asks.append(milliseconds(partial(sampler.ask, 1, trial.number, [])))
        tells.append(milliseconds(partial(sampler.tell, [trial])))
    return {
        "sampler": str(name),
        "told": told,
        "restore_ms": round(restore_ms, 2),
        "ask_ms": round(median(asks), 3),
        "ask_max_ms": round(max(asks), 3),
        "tell_ms": round(median(tells), 3),
    }


def milliseconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return 1000 * (perf_counter() - start)


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"Samplers, {DECISIONS} decisions of {CHOICES} choices, ms")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "sampler" else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
