"""What the agent of `ddpg` costs on a MobileNet-V1: a suggestion, an update, a trial told, a history told again.

And restoring what it had learned of that history from a state instead.
28 layers, each with channels or with bits of weights and of activations, on one thread. Prints a table and writes
benchmarks/results/ddpg.json. Times are medians in milliseconds, of the processor: other work on the machine counts for
little.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from search_spaces.accelerators.models import MODELS
from search_spaces.build_space import build_space
from search_spaces.catalog import build_for
from search_spaces.datasets import DATASETS
from search_spaces.objectives import TrialState
from search_spaces.samplers import ToldTrial, make_sampler
from search_spaces.samplers.actor_critic import ActorCritic, Batch
from search_spaces.spec import DdpgSpec, SearchSpec

RESULTS = Path(__file__).parent / "results" / "ddpg.json"
DEVICE = "bit-fusion-edge"
BITS = {"choices": [2, 3, 4, 5, 6, 7, 8]}
SPACES: dict[str, dict[str, Any]] = {
    "channels": {"prune_ratio": {"high": 0.8}},
    "bits": {"weight_bits": BITS, "activation_bits": BITS},
    "channels and bits": {"prune_ratio": {"high": 0.8}, "weight_bits": BITS, "activation_bits": BITS},
}
WARM_UP, REPLAYED = 20, 40


def main() -> None:
    rows = [measure(name, parts) for name, parts in SPACES.items()]
    RESULTS.parent.mkdir(exist_ok=True)
    protocol = {"network": "mobilenet_v1", "device": DEVICE, "trials": REPLAYED, "warm_up_trials": WARM_UP}
    RESULTS.write_text(json.dumps({"protocol": protocol, "rows": rows}, indent=2) + "\n")
    table = Table(title="The agent, on a MobileNet-V1, ms")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "space" else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


def measure(name: str, parts: dict[str, Any]) -> dict[str, Any]:
    spec = spec_of(parts)
    network = build_for(spec.network, DATASETS["fashion_mnist"])  # type: ignore[arg-type]
    space, _ = build_space(network, spec.space, MODELS[DEVICE].capabilities)
    made = make_sampler(spec, space)
    asks, tells, history = [], [], []
    for number in range(REPLAYED):
        start = process_time()
        (proposal,) = made.ask(1, number, [])
        asks.append(1000 * (process_time() - start))
        history.append(told(number, proposal.design, proposal.memo))
        tells.append(milliseconds(lambda: made.tell(history[-1:])))
    replay_ms, state = milliseconds(lambda: make_sampler(spec, space).tell(history)), made.state() or {}
    fresh, buffer = make_sampler(spec, space), io.BytesIO()
    arrays = {key: part for key, part in state.items() if isinstance(part, np.ndarray)}
    steps = len([decision for decision in space.decisions if len(decision.choices) > 1])
    return {
        "space": name,
        "steps": steps,
        "ask": round(median(asks[WARM_UP:]), 2),
        "most for an ask": round(max(asks[WARM_UP:]), 2),
        "update": round(update_ms(arrays["replay.states"].shape[2]), 2),
        "tell": round(median(tells[WARM_UP:]), 1),
        "told again": round(replay_ms, 0),
        "state": round(milliseconds(lambda: np.savez(buffer, allow_pickle=False, **arrays)), 1),
        "restore": round(milliseconds(lambda: fresh.restore(state)), 1),
        "state MB": round(len(buffer.getvalue()) / 1e6, 1),
    }


def spec_of(parts: dict[str, Any]) -> SearchSpec:
    return SearchSpec.model_validate(
        {
            "name": "agent",
            "network": {"family": "mobilenet_v1", "input": [1, 28, 28], "stem_stride": 1},
            "dataset": {"name": "fashion_mnist"},
            "space": parts,
            "objectives": [
                {"metric": "accuracy", "direction": "maximize"},
                {"metric": "latency_s", "direction": "minimize", "device": DEVICE},
            ],
            "sampler": {"name": "ddpg", "ddpg": {"warm_up_trials": WARM_UP}},
            "budget": {"trials": 400},
        }
    )


def told(number: int, design: Any, memo: Any) -> ToldTrial:
    accuracy = 0.5 + 0.4 * float(np.random.default_rng(number).random())
    return ToldTrial(number, design, TrialState.SUCCEEDED, {"accuracy": accuracy, "latency_s": 1.0}, {}, memo, False)


def update_ms(features: int) -> float:
    """Median of one update by itself, on a batch as large as in the papers."""
    settings, generator = DdpgSpec(), np.random.default_rng(0)
    agent = ActorCritic(features, settings, generator)
    states = generator.random((settings.batch, features)).astype(np.float32)
    ones = np.ones(settings.batch, dtype=np.float32)
    return median(milliseconds(lambda: agent.update(Batch(states, ones, ones, states, 0 * ones))) for _ in range(100))


def milliseconds(work: Callable[[], object]) -> float:
    start = process_time()
    work()
    return 1000 * (process_time() - start)


if __name__ == "__main__":
    main()
