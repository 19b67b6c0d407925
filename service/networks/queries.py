"""Reads imported networks."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from service.errors import NotFoundError
from service.models import ImportedNetwork

_LIGHT = (defer(ImportedNetwork.network, raiseload=True), defer(ImportedNetwork.report, raiseload=True))


def list_networks(session: Session) -> list[ImportedNetwork]:
    """By name, without the graphs and reports, which are long."""
    return list(session.scalars(select(ImportedNetwork).options(*_LIGHT).order_by(ImportedNetwork.name)))


def find_network(session: Session, name: str) -> ImportedNetwork | None:
    return session.scalars(select(ImportedNetwork).where(ImportedNetwork.name == name)).one_or_none()


def get_network(session: Session, name: str) -> ImportedNetwork:
    """Raises `NotFoundError` when there is no such network."""
    network = find_network(session, name)
    if network is None:
        raise NotFoundError(f"no network was imported as {name!r}")
    return network
