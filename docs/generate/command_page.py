"""The reference page of the command line, from the declarations that `pdsynth VERB --help` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from pdsynth.cli import app
from pdsynth.cli.options import JOBS

URI = "reference/commands.md"
INTRODUCTION = """# Command line

`pdsynth VERB --help` prints the same on the screen. [Files and columns](files.md) describes what each verb reads and
writes.
Every verb takes `--debug`, which shows the traceback of an error, and `--log FILE`, which also
[appends](../how-to/command-line.md#keep-a-log) to a file what is printed.
"""


def page() -> str:
    """The page in Markdown: one section per verb with its usage, its description, its arguments and its options."""
    group: Any = typer.main.get_command(app)
    return INTRODUCTION + "\n" + "\n".join(_verb(name, command) for name, command in group.commands.items())


def _verb(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=f"pdsynth {name}")
    usage = command.get_usage(context).removeprefix("Usage: ").replace("{", "").replace("}", "")
    parameters = [p for p in command.get_params(context) if p.name != "help"]
    lines = [f"## pdsynth {name}", "", "```text", usage, "```", "", command.help, ""]
    lines += ["| argument or option | meaning |", "|---|---|", *_rows(parameters, context)]
    return "\n".join(lines) + "\n"


def _rows(parameters: list[Any], context: Any) -> Iterator[str]:
    for parameter in parameters:
        declared, meaning = parameter.get_help_record(context)
        if (
            parameter.name in ("jobs", "n_cpus") and parameter.default == JOBS
        ):  # it is that of the machine that builds the page
            meaning = meaning.replace(f"default: {JOBS}", "default: one per core, at most one per 2 GiB of memory")
        yield f"| `{_cell(declared)}` | {_cell(meaning)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
