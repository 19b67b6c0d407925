"""What tells machines apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.devices.actions import this_process
from service.leases import owner_name
from service.machine import machine_name, name_with_id


def test_machines_of_one_host_name_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    names = []
    for machine_id in ("0123456789abcdef0123456789abcdef\n", "fedcba9876543210fedcba9876543210\n"):
        (tmp_path / "machine-id").write_text(machine_id)
        names.append(name_with_id("lab", tmp_path / "machine-id"))
        assert names[-1] == name_with_id("lab", tmp_path / "machine-id")
        assert machine_id[:8] not in names[-1]
    assert len(set(names)) == 2
    assert all(name.startswith("lab (") and len(name) == len("lab (12345678)") for name in names)


@pytest.mark.parametrize("machine_id", [None, "", "\n", "uninitialized\n"])
def test_a_machine_without_an_id_has_its_host_name(tmp_path: Path, machine_id: str | None) -> None:
    if machine_id is not None:
        (tmp_path / "machine-id").write_text(machine_id)
    assert name_with_id("lab", tmp_path / "machine-id") == "lab"


def test_leases_and_devices_name_the_machine() -> None:
    assert owner_name(7) == f"{machine_name()}:7"
    assert (this_process().owner, this_process().host) == (owner_name(os.getpid()), machine_name())
