"""The networks that tables are of and are compared with: of the catalog, all layers in one precision."""

from __future__ import annotations

from search_spaces.catalog import build_network
from search_spaces.importing import IMAGENET_MEAN, IMAGENET_STD
from search_spaces.network import Network
from search_spaces.spec import Family, NetworkSpec, Side


def catalog_network(
    family: Family, width: float, shape: tuple[Side, Side, Side], stem_stride: int | None, classes: int
) -> Network:
    """A network of the catalog; what its pixels are normalised by changes no work."""
    spec = NetworkSpec.model_validate({"family": family, "width": width, "input": shape, "stem_stride": stem_stride})
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if shape[0] == 3 else ((0.5,) * shape[0], (0.5,) * shape[0])
    return build_network(spec, classes, mean, std)
