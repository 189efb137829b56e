"""Every command with its arguments and options."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from decant.pipeline.cli.main import decant as command_line
from reference_tables.markdown import table


def commands() -> str:
    """Every command with its arguments and options."""
    return "\n\n".join(_command(path, command) for path, command in walk(command_line, "decant"))


def walk(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group, by what is typed."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from walk(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _command(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path, help_option_names=["-h", "--help"])
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            rows.append((f"`{record[0]}`", record[1]))
    text = inspect.cleandoc(command.help or "")
    options = table(("option", "what it does"), rows)
    return f"## {path} {{ #{path.replace(' ', '-')} }}\n\n```text\n{usage}\n```\n\n{text}\n\n{options}"
