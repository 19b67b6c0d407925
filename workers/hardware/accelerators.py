"""The simulated accelerators that are closed forms: `search_spaces.accelerators.models`, as devices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from search_spaces.accelerators.models import MODELS, simulate
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.objectives import DEVICE_METRICS, Metric
from workers.hardware.base import Anchor, Deployed, Device, Provenance, Results, summarise
from workers.hardware.timing import DEFAULT_PROTOCOL, Protocol


class SimulatedAccelerator(Device):
    """One of `MODELS`, by name. What it tells is computed from the network alone, and is always the same."""

    def __init__(self, name: str) -> None:
        self._capabilities = MODELS[name].capabilities

    def capabilities(self) -> DeviceCapabilities:
        return self._capabilities

    def measure(
        self,
        deployed: Deployed,
        anchor: Anchor | None = None,
        protocol: Protocol = DEFAULT_PROTOCOL,
        wanted: Collection[Metric] = DEVICE_METRICS,
    ) -> Results:
        """Of one inference of the batch that the model is of, whatever the protocol says.

        Raises:
            ValueError: see `simulate`.
        """
        name, batch = self._capabilities.name, self._capabilities.batch
        told = replace(protocol, batch=batch)
        return {
            metric: summarise(
                metric, np.array([value]), None, told, self._capabilities.fingerprint, Provenance.SIMULATED
            )
            for metric, value in simulate(name, deployed.network, deployed.coded_bits).items()
        }


ACCELERATORS: Mapping[str, Callable[[], Device]] = {name: partial(SimulatedAccelerator, name) for name in MODELS}
