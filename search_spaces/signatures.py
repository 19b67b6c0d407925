"""Signatures of workloads, read from anywhere: what they are of, their digest, and how much work and data they mean.

Besides operators and networks (`search_spaces.costs`) there are two kinds that tables from elsewhere name:

- a layer is a conv or linear without what is fused into it and without the bits of its result;
- a block is what tables of whole blocks say of one: its name, shapes as (height, width, channels), further numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from search_spaces.costs import Workload, WorkloadKind
from search_spaces.network import Op
from search_spaces.precision import parse_precision

LONGEST_SIGNATURE = 2**18
Size: TypeAlias = Annotated[int, Field(ge=0, le=2**31)]
Pair: TypeAlias = tuple[Size, Size]
Sizes: TypeAlias = Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)]
PrecisionText: TypeAlias = Annotated[str, Field(pattern=r"^(fp32|[wk][0-9]{1,2}a[0-9]{1,2})$")]


class _Signature(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OperatorSignature(_Signature):
    """See `search_spaces.costs.workloads`. Inputs and output are shapes with the bits at their ends."""

    ops: Annotated[tuple[Op, ...], Field(min_length=1, max_length=1000)]
    inputs: Annotated[tuple[Sizes, ...], Field(max_length=1000)]
    output: Sizes
    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: tuple[Size, Size, Size, Size]
    groups: Annotated[int, Field(ge=1, le=2**31)]
    bias: bool
    precision: PrecisionText
    body: str


class LayerSignature(_Signature):
    """A conv or linear: input and output are shapes (channels, height, width), without bits."""

    layer: Literal[Op.CONV, Op.LINEAR]
    input: Sizes
    output: Sizes
    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: tuple[Size, Size, Size, Size]
    groups: Annotated[int, Field(ge=1, le=2**31)]
    precision: PrecisionText


class BlockSignature(_Signature):
    """A block as a table names it; shapes are (height, width, channels)."""

    block: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    input: Sizes
    output: Sizes
    numbers: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z]{1,20}$")], Size], Field(max_length=20)]
    precision: PrecisionText


class NetworkSignature(_Signature):
    """The digests of a network's operators, in order, and whose results each reads."""

    operators: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...], Field(max_length=3000)]
    reads: Annotated[tuple[tuple[Annotated[int, Field(ge=-1, le=3000)], ...], ...], Field(max_length=3000)]

    @model_validator(mode="after")
    def _in_order(self) -> NetworkSignature:
        if len(self.reads) != len(self.operators):
            raise ValueError("there is one entry of reads for each operator")
        if any(source >= place for place, sources in enumerate(self.reads) for source in sources):
            raise ValueError("an operator reads results of those before it; -1 is the image")
        return self


AnySignature = OperatorSignature | LayerSignature | BlockSignature | NetworkSignature
_FORMS: tuple[tuple[str, WorkloadKind, type[AnySignature]], ...] = (
    ("ops", WorkloadKind.OPERATOR, OperatorSignature),
    ("layer", WorkloadKind.LAYER, LayerSignature),
    ("block", WorkloadKind.BLOCK, BlockSignature),
    ("operators", WorkloadKind.NETWORK, NetworkSignature),
)
_ADAPTERS: dict[type[AnySignature], TypeAdapter[Any]] = {form: TypeAdapter(form) for _, _, form in _FORMS}


class SignatureError(ValueError):
    """A text is no signature; the message says why."""


@dataclass(frozen=True, slots=True)
class Read:
    """A signature that was read: its workload, without a name, and its parts."""

    workload: Workload
    parts: AnySignature


