"""Networks as the API shows them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from search_spaces.spec import Family
from service.models import ImportedNetwork
from service.searches.schemas import ActivityBody
from service.states import JobState

FAMILIES = {
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


class NetworkKind(StrEnum):
    FAMILY = "family"  # of the catalog: a spec names it in `family`, with a width and an input
    IMPORTED = "imported"  # a spec names it in `name`


class NetworkItem(BaseModel):
    """A network that a spec may name. `state` is that of the import; a family needs none."""

    name: str
    kind: NetworkKind
    description: str
    state: JobState


class NetworkPage(BaseModel):
    items: list[NetworkItem]


class NetworkBody(NetworkItem):
    """An imported network. `report` says what was found in it; `problem` why it could not be imported."""

    filename: str
    settings: dict[str, Any]
    activity: ActivityBody | None
    report: dict[str, Any]
    problem: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


def network_page(imported: list[ImportedNetwork]) -> NetworkPage:
    families = [
        NetworkItem(name=name, kind=NetworkKind.FAMILY, description=text, state=JobState.SUCCEEDED)
        for name, text in FAMILIES.items()
    ]
    return NetworkPage(items=[*families, *(NetworkItem(**_item(row)) for row in imported)])


def network_body(row: ImportedNetwork) -> NetworkBody:
    return NetworkBody(
        **_item(row),
        filename=row.filename,
        settings=row.settings,
        activity=row.activity and ActivityBody.model_validate(row.activity),
        report=row.report,
        problem=row.problem,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _item(row: ImportedNetwork) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": NetworkKind.IMPORTED,
        "description": f"imported from {row.filename}",
        "state": JobState(row.state),
    }
