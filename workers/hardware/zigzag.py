"""`zigzag-...`: accelerators that are described by YAML files, modelled layer by layer by ZigZag. An optional package.

Looking for the best mapping of a layer takes seconds. So each different layer is looked at once for each accelerator,
and the answer is kept in the home folder. Nothing but convolutions and linear layers costs anything; leakage is left
out. A description has no clock: that is stated beside it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np
import yaml

from search_spaces.accelerators.models import ACTIVATIONS, MIXED_PRECISIONS, WEIGHTS
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.network import Network
from search_spaces.objectives import DEVICE_METRICS, Metric
from service.config import get_settings
from service.files import write_atomically
from workers.hardware.base import Anchor, Deployed, Device, Provenance, Results, summarise
from workers.hardware.timing import DEFAULT_PROTOCOL, Protocol
from workers.hardware.zigzag_descriptions import DESCRIPTIONS, Description, fault_of, read_folder
from workers.hardware.zigzag_layers import LayerFigures, ZigzagLayer, layer_digest, zigzag_layers

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TAIL_CHARACTERS = 2000


class Zigzag(Device):
    """An accelerator by its description, which is read when it is first needed."""

    def __init__(self, name: str, read: Callable[[], Description]) -> None:
        self._name = name
        self._read = read

    def why_absent(self) -> str:
        for package in ("zigzag", "six"):
            if find_spec(package) is None:
                return f"the package {package} is not installed: pip install 'espalier[zigzag]'"
        try:
            return fault_of(self._description)
        except (OSError, ValueError, yaml.YAMLError) as error:
            return f"its description cannot be read: {error}"

    def capabilities(self) -> DeviceCapabilities:
        return self._capabilities

    @cached_property
    def _description(self) -> Description:
        return self._read()

    @cached_property
    def _capabilities(self) -> DeviceCapabilities:
        file = self._description.file
        return DeviceCapabilities(
            name=self._name,
            description=f"{file.description or self._name}, by ZigZag's model at {file.clock_hz / 1e6:g} MHz; only "
            "convolutions and linear layers cost anything, without leakage",
            precisions=MIXED_PRECISIONS,
            weights=WEIGHTS,
            activations=ACTIVATIONS,
            precision_scope="layer",
            separate_bits=True,
            channel_divisor=file.channel_divisor,
            metrics=(Metric.LATENCY_S, Metric.ENERGY_J),
            unavailable={Metric.MEMORY_BYTES: "ZigZag looks at one layer at a time, not at what lives between them"},
            fingerprint={
                "runtime": f"zigzag-dse {version('zigzag-dse')}",
                "hardware": self._description.digest,
                "clock_hz": f"{file.clock_hz:g}",
            },
            simulated=True,
        )

    def measure(
        self,
        deployed: Deployed,
        anchor: Anchor | None = None,
        protocol: Protocol = DEFAULT_PROTOCOL,
        wanted: Collection[Metric] = DEVICE_METRICS,
    ) -> Results:
        """The sum over layers.

        Raises:
            ValueError: a layer is in a precision that is not listed, or cannot be mapped to the accelerator.
        """
        self._check(deployed.network)
        layers = layer_figures(zigzag_layers(deployed.network), self._description, get_settings().home / "zigzag")
        values = {
            Metric.LATENCY_S: sum(one.cycles for one in layers) / self._description.file.clock_hz,
            Metric.ENERGY_J: sum(one.energy_pj for one in layers) * 1e-12,
        }
        conditions = self._capabilities.fingerprint
        return {
            metric: summarise(metric, np.array([value]), None, protocol, conditions, Provenance.SIMULATED)
            for metric, value in values.items()
        }

    def _check(self, network: Network) -> None:
        layers = network.compute_nodes()
        if not layers:
            raise ValueError(f"{self._name} models convolutions and linear layers; the network has none")
        for layer in layers:
            if str(layer.precision) not in MIXED_PRECISIONS:
                raise ValueError(
                    f"layer {layer.name!r} is in {layer.precision}, which {self._name} does not execute: "
                    "choose from w2a2 to w8a8"
                )


def layer_figures(layers: Sequence[ZigzagLayer], description: Description, folder: Path) -> list[LayerFigures]:
    """What each layer takes, in order: remembered in the folder, or found now, each different layer once.

    Raises:
        ValueError: a layer cannot be mapped to the accelerator; what was found before it is remembered.
    """
    kept = folder / description.digest
    by_digest = {layer_digest(layer): layer for layer in layers}
    known = {digest: found for digest in by_digest if (found := _recall(kept / f"{digest}.json"))}
    missing = [digest for digest in by_digest if digest not in known]
    if missing:
        answers = _ask([by_digest[digest] for digest in missing], description)
        for digest, found in zip(missing, answers, strict=True):
            write_atomically(kept / f"{digest}.json", json.dumps(asdict(found)).encode())
            known[digest] = found
    return [known[layer_digest(layer)] for layer in layers]


def _recall(path: Path) -> LayerFigures | None:
    try:
        return LayerFigures(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _ask(layers: Sequence[ZigzagLayer], description: Description) -> Iterator[LayerFigures]:
    """What the program answers, as it comes. The program ends with the iteration."""
    paths = {
        "hardware": str(description.hardware.absolute()),
        "mapping": str(description.mapping.absolute()) if description.mapping else None,
    }
    with tempfile.TemporaryDirectory(prefix="espalier-") as folder, tempfile.TemporaryFile("w+") as log:
        process = _start(folder, log)
        assert process.stdin is not None, "a pipe"
        assert process.stdout is not None, "a pipe"
        try:
            with process.stdin as request:
                json.dump({"layers": layers, **paths}, request)
            for line in process.stdout:
                answer = json.loads(line)
                if "error" in answer:
                    raise ValueError(f"ZigZag cannot map a layer to this accelerator: {answer['error']}")
                yield LayerFigures(**answer)
            if process.wait():
                raise RuntimeError(f"the ZigZag program ended early: {_tail(log)}")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _start(folder: str, log: IO[str]) -> subprocess.Popen[str]:
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "workers.hardware.zigzag_program"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )


def _tail(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-_TAIL_CHARACTERS:].strip()


def own_accelerators() -> dict[str, Callable[[], Device]]:
    """Those of the operator: a folder each, in the folder that ESPALIER_ACCELERATORS says."""
    folder = get_settings().accelerators
    if folder is None:
        return {}
    found: dict[str, Callable[[], Device]] = {}
    for one in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        if _NAME.fullmatch(one.name):
            name = f"zigzag-{one.name}"
            found[name] = partial(Zigzag, name, partial(read_folder, one))
        else:
            _log.warning("accelerator %r is left out: name it with a-z, 0-9 and single dashes", one.name)
    return found


SHIPPED: Mapping[str, Callable[[], Device]] = {name: partial(Zigzag, name, read) for name, read in DESCRIPTIONS.items()}
