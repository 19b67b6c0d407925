"""The spec's text in the submit page, and which line each fault is about. Pure; knows no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from search_spaces.faults import Fault

SPARE_LINES = 4
LONGEST_PLACED = 50_000  # characters: finding lines in more takes too long, and no spec is so long


@dataclass(frozen=True, slots=True)
class PlacedFault:
    """A fault with the line of the text that it is about, counted from 1; None where there is none."""

    line: int | None
    pointer: str
    message: str


@dataclass(frozen=True, slots=True)
class Editor:
    """What the template shows: the text as the user left it, and one gutter entry per line."""

    text: str
    title: str
    faults: tuple[PlacedFault, ...]
    gutter: tuple[str, ...]
    rows: int


def build_editor(text: str, title: str = "", faults: Sequence[Fault] = ()) -> Editor:
    placed = place_faults(text, faults)
    lines = text.count("\n") + 1
    gutter = ["" for _ in range(lines)] if placed else []
    for fault in placed:
        if fault.line is not None and fault.line <= lines:
            before = gutter[fault.line - 1]
            gutter[fault.line - 1] = f"{before}; {fault.message}" if before else fault.message
    return Editor(text, title, placed, tuple(gutter), lines + SPARE_LINES)


def place_faults(text: str, faults: Sequence[Fault]) -> tuple[PlacedFault, ...]:
    """Find the line of each pointer; of its nearest parent where the text has no such place."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader) if len(text) <= LONGEST_PLACED else None
    except (yaml.YAMLError, RecursionError, ValueError):
        root = None
    return tuple(PlacedFault(_line_of(root, fault.pointer), fault.pointer, fault.message) for fault in faults)


def _line_of(root: yaml.Node | None, pointer: str) -> int | None:
    if root is None or not pointer:
        return None
    line, node = None, root
    for part in pointer.removeprefix("/").split("/"):
        found = _child(node, part.replace("~1", "/").replace("~0", "~"))
        if found is None:
            break
        line, node = found
    return line


def _child(node: yaml.Node, key: str) -> tuple[int, yaml.Node] | None:
    """(line of the entry, the entry's value) in a mapping or sequence."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return name.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
        value = node.value[int(key)]
        return value.start_mark.line + 1, value
    return None
