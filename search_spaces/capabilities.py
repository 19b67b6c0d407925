"""What a device says of itself. Workers write it to the database; the API knows devices only from there."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from search_spaces.objectives import Metric


class TensorFormat(BaseModel):
    """How a device holds quantised values.

    Attributes:
        dtype: of the values, such as `int8`; `int` where the bits may be chosen.
        symmetric: whether zero is always represented by zero.
        granularity: what shares a scale.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str
    symmetric: bool
    granularity: Literal["tensor", "channel"]


class DeviceCapabilities(BaseModel):
    """What a device executes, what it likes, and what it can tell.

    Attributes:
        precisions: the (weight, activation) pairs it executes, such as `fp32` and `w8a8`.
        weights, activations: how quantised ones are held; None where it executes floating point only.
        precision_scope: the smallest unit that precision may change at without cost.
        separate_bits: whether weight and activation bits may be chosen separately, per layer.
        group_sizes: channels per group of grouped convs that it runs; empty: any.
        channel_divisor: channel counts it runs well are multiples of this.
        metrics: what it can tell.
        unavailable: metric to the reason why it cannot be told.
        batch, threads: of every figure that a search is told.
        batches, thread_counts: what else can be asked of it by a profile.
        fingerprint: processor, runtime and version, threads: what makes measurements comparable.
        simulated: whether its figures come from a model instead of a clock.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    precisions: tuple[str, ...]
    weights: TensorFormat | None = None
    activations: TensorFormat | None = None
    precision_scope: Literal["block", "layer"] = "block"
    separate_bits: bool = False
    group_sizes: tuple[int, ...] = ()
    channel_divisor: int = Field(default=1, ge=1)
    metrics: tuple[Metric, ...]
    unavailable: dict[Metric, str] = Field(default_factory=dict)
    batch: int = 1
    threads: int = 1
    batches: tuple[int, ...] = (1,)
    thread_counts: tuple[int, ...] = (1,)
    fingerprint: dict[str, str] = Field(default_factory=dict)
    simulated: bool = False
