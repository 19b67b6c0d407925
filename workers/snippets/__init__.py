"""Programs that run an exported file with the right preprocessing, to begin with: one in Python, one in C++.

All that a file wants to be fed is written into them as constants. Knows no search.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from search_spaces.datasets import Task
from search_spaces.network import InputContract, Interpolation
from workers.onnx_writer import INPUT_NAME, OUTPUT_NAME

MEDIA_TYPES = {".py": "text/x-python", ".cpp": "text/x-c++src"}
_PLAIN = re.compile(r"[A-Za-z0-9 _.-]")


def write_snippets(model: str, contract: InputContract, class_names: Sequence[str], task: Task) -> dict[str, str]:
    """The programs by their file names; none where no image file has as many channels as the network takes.

    Args:
        model: the exported file's name, `<name>.onnx` in plain ASCII.
        contract: what the file wants to be fed.
        class_names: in the order of its outputs; empty where nobody knows them.
        task: what its outputs are.
    """
    stem = model.removesuffix(".onnx")
    channels, height, width = contract.shape
    if channels not in (1, 3):
        return {}
    plain = {
        "model": model,
        "channels": channels,
        "height": height,
        "width": width,
        "resize": contract.resize,
        "input": INPUT_NAME,
        "output": OUTPUT_NAME,
    }
    is_regression = task is Task.REGRESSION
    python = {
        "script": f"run_{stem}.py",
        "interpolation": str(contract.interpolation).upper(),
        "mean": json.dumps(contract.mean),
        "std": json.dumps(contract.std),
        "is_regression": is_regression,
        "classes": repr(list(class_names)),
    }
    cpp = {
        "script": f"run_{stem}.cpp",
        "is_bicubic": json.dumps(contract.interpolation is Interpolation.BICUBIC),
        "mean": ", ".join(f"{float(value)!r}f" for value in contract.mean),
        "std": ", ".join(f"{float(value)!r}f" for value in contract.std),
        "is_regression": json.dumps(is_regression),
        "classes": ", ".join(map(_cpp_string, class_names)),
    }
    return {
        f"run_{stem}.py": _template("run.py.template").substitute(plain, **python),
        f"run_{stem}.cpp": _template("run.cpp.template").substitute(plain, **cpp),
    }


def _template(name: str) -> Template:
    return Template(files(__name__).joinpath(name).read_text(encoding="utf-8"))


def _cpp_string(text: str) -> str:
    """A literal of UTF-8 bytes. Octal escapes end after three digits, hexadecimal ones where they like."""
    escaped = (chr(byte) if _PLAIN.match(chr(byte)) else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(escaped)}"'
