"""The Device contract: what executes or models a network, and tells what that costs.

It must not know the service, the database or how candidates are made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.network import Network
from search_spaces.objectives import DEVICE_METRICS, Metric
from search_spaces.objectives import Provenance as Provenance  # devices take it from here
from workers.hardware.timing import DEFAULT_PROTOCOL, Protocol


@dataclass(frozen=True)
class Deployed:
    """A network as it is deployed: what models of hardware compute on, and what runtimes execute.

    Attributes:
        network: batch norms folded, each layer in its precision.
        model: the same as an ONNX file, at the protocol's batch; may be empty for a simulated device.
        coded_bits: mean bits that a value of a coded activation map takes in memory, by tensor. Models of hardware that
            count traffic use it; what executes a file does not code its maps.
    """

    network: Network
    model: bytes = b""
    coded_bits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Anchor:
    """A network of the same family and precision as the candidates, and its latency as once measured on the device."""

    deployed: Deployed
    latency_s: float


@dataclass(frozen=True)
class MeasurementResult:
    """Statistics of one file on one device, in the metric's own unit.

    Attributes:
        samples: values in the order taken, thinned evenly to the protocol's number.
        count: how many values the statistics are of.
        anchor_ratio: median of candidate / anchor; None when there was no anchor.
        protocol: JSON-safe, what another measurement must share to be comparable.
        evidence: JSON-safe, what else was found on the way.
    """

    metric: Metric
    median: float
    lower_quartile: float
    upper_quartile: float
    samples: tuple[float, ...]
    count: int
    anchor_ratio: float | None
    protocol: Mapping[str, Any]
    provenance: Provenance
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"metric": str(self.metric), "provenance": str(self.provenance)}


NOTHING: Mapping[str, Any] = {}


def summarise(
    metric: Metric,
    values: np.ndarray,
    anchor_ratio: float | None,
    protocol: Protocol,
    conditions: Mapping[str, Any],
    provenance: Provenance,
    evidence: Mapping[str, Any] = NOTHING,
) -> MeasurementResult:
    """Reduce values (n,) to a result; `conditions` is what the protocol does not say, such as the runtime."""
    lower, median, upper = (float(value) for value in np.percentile(values, [25, 50, 75]))
    kept = values[np.linspace(0, len(values) - 1, min(len(values), protocol.samples_kept)).astype(int)]
    stated = {**asdict(protocol), **conditions}
    samples = tuple(float(value) for value in kept)
    return MeasurementResult(
        metric, median, lower, upper, samples, len(values), anchor_ratio, stated, provenance, dict(evidence)
    )


Results = Mapping[Metric, MeasurementResult]
"""What was found of one network, by metric."""


class Device(ABC):
    """One piece of hardware, or a model of one, that candidates are judged on.

    Order of calls: `capabilities` at any time, cheap, and the same for the life of the process. `measure` in any
    order: a network by itself, or beside an anchor, which a search's candidates are. The caller holds
    `host_lock.measuring()` around it, unless `capabilities().simulated`; a device takes no lock itself.

    What a device guarantees: `measure` answers for every network whose layers are in `capabilities().precisions`, with
    all the metrics in `capabilities().metrics` that are wanted; it leaves the caller's core affinity, memory and files
    as they were; it never makes up a value. A metric that it cannot tell is in `capabilities().unavailable` with the
    reason. Batch and threads of the protocol are among `capabilities().batches` and `.thread_counts`.

    What may be raised: anything the runtime raises about a file that it cannot run. That fails one trial.
    """

    def why_absent(self) -> str:
        """What this machine lacks for the device, and the remedy; empty where it works. Cheap, and asked first of all.

        Of a device that is absent nothing else is asked.
        """
        return ""

    @abstractmethod
    def capabilities(self) -> DeviceCapabilities:
        """What this device executes, likes and can tell."""

    @abstractmethod
    def measure(
        self,
        deployed: Deployed,
        anchor: Anchor | None = None,
        protocol: Protocol = DEFAULT_PROTOCOL,
        wanted: Collection[Metric] = DEVICE_METRICS,
    ) -> Results:
        """What one inference takes. Beside an anchor, latency is a ratio to it, so that a machine's moods cancel out.

        A simulated device has no moods, and ignores the anchor.

        Args:
            deployed: what to measure.
            anchor: see there.
            protocol: how.
            wanted: what the caller has a use for. Others may be left out: energy takes windows of seconds.
        """