def read_signature(text: str) -> Read:
    """Parse a signature that somebody hands over; the digest is of its canonical form.

    Raises:
        SignatureError: it is none.
    """
    if len(text) > LONGEST_SIGNATURE:
        raise SignatureError(f"a signature may have {LONGEST_SIGNATURE:,} characters")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SignatureError(f"not JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict):
        raise SignatureError("a signature is a JSON object")
    for key, kind, form in _FORMS:
        if key in found:
            return Read(workload_of(kind, found), _check(form, found))
    keys = ", ".join(f"`{key}`" for key, _, _ in _FORMS)
    raise SignatureError(f"a signature has one of {keys}")


def workload_of(kind: WorkloadKind, described: Mapping[str, object], name: str = "") -> Workload:
    """The workload with this signature; as `search_spaces.costs` makes them."""
    signature = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return Workload(kind, signature, hashlib.sha256(signature.encode()).hexdigest(), name)


def layer_of(operator: Workload) -> Workload | None:
    """The layer that an operator begins with; None of pools, additions and the like."""
    parts = json.loads(operator.signature)
    if operator.kind is not WorkloadKind.OPERATOR or parts["ops"][0] not in (Op.CONV, Op.LINEAR):
        return None
    described = {
        "layer": parts["ops"][0],
        "input": parts["inputs"][0][:-1],
        "output": parts["output"][:-1],
        **{key: parts[key] for key in ("kernel", "stride", "dilation", "padding", "groups", "precision")},
    }
    return workload_of(WorkloadKind.LAYER, described, operator.name)


@dataclass(frozen=True, slots=True)
class Work:
    """How much a workload computes and moves, at batch 1.

    Attributes:
        moved_bytes: of what is read and written, weights included.
        weight_bytes: of weights alone, which are moved once however large the batch is.
    """

    macs: float
    moved_bytes: float
    weight_bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.macs + other.macs, self.moved_bytes + other.moved_bytes, self.weight_bytes + other.weight_bytes
        )


def work_of(parts: AnySignature) -> Work | None:
    """What a signature says of the work; None where that is not all of it.

    So it is of a network, whose operators have to be looked at, of opaque operators, and of blocks without a kernel or
    an expansion.
    """
    if isinstance(parts, OperatorSignature):
        return _work_of_operator(parts)
    if isinstance(parts, LayerSignature):
        return _work_of_layer(parts)
    return _work_of_block(parts) if isinstance(parts, BlockSignature) else None


def _work_of_operator(parts: OperatorSignature) -> Work | None:
    if Op.OPAQUE in parts.ops:
        return None
    tensors = sum(math.prod(shape) / 8 for shape in (*parts.inputs, parts.output))  # the bits are part of the product
    if parts.ops[0] not in (Op.CONV, Op.LINEAR) or not parts.inputs:
        return Work(0.0, tensors)
    weights = _weights(parts.inputs[0], parts.output, parts.kernel, parts.groups)
    bits = parse_precision(parts.precision).weight_bits
    weight_bytes = weights * bits / 8
    return Work(float(weights * math.prod(parts.output[1:-1])), tensors + weight_bytes, weight_bytes)


def _work_of_layer(parts: LayerSignature) -> Work:
    precision = parse_precision(parts.precision)
    weights = _weights(parts.input, parts.output, parts.kernel, parts.groups)
    tensors = math.prod(parts.input) * precision.activation_bits / 8
    weight_bytes = weights * precision.weight_bits / 8
    return Work(float(weights * math.prod(parts.output[1:])), tensors + weight_bytes, weight_bytes)


def _work_of_block(parts: BlockSignature) -> Work | None:
    """Of an inverted residual, whose numbers tell its MACs."""
    bits = parse_precision(parts.precision).activation_bits
    tensors = (math.prod(parts.input) + math.prod(parts.output)) * bits / 8
    expand, kernel = parts.numbers.get("expand"), parts.numbers.get("kernel")
    if expand is None or kernel is None or len(parts.input) != 3 or len(parts.output) != 3:
        return None
    inside = parts.input[2] * expand
    outside = parts.output[0] * parts.output[1]
    widening = math.prod(parts.input) * inside if expand != 1 else 0
    return Work(float(widening + outside * inside * (kernel * kernel + parts.output[2])), tensors)


def _weights(source: Sizes, output: Sizes, kernel: Pair, groups: int) -> int:
    return kernel[0] * kernel[1] * (source[0] // groups) * output[0]


def _check(form: type[AnySignature], found: dict[str, Any]) -> AnySignature:
    try:
        # As JSON, whose lists are tuples; strict, so that 3.0 and 3 are not two digests of one thing.
        parts: AnySignature = _ADAPTERS[form].validate_json(json.dumps(found))
        parse_precision(getattr(parts, "precision", "fp32"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SignatureError(f"{place}: {first['msg']}") from None
    except ValueError as error:
        raise SignatureError(str(error)) from None
    return parts
