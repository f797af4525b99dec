"""The commands `emsam NAME`, in the order of the work: each a page of flags and one call into its room.

A command is a module: its docstring is its page, whose first line is its purpose, `define_flags` defines its flags, and
`main` makes the call. This file imports none of them, and no process that a command spawns imports more than this file.
"""

import ast
import difflib
import importlib
import sys
from pathlib import Path

from emsam_jax.command_line import HELP, run, show, two_columns

MODULES = {
    "prepare": "prepare.__main__",
    "verify": "volumes.verify.__main__",
    "ingest": "volumes.ingest.__main__",
    "convert": "commands.convert",
    "train": "commands.train",
    "eval": "commands.eval",
    "segment": "commands.segment",
    "objects": "commands.objects",
    "view": "view.__main__",
    "push": "sharing.push",
    "export": "commands.export",
    "demo": "demo",
}


def main() -> None:
    """Runs the command that the first word names, as `emsam train --config=...`."""
    name, *line = sys.argv[1:] or ["--help"]
    if name in HELP:
        show(list_commands())
    elif name == "--version":
        from importlib.metadata import version  # which takes as long to import as all of this

        print(f"emsam-jax {version('emsam-jax')}")
    elif name in MODULES:
        call(name, line, called=f"emsam {name}")
    else:
        close = difflib.get_close_matches(name, MODULES, 1)
        advice = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(MODULES)}"
        sys.exit(f"emsam: there is no command {name!r}; {advice} (see emsam --help)")


def call(name: str, line: list[str] | None = None, called: str = "") -> None:
    """Runs a command with the words of a line: by default those of this process, a script of the command's own."""
    command = importlib.import_module(f"emsam_jax.{MODULES[name]}")
    command.define_flags()
    run(command.main, command.__doc__, line, called)


def list_commands() -> str:
    """The page of `emsam --help`."""
    entries = (two_columns(name, purpose(module), 12) for name, module in MODULES.items())
    return "\n".join(
        (
            "usage: emsam COMMAND [--flag=value ...]\n",
            "Commands, in the order of the work:",
            *entries,
            "\nemsam COMMAND --help shows its flags and examples; emsam --version the version.",
        )
    )


def purpose(module: str) -> str:
    """The first line of a command's page, read without importing what the command imports."""
    file = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
