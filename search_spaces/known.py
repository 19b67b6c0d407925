"""What a spec may name: devices, networks, data sets, scores, samplers and importances, as far as they are known here.

It must not know where the knowledge comes from: a database, or what is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.datasets import DATASETS, DatasetInfo
from search_spaces.network import Network
from search_spaces.scores import BUILT_IN_SCORES, ScoreInfo
from search_spaces.spec import ImportanceName, OwnNetworkSpec, SamplerName, SearchSpec


@dataclass(frozen=True, slots=True)
class OwnNetwork:
    """A network that a user has imported.

    Attributes:
        base_key: of the base that holds its weights.
        class_names: in the order of its outputs; empty where the user gave none.
        left_out: the operator that its file has behind the last node, such as `Sigmoid`; empty when there is none.
    """

    name: str
    base_key: str
    network: Network
    class_names: tuple[str, ...] = ()
    left_out: str = ""


class Sources(BaseModel):
    """What a spec's names stand for, for ever: names may come to mean something newer.

    Attributes:
        network: key of the base of an imported network.
        dataset: digest of a user's data set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str | None = None
    dataset: str | None = None


@dataclass(frozen=True)
class Known:
    """What may be named, by name.

    Attributes:
        absent: those of the devices that no live worker has, and what a search waits for that names one.
        unready: networks and data sets that are there and cannot be used, as `network mine`, and why not.
        searches: ids of the searches that are there, of those that the spec names.
    """

    devices: Mapping[str, DeviceCapabilities] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, OwnNetwork] = field(default_factory=dict)
    datasets: Mapping[str, DatasetInfo] = field(default_factory=lambda: DATASETS)
    scores: Mapping[str, ScoreInfo] = field(
        default_factory=lambda: {name: score.info for name, score in BUILT_IN_SCORES.items()}
    )
    samplers: frozenset[str] = frozenset(str(name) for name in SamplerName)
    importances: frozenset[str] = frozenset(str(name) for name in ImportanceName)
    unready: Mapping[str, str] = field(default_factory=dict)
    searches: frozenset[str] = frozenset()

    def lacks(self, spec: SearchSpec) -> bool:
        """Whether the spec names a network, a data set or a search that may be known elsewhere: to a service."""
        is_strange_network = isinstance(spec.network, OwnNetworkSpec) and spec.network.name not in self.networks
        is_strange_search = not self.searches.issuperset(spec.warm_start)
        return is_strange_network or is_strange_search or spec.dataset.name not in self.datasets
