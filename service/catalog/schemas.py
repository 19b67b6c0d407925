"""What a spec may name, as the API shows it."""

from __future__ import annotations

from pydantic import BaseModel

from search_spaces.datasets import DATASETS
from search_spaces.spec import Family, SamplerName

NETWORKS = {
    Family.MOBILENET_V1: "depthwise separable convolutions; the stem's stride is a field",
    Family.RESNET_56: "residual blocks, for pictures of 32 x 32",
    Family.VGG_13: "plain 3 x 3 convolutions with batch norm",
}
SAMPLERS = {
    SamplerName.UNIFORM: "the uniform baseline alone: the same ratio and precision everywhere",
    SamplerName.GRID: "every design of the space in order",
    SamplerName.RANDOM: "designs at random, none twice",
    SamplerName.TPE: "tree-structured Parzen estimators, multivariate",
    SamplerName.NSGA2: "a genetic algorithm for several objectives",
}


class NamedBody(BaseModel):
    name: str
    description: str


class NamedPage(BaseModel):
    items: list[NamedBody]


class DatasetBody(NamedBody):
    """A data set; `shape` is (channels, height, width) of an image."""

    classes: int
    shape: tuple[int, int, int]
    images: int
    test_images: int


class DatasetPage(BaseModel):
    items: list[DatasetBody]


def network_page() -> NamedPage:
    return NamedPage(items=[NamedBody(name=name, description=text) for name, text in NETWORKS.items()])


def sampler_page() -> NamedPage:
    return NamedPage(items=[NamedBody(name=name, description=text) for name, text in SAMPLERS.items()])


def dataset_page() -> DatasetPage:
    items = [
        DatasetBody(
            name=info.name,
            description=info.description,
            classes=info.classes,
            shape=info.shape,
            images=info.images,
            test_images=info.test_images,
        )
        for info in DATASETS.values()
    ]
    return DatasetPage(items=items)
