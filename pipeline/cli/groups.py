"""Groups of commands."""

from __future__ import annotations

import click


class InOrder(click.Group):
    """A group whose help lists the commands in the order in which they are used, as the documentation does."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)
