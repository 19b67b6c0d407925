"""Which line of the spec's text a fault is shown at."""

from __future__ import annotations

import pytest

from search_spaces.faults import Fault
from service.web.editor import build_editor, place_faults

TEXT = """name: a
network:
  family: mobilenet_v1
  input: [1, 28, 28]
objectives:
  - {metric: accuracy, direction: maximize}
  - {metric: latency_s, direction: minimize}
odd/key~: 1
"""


@pytest.mark.parametrize(
    ("pointer", "line"),
    [
        ("/name", 1),
        ("/network/family", 3),
        ("/network/input/2", 4),
        ("/objectives/1/device", 7),  # a missing key is shown at what lacks it
        ("/odd~1key~0", 8),
        ("/space", None),
        ("", None),
    ],
)
def test_line_of_a_pointer(pointer: str, line: int | None) -> None:
    (placed,) = place_faults(TEXT, [Fault(pointer, "wrong")])
    assert placed.line == line


@pytest.mark.parametrize("text", ["a: [", "[" * 100_000, "a: *b", "\x00", ""])
def test_a_text_that_cannot_be_read_has_no_lines(text: str) -> None:
    (placed,) = place_faults(text, [Fault("/a", "wrong")])
    assert placed.line in (None, 1)


def test_json_is_yaml() -> None:
    (placed,) = place_faults('{\n "name": 3\n}', [Fault("/name", "not a string")])
    assert placed.line == 2


def test_two_faults_of_one_line_share_its_gutter() -> None:
    editor = build_editor(TEXT, "faults", [Fault("/name", "one"), Fault("/name", "two")])
    assert editor.gutter[0] == "one; two"
    assert not any(editor.gutter[1:])
    assert editor.text == TEXT
