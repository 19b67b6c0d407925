"""What a network's cost is a sum of: one term for each fused operator, and one for each change of a tensor's format.

Terms are told from signatures alone (`search_spaces.costs`), so that whatever the database has can be fitted to. A
tensor is in integers, in floating point, or in floating point packed by channels, as convolutions leave it: runtimes
turn one into another where reader and writer differ, which on small maps costs more than the work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import log2, prod
from typing import Any

from search_spaces.costs import network_workloads
from search_spaces.network import Network
from search_spaces.precision import FLOAT_BITS, parse_precision

ALIGNMENTS = (16, 8, 4)
"""Channel counts that runtimes treat alike: multiples of these, or of none."""

_COMPUTE = frozenset({"conv", "linear"})
_FREE = frozenset({"relu", "relu6", "batch_norm"})
"""Computed on the way by what they are fused into."""


@dataclass(frozen=True, slots=True)
class Term:
    """One summand.

    Attributes:
        kind: what is computed, and in which format; terms of one kind are compared by their coordinates.
        amounts: what the cost grows with: 1, then multiply-accumulates, elements read, written, and of weights.
        coordinates: base-2 logarithms of the sizes that decide how well the work fits the hardware.
    """

    kind: str
    amounts: tuple[float, ...]
    coordinates: tuple[float, ...]


class Format(StrEnum):
    """How a tensor lies in memory."""

    INTEGER = "integer"
    FLOAT = "float"
    PACKED = "packed"


def terms_of(network: Network) -> tuple[Term, ...]:
    """All terms of a network, in order."""
    whole, operators = network_workloads(network)
    reads = json.loads(whole.signature)["reads"]
    return network_terms([operator.signature for operator in operators], reads)


def network_terms(operators: Sequence[str], reads: Sequence[Sequence[int]]) -> tuple[Term, ...]:
    """All terms of a network.

    Args:
        operators: the signature of each, in order.
        reads: whose results each reads, by number; -1 is the image.

    Raises:
        ValueError: a signature is not one that `costs.workloads` writes.
    """
    terms: list[Term] = []
    made: list[Format] = []
    for signature, sources in zip(operators, reads, strict=True):
        found = tuple(made[source] if source >= 0 else Format.FLOAT for source in sources)
        own, result = operator_terms(signature, found)
        terms += own
        made.append(result)
    return (*terms, _weights_together(operators))


CACHES_BYTES = tuple(2**power for power in range(18, 27))
"""Sizes that a cache may have: 256 KiB to 64 MiB."""


def _weights_together(operators: Sequence[str]) -> Term:
    """What all weights together cost once they no longer stay in a cache from one inference to the next.

    The one term that is of no operator: its amounts are how far they exceed each of the sizes that caches have, and no
    size is too small or too large for it.
    """
    total = sum(map(_weight_bytes, operators))
    amounts = (0.0, float(total), *(float(max(total - size, 0)) for size in CACHES_BYTES))
    return Term("weights together", amounts, ())


@lru_cache(maxsize=65_536)
def _weight_bytes(signature: str) -> int:
    operator = json.loads(signature)
    if operator["ops"][0] not in _COMPUTE:
        return 0
    inputs, outputs = int(operator["inputs"][0][0]), int(operator["output"][0])
    weights = prod(operator["kernel"]) * inputs // int(operator["groups"]) * outputs
    return int(weights * parse_precision(operator["precision"]).weight_bits // 8)


@lru_cache(maxsize=65_536)
def operator_terms(signature: str, found: tuple[Format, ...]) -> tuple[tuple[Term, ...], Format]:
    """The terms of one operator that finds its inputs in these formats, and the format of its result.

    Raises:
        ValueError: the signature is not one that `costs.workloads` writes.
    """
    try:
        operator = json.loads(signature)
        form = _form(operator, found)
        return tuple(_terms(operator, form, found)), _result(operator, form)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not the signature of an operator: {signature[:80]!r}") from error


def _terms(operator: Mapping[str, Any], form: Format, found: tuple[Format, ...]) -> Iterator[Term]:
    first, *fused = operator["ops"]
    yield _layer(operator, form) if first in _COMPUTE else _other(operator, form)
    output = operator["output"]
    for name in fused:
        if name not in _FREE:
            yield _conversion(f"{name} {form}", output)
    for source, was in zip(operator["inputs"], found, strict=True):
        if was is not form:
            yield _conversion(f"{was} to {form}", source)
    if form is Format.INTEGER and output[-1] == FLOAT_BITS:
        yield _conversion(f"{form} to {Format.FLOAT}", output)


def _form(operator: Mapping[str, Any], found: tuple[Format, ...]) -> Format:
    """What an operator computes on. Packed: convs, and what reads packed tensors only."""
    first = operator["ops"][0]
    if first in _COMPUTE:
        is_integer = parse_precision(operator["precision"]).is_integer
        return Format.INTEGER if is_integer else Format.PACKED if first == "conv" else Format.FLOAT
    if all(source[-1] < FLOAT_BITS for source in operator["inputs"]):
        return Format.INTEGER
    return Format.PACKED if set(found) == {Format.PACKED} else Format.FLOAT


def _result(operator: Mapping[str, Any], form: Format) -> Format:
    """What a pool has left one value of for each channel is packed no more."""
    if form is Format.INTEGER:
        return Format.INTEGER if operator["output"][-1] < FLOAT_BITS else Format.FLOAT
    is_map = operator["ops"][0] in _COMPUTE or prod(operator["output"][1:-1]) > 1
    return form if is_map else Format.FLOAT


def _layer(operator: Mapping[str, Any], form: Format) -> Term:
    (source, target), groups = (operator["inputs"][0], operator["output"]), operator["groups"]
    inputs, outputs, pixels = source[0], target[0], prod(target[1:-1])
    taps = prod(operator["kernel"])
    weights = taps * inputs // groups * outputs
    amounts = (1.0, float(weights * pixels), float(prod(source[:-1])), float(prod(target[:-1])), float(weights))
    sizes, shape = _sizes(inputs, outputs, groups)
    kernel = "x".join(map(str, operator["kernel"]))
    stride = "x".join(map(str, operator["stride"]))
    spread = "" if set(operator["dilation"]) == {1} else " dilated"
    kind = f"{operator['ops'][0]} {kernel}/{stride}{spread} {shape} {_alignment(inputs, outputs)} {form}"
    return Term(kind, amounts, tuple(log2(size) for size in (*sizes, max(pixels, 1))))


def _sizes(inputs: int, outputs: int, groups: int) -> tuple[tuple[int, ...], str]:
    if groups == 1:
        return (inputs, outputs), "dense"
    if groups == inputs == outputs:
        return (inputs,), "depthwise"
    return (inputs, outputs, inputs // groups), "grouped"


def _alignment(inputs: int, outputs: int) -> str:
    """Of inputs and outputs apart: three colours in front and ten classes at the end are odd in any network."""
    return "-".join(str(next((step for step in ALIGNMENTS if count % step == 0), 1)) for count in (inputs, outputs))


def _other(operator: Mapping[str, Any], form: Format) -> Term:
    sources: Sequence[Sequence[int]] = operator["inputs"]
    name = operator["ops"][0]
    if operator["body"]:
        name = f"{name} {hashlib.sha256(json.dumps(operator['body']).encode()).hexdigest()[:12]}"
    window = "" if operator["kernel"] in (None, [1, 1]) else " " + "x".join(map(str, operator["kernel"]))
    read, written = sum(prod(source[:-1]) for source in sources), prod(operator["output"][:-1])
    kind = f"{name}{window} of {len(sources)} {form}"
    return Term(kind, (1.0, float(read), float(written)), (log2(max(written, 1)),))


def _conversion(kind: str, tensor: Sequence[int]) -> Term:
    elements = prod(tensor[:-1])
    return Term(kind, (1.0, float(elements)), (log2(max(elements, 1)),))
