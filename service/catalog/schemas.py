"""What a spec may name, as the API shows it."""

from __future__ import annotations

from pydantic import BaseModel

from search_spaces.datasets import DATASETS
from search_spaces.spec import Family, SamplerName

NETWORKS = {
    Family.EFFICIENTNET_LITE0: "inverted residuals with windows of 3 x 3 and 5 x 5, made for integer hardware",
    Family.INCEPTION_V3: "blocks of parallel branches, concatenated; for pictures of 299 x 299, or smaller ones",
    Family.MOBILENET_V1: "depthwise separable convolutions; the stem's stride is a field",
    Family.MOBILENET_V2: "inverted residuals with linear bottlenecks",
    Family.MOBILENET_V3_SMALL: "inverted residuals with squeeze-and-excite and hard swish",
    Family.RESNET_18: "residual blocks of two convolutions; a stem stride of 1 is for small pictures",
    Family.RESNET_50: "residual bottlenecks; a stem stride of 1 is for small pictures",
    Family.RESNET_56: "residual blocks, for pictures of 32 x 32",
    Family.RESNEXT_50: "residual bottlenecks whose 3 x 3 convolutions have 32 groups",
    Family.SHUFFLENET_V2: "split, work on one half, join and shuffle; a stem stride of 1 is for small pictures",
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
