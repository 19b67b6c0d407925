"""Where the example specs are: beside the packages in a checkout, under `share/` of an installation."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from search_spaces.datasets import Task

FIRST_EXAMPLE = "mobilenet_v1_fashion_mnist.yaml"
OWN_EXAMPLE = "own_network.yaml"
_LONGEST = 90  # of a name in a search's


def example_path(name: str = FIRST_EXAMPLE) -> Path:
    """Raises `FileNotFoundError` when the installation lacks it."""
    checkout = Path(__file__).resolve().parent.parent / "examples"
    installed = Path(sys.prefix) / "share" / "espalier" / "examples"
    for folder in (checkout, installed):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"no {name} in {checkout} or {installed}; install Espalier again")


def own_example(network: str | None, dataset: str | None, task: Task = Task.CLASSIFICATION) -> str:
    """The text of the example on a network and images of one's own, with these names where they are given.

    Without the note that leads it, on how both are brought.
    """
    text = example_path(OWN_EXAMPLE).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    text = "".join(lines).replace("name: mine-on-cpu", f"name: {(network or dataset or '')[:_LONGEST]} on cpu", 1)
    if network is not None:
        text = text.replace("{name: mine}", f"{{name: {json.dumps(network)}}}")
    if dataset is not None:
        text = text.replace("{name: photos}", f"{{name: {json.dumps(dataset)}}}")
    if task is Task.REGRESSION:
        text = text.replace("accuracy, direction: maximize", "mean_absolute_error, direction: minimize")
    return text
