"""Where the example specs are: beside the packages in a checkout, under `share/` of an installation."""

from __future__ import annotations

import sys
from pathlib import Path

FIRST_EXAMPLE = "mobilenet_v1_fashion_mnist.yaml"


def example_path(name: str = FIRST_EXAMPLE) -> Path:
    """Raises `FileNotFoundError` when the installation lacks it."""
    checkout = Path(__file__).resolve().parent.parent / "examples"
    installed = Path(sys.prefix) / "share" / "espalier" / "examples"
    for folder in (checkout, installed):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"no {name} in {checkout} or {installed}; install Espalier again")
