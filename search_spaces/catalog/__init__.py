"""The network families that Espalier knows by name: one description each, as data."""

from __future__ import annotations

from collections.abc import Callable

from search_spaces.catalog.efficientnet_lite0 import efficientnet_lite0_nodes
from search_spaces.catalog.inception_v3 import inception_v3_nodes
from search_spaces.catalog.mobilenet_v1 import mobilenet_v1_nodes
from search_spaces.catalog.mobilenet_v2 import mobilenet_v2_nodes
from search_spaces.catalog.mobilenet_v3_small import mobilenet_v3_small_nodes
from search_spaces.catalog.resnet import resnet_18_nodes, resnet_50_nodes, resnext_50_nodes
from search_spaces.catalog.resnet_56 import resnet_56_nodes
from search_spaces.catalog.shufflenet_v2 import shufflenet_v2_nodes
from search_spaces.catalog.vgg_13 import vgg_13_nodes
from search_spaces.datasets import DatasetInfo
from search_spaces.network import InputContract, Network, Node
from search_spaces.spec import Family, NetworkSpec

FAMILIES: dict[Family, Callable[[NetworkSpec, int], list[Node]]] = {
    Family.EFFICIENTNET_LITE0: efficientnet_lite0_nodes,
    Family.INCEPTION_V3: inception_v3_nodes,
    Family.MOBILENET_V1: mobilenet_v1_nodes,
    Family.MOBILENET_V2: mobilenet_v2_nodes,
    Family.MOBILENET_V3_SMALL: mobilenet_v3_small_nodes,
    Family.RESNET_18: resnet_18_nodes,
    Family.RESNET_50: resnet_50_nodes,
    Family.RESNET_56: resnet_56_nodes,
    Family.RESNEXT_50: resnext_50_nodes,
    Family.SHUFFLENET_V2: shufflenet_v2_nodes,
    Family.VGG_13: vgg_13_nodes,
}


def build_network(spec: NetworkSpec, classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Network:
    """The family's network for this input size and class count; everything fp32, nothing pruned.

    Args:
        spec: what to build.
        classes: number of logits.
        mean: per input channel, of pixel values in [0, 1].
        std: likewise.
    """
    nodes = FAMILIES[spec.family](spec, classes)
    contract = InputContract(spec.input, mean, std)
    return Network(str(spec.family), contract, tuple(nodes), nodes[-1].name)


def build_for(spec: NetworkSpec, dataset: DatasetInfo) -> Network:
    """The network with the outputs and the normalisation of a data set."""
    mean, std = dataset.statistics(spec.input[0])
    return build_network(spec, dataset.classes or 1, mean, std)
