"""What is known of a network on a device, and by name what is not. It never fills in what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from search_spaces.costs import Workload, WorkloadKind, fused_operators, network_workload, workloads
from search_spaces.network import Network
from search_spaces.signatures import layer_of
from search_spaces.tables.blocks import blocks_of
from service.measurements.queries import lookup


@dataclass(frozen=True)
class Missing:
    """An operator that nothing is known of, and the nodes that mean it."""

    workload: Workload
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """See `service.measurements.schemas.CoverageBody`."""

    workloads: int
    found: Mapping[WorkloadKind, int]
    whole_network: bool
    stale: int
    missing: tuple[Missing, ...]


def cover(
    session: Session,
    network: Network,
    device: str,
    metric: str,
    protocol: Mapping[str, Any],
    *,
    allow_stale: bool = False,
) -> Coverage:
    """Look for every operator of a network: as such, as the layer it begins with, as part of a block.

    Args:
        session: reads only.
        network: each layer in its precision.
        device: its name.
        metric: such as `latency_s`.
        protocol: what the figures' protocol must say.
        allow_stale: figures that were taken under another fingerprint count too.
    """
    operators, whole = workloads(network), network_workload(network)
    layers = {one.digest: layer for one in operators if (layer := layer_of(one)) is not None}
    blocks = blocks_of(network)
    wanted = {one.digest for one in (*operators, *layers.values(), whole, *(block for block, _ in blocks))}
    known = lookup(session, device, wanted, metric, protocol=protocol, allow_stale=True)
    usable = {digest for digest, figures in known.items() if allow_stale or not figures.is_stale}
    in_blocks = {node for block, nodes in blocks if block.digest in usable for node in nodes}

    def kind_of(digest: str, nodes: list[str]) -> WorkloadKind | None:
        if digest in usable:
            return WorkloadKind.OPERATOR
        if digest in layers and layers[digest].digest in usable:
            return WorkloadKind.LAYER
        return WorkloadKind.BLOCK if in_blocks.issuperset(nodes) else None

    nodes_of: dict[str, list[str]] = {}
    for one, operator in zip(operators, fused_operators(network), strict=True):
        nodes_of.setdefault(one.digest, []).append(operator.nodes[0].name)
    distinct = {one.digest: one for one in operators}
    kinds = {digest: kind_of(digest, nodes) for digest, nodes in nodes_of.items()}
    missing = [digest for digest, kind in kinds.items() if kind is None]
    return Coverage(
        workloads=len(distinct),
        found=Counter(kind for kind in kinds.values() if kind is not None),
        whole_network=whole.digest in usable,
        stale=sum(_is_known(digest, known, layers) for digest in missing),
        missing=tuple(
            Missing(distinct[digest], tuple(node for node in nodes_of[digest] if node not in in_blocks))
            for digest in missing
        ),
    )


def _is_known(digest: str, known: Mapping[str, object], layers: Mapping[str, Workload]) -> bool:
    return digest in known or (digest in layers and layers[digest].digest in known)
