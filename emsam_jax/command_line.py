"""Commands: their flags in groups, which --help prints as a page, and the ways in which they end.

A command's page is its docstring, whose indented lines are examples, and its flags in the order and the groups in which
it defines them. Examples of `emsam NAME` are shown as the command was called. In a flag's help the words in backquotes
stand for its value.
"""

import contextlib
import difflib
import inspect
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from emsam_jax.errors import EXIT_STOPPED, StoppedError, UserError

try:
    from absl import app, flags, logging
except ModuleNotFoundError as missing:
    sys.exit(
        f"{Path(sys.argv[0]).stem}: {missing.name} is not installed here. Activate the environment "
        "(source .venv/bin/activate), which `make demo` makes, or call .venv/bin/python."
    )

FLAGS = flags.FLAGS
HELP = {"--help", "-help", "--helpshort", "-helpshort", "-h", "-?"}
_WIDTH, _COLUMN = 96, 30
_ENDING = "--helpfull lists absl's flags too, such as --flagfile=FILE, which reads flags from a file."
_OVERRIDE = "--config.FIELD=VALUE"
_OVERRIDE_HELP = """Replace one field of the config, as often as needed: --config.optim.peak_lr=5e-4,
--config.data.train[0].raw=em.zarr. Fields, units and defaults: emsam_jax/config/experiment.py, model.py and
augmentation.py; a field that does not exist is answered with the nearest one that does."""
_groups: dict[str, list[str]] = {}
_arguments: list[str] = []


@contextlib.contextmanager
def group(title: str) -> Iterator[None]:
    """Flags that are defined inside stand under this title."""
    before = set(FLAGS)
    yield
    _groups[title] = [name for name in FLAGS if name not in before]


def define_zyx(
    name: str, kind: Callable[[str], Any], help_text: str, default: tuple[Any, ...] | None = None
) -> flags.FlagHolder[Any]:
    """A flag of three numbers; None where it is not given."""
    return flags.DEFINE(_Numbers(kind, 3), name, default, help_text, serializer=flags.CsvListSerializer(","))


def define_ids(name: str, default: Sequence[int], help_text: str) -> None:
    """A flag of whole numbers, any count of them."""
    flags.DEFINE(_Numbers(int), name, tuple(default), help_text, serializer=flags.CsvListSerializer(","))


def define_config() -> None:
    """The flag of an experiment, whose fields --config.FIELD=VALUE replaces."""
    flags.DEFINE_string(
        "config",
        None,
        "Experiment: a config file, `FILE.py[:VARIANT]`, or one of this package by its name, such as cremi:frozen, or "
        "the config.json of an earlier run.",
    )


def define_arguments(*names: str) -> None:
    """What is no flag, in this order; names of optional ones stand in brackets."""
    _arguments.extend(names)


def required(name: str) -> Any:
    """The value of a flag that has no default."""
    flag = FLAGS[name]
    if not flag.value:
        raise UserError(f"Expected --{name}={_value(flag)}, found none (see --help).")
    return flag.value


