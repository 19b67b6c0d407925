"""Command groups that are put together from what is installed: the service's own, and behind them the workers'."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from typer.core import TyperGroup
from typer.main import get_group


def assembled(group: str) -> type[TyperGroup]:
    """A group with its own commands and those of an entry-point group, which are loaded as late as possible."""

    class AssembledGroup(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            self._assemble()
            return super().list_commands(ctx)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in self.commands:
                self._assemble()
            return super().get_command(ctx, cmd_name)

        def _assemble(self) -> None:
            for point in entry_points(group=group):
                try:
                    found = get_group(point.load()).commands
                except ModuleNotFoundError:  # a service-only install has the entry point, not what it imports
                    continue
                self.commands.update({name: command for name, command in found.items() if name not in self.commands})

    return AssembledGroup
