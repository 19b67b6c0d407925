"""Reads which data sets there are: with Espalier, installed beside it, added by users."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.datasets import DATASETS, DatasetInfo, dataset_from_json
from service.errors import NotFoundError
from service.models import OwnDataset
from service.offers import OfferKind, list_offers
from service.states import JobState


def present_datasets(session: Session) -> dict[str, DatasetInfo]:
    """Those that nobody has to add, by name: what comes with Espalier, then what workers have announced."""
    announced = {row.name: dataset_from_json(row.details) for row in list_offers(session, OfferKind.DATASET)}
    return DATASETS | announced


def list_datasets(session: Session) -> list[OwnDataset]:
    """All versions, by name, the newest version of each first."""
    return list(session.scalars(select(OwnDataset).order_by(OwnDataset.name, OwnDataset.version.desc())))


def list_names(session: Session) -> list[str]:
    """Of those that can be used."""
    usable = select(OwnDataset.name).where(OwnDataset.state == JobState.SUCCEEDED)
    return list(session.scalars(usable.distinct().order_by(OwnDataset.name)))


def find_dataset(session: Session, name: str, digest: str | None = None) -> OwnDataset | None:
    """The version with that digest; without one, the newest that can be used, else the newest there is."""
    query = select(OwnDataset).where(OwnDataset.name == name).order_by(OwnDataset.version.desc())
    if digest is not None:
        query = query.where(OwnDataset.digest == digest)
    versions = session.scalars(query).all()
    usable = [version for version in versions if version.state == JobState.SUCCEEDED]
    return next(iter([*usable, *versions]), None)


def versions_of(session: Session, name: str) -> list[OwnDataset]:
    """The newest first.

    Raises:
        NotFoundError: there is no such data set.
    """
    query = select(OwnDataset).where(OwnDataset.name == name).order_by(OwnDataset.version.desc())
    versions = list(session.scalars(query))
    if not versions:
        raise NotFoundError(f"no data set was added as {name!r}")
    return versions