def show(page: str) -> NoReturn:
    """Prints a page and exits; in silence where a pipe, as to `head`, takes no more of it."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(page)
    sys.exit()


def run(
    main: Callable[[list[str]], None], page: str | None, line: Sequence[str] | None = None, called: str = ""
) -> None:
    """Parses the line, calls `main` with what is no flag, and exits: 0, 1 after a sentence, 75 if stopped.

    The line is this process's own, unless it is given together with what was `called`, such as `emsam train`. Overrides
    of a config, where the flag --config is defined, are passed to `main` as they stand.
    """
    called, name = (called, called.rpartition(" ")[2]) if called else _program()

    def parse(words: Sequence[str]) -> list[str]:
        if HELP & set(words):
            show(_page(called, inspect.cleandoc(page or "")))
        overrides = [text for text in words if text.startswith("--config.") and "config" in FLAGS]
        try:
            program, *rest = FLAGS([text for text in words if text not in overrides])
        except flags.Error as error:
            sys.exit(f"{name}: {_told(error)} (see --help)")
        _check_count(rest, name)
        if FLAGS["verbosity"].using_default_value:
            FLAGS.verbosity = logging.WARNING  # jax and orbax tell of each of their steps
        return [program, *rest, *overrides]

    words = sys.argv if line is None else [called, *line]
    app.run(lambda rest: _end_in_a_sentence(main, rest[1:], name), words, flags_parser=parse)


def _end_in_a_sentence(main: Callable[[list[str]], None], arguments: list[str], name: str) -> None:
    try:
        main(arguments)
    except StoppedError as stopped:
        print(f"{name}: {stopped}", file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    except UserError as problem:
        sys.exit(f"{name}: {problem}")
    except OSError as problem:
        # A full disk is told without the file; it is where the command writes.
        place = next((FLAGS[flag].value for flag in ("workdir", "out") if flag in FLAGS), None)
        where = problem.filename or place
        said = problem.strerror or str(problem)
        sys.exit(f"{name}: {where} cannot be written or read: {said}." if where else f"{name}: {said}.")


def _told(error: flags.Error) -> str:
    """Names the nearest flag, as absl does; for an override whose beginning is mistyped or missing, the right one."""
    mistyped = getattr(error, "flagname", "")
    first, dot, field = mistyped.partition(".")
    if dot and "config" in FLAGS:
        meant = field if difflib.get_close_matches(first, ["config"]) else mistyped
        return f"Unknown command line flag {mistyped!r}. Did you mean: config.{meant}?"
    return " ".join(str(error).split()).replace(" ?", "?")


def _check_count(found: list[str], name: str) -> None:
    needed = [text for text in _arguments if not text.startswith("[")]
    if len(found) > len(_arguments):
        sys.exit(
            f"{name}: unexpected argument {found[len(_arguments)]!r}: "
            "every option is given as --name=value (see --help)"
        )
    if len(found) < len(needed):
        sys.exit(f"{name}: expected {' '.join(_arguments)}, found {' '.join(found) or 'none'} (see --help)")


def _program() -> tuple[str, str]:
    """As one calls it, and its name in messages."""
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        return f"python {sys.argv[0]}", Path(sys.argv[0]).stem
    module = spec.name.removesuffix(".__main__")
    return f"python -m {module}", module.rpartition(".")[2]


def _page(called: str, text: str) -> str:
    sections = [f"usage: {' '.join((called, *_arguments))} [--flag=value ...]"]
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            shown = re.sub(r"^    emsam \w+", f"    {called}", paragraph, flags=re.MULTILINE)
            examples = textwrap.indent(textwrap.dedent(shown), "  ")
            sections.append(f"Examples:\n{examples}")
        else:
            sections.append(textwrap.fill(paragraph, _WIDTH))
    for title, names in _groups.items():
        entries = [_entry(FLAGS[name]) for name in names]
        if "config" in names:
            entries.insert(names.index("config") + 1, two_columns(_OVERRIDE, _OVERRIDE_HELP))
        sections.append("\n".join((f"{title}:", *entries)))
    return "\n\n".join((*sections, _ENDING))


def _entry(flag: flags.Flag) -> str:
    usual = flag.default_as_str
    # absl puts an enum's choices before the help, and a remark after that of a flag which may be repeated.
    said = re.sub(r"^<.*?>: |;\s+repeat this option.*", "", str(flag.help), flags=re.DOTALL).replace("`", "")
    if flag.boolean:
        return two_columns(f"--[no]{flag.name}" if flag.default else f"--{flag.name}", said)
    if flag.default not in (None, "", (), []):
        said += f" (default: {str(usual).strip(chr(39))})"
    return two_columns(f"--{flag.name}={_value(flag)}", said)


def _value(flag: flags.Flag) -> str:
    """What stands for its value on the page."""
    named = re.search("`(.+?)`", str(flag.help))
    choices = getattr(flag, "enum_values", None) or getattr(flag.parser, "enum_values", None)
    kinds = {"int": "N", "float": "NUMBER"}
    return named[1] if named else "|".join(choices) if choices else kinds.get(flag.flag_type(), "TEXT")


def two_columns(left: str, right: str, column: int = _COLUMN) -> str:
    lines = textwrap.wrap(" ".join(right.split()), _WIDTH - column, break_on_hyphens=False, break_long_words=False)
    if len(left) + 4 > column:
        return "\n".join((f"  {left}", *(" " * column + line for line in lines)))
    first, *others = lines
    return "\n".join((f"  {left}".ljust(column) + first, *(" " * column + line for line in others)))


class _Numbers(flags.ArgumentParser):
    syntactic_help = "numbers with commas between"

    def __init__(self, kind: Callable[[str], Any], count: int | None = None):
        self._kind, self._count = kind, count

    def parse(self, argument: Any) -> tuple[Any, ...] | None:
        if not isinstance(argument, str):
            return argument
        if not argument:
            return None if self._count else ()
        try:
            values = tuple(map(self._kind, argument.split(",")))
        except ValueError:
            values = None
        if values is None or (self._count and len(values) != self._count):
            expected = "three numbers z,y,x" if self._count else "whole numbers with commas between"
            raise ValueError(f"expected {expected}")
        return values

    def flag_type(self) -> str:
        return "z,y,x" if self._count else "ids"
