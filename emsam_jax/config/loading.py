"""Reads configs from files and command lines: `--config=file.py[:variant]`, `--config.optim.peak_lr=5e-5`, config.json.

A config file has `get_config(variant)`; those of emsam_jax/configs are found by their names too. An override names a
field by its path, with [i] for an item of a list.
"""

import ast
import contextlib
import dataclasses
import difflib
import inspect
import json
import re
import runpy
import traceback
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from emsam_jax.config.experiment import Config
from emsam_jax.config.limits import ANY, LIMITS, numbers_of
from emsam_jax.errors import UserError

PREFIX = "--config."
_SHIPPED = Path(__file__).parents[1] / "configs"
_FIELD = re.compile(r"\w+(\[\d+\])*(\.\w+(\[\d+\])*)*")


class _Text(str):
    """A value from the command line, whose type is that of its field."""

    __slots__ = ()


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """Loads `file.py[:variant]`, `name[:variant]` or `config.json`, and applies `--config.field=value` in order."""
    return _overridden(_from_json(path) if path.endswith(".json") else _from_python(path), overrides)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """Applies `--config.field=value` in order."""
    return _overridden(to_dict(config), overrides)


def _overridden(fields: dict[str, Any], overrides: Sequence[str]) -> Config:
    for text in overrides:
        name, equals, value = text.removeprefix(PREFIX).partition("=")
        if not equals or not _FIELD.fullmatch(name):
            raise UserError(f"{_shown(text)[1:-1]}: expected {PREFIX}field=value, such as {PREFIX}optim.steps=1000.")
        _put(fields, re.findall(r"[^.\[\]]+", name), _Text(value), "config")
    return from_dict(fields)


def to_dict(config: Config) -> dict[str, Any]:
    """Converts a config to plain values, as config.json holds them."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(fields: Any) -> Config:
    """Converts plain values to a config; checks the type of every field and the limits of every number."""
    config = _typed(fields, Config, "config")
    for name, value in numbers_of(config):
        limit = LIMITS.get(re.sub(r"\[\d+\]", "[]", name), ANY)
        if not limit.holds(value):
            raise UserError(f"config.{name}: expected {limit}, found {value}.")
    return config


def differences(one: Any, other: Any, path: str = "config") -> list[tuple[str, Any, Any]]:
    """Lists (field, value of one, value of the other) wherever two configs, as plain values, differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for name in sorted(one.keys() | other.keys())
            for found in differences(one.get(name), other.get(name), f"{path}.{name}")
        ]
    return [] if one == other else [(path, one, other)]


def _from_python(path: str) -> dict[str, Any]:
    name, _, variant = path.partition(":")
    file = _find(name)
    with _running(file):
        get_config = runpy.run_path(file).get("get_config")
    if not callable(get_config):
        raise UserError(f"{file}: expected a function get_config in it; emsam_jax/configs has examples.")
    parameters = inspect.signature(get_config).parameters.values()
    variants = [name for parameter in parameters for name in typing.get_args(parameter.annotation)]
    needed = any(parameter.default is inspect.Parameter.empty for parameter in parameters)
    if (variant or needed) and variant not in variants:
        raise UserError(f"{file}: expected one of the variants {', '.join(variants) or '(none)'}; found {variant!r}.")
    with _running(file):
        config = get_config(variant) if variant else get_config()
    if not isinstance(config, Config):
        raise UserError(f"{file}: expected get_config to return a Config, found a {type(config).__name__}.")
    try:
        return to_dict(config)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: expected plain values in its fields, found something else: {error}.") from None


def _find(name: str) -> str:
    """The file at this path, else the one of this name that comes with the package."""
    if Path(name).is_file():
        return name
    shipped = {file.stem: str(file) for file in sorted(_SHIPPED.glob("*.py")) if not file.stem.startswith("_")}
    if name in shipped:
        return shipped[name]
    close = difflib.get_close_matches(Path(name).stem, shipped, 1)
    advice = f"did you mean {close[0]!r}?" if close else f"or one of {', '.join(shipped)}."
    raise UserError(f"--config: expected a config file, found none at {_shown(name)}; {advice}")


@contextlib.contextmanager
def _running(file: str) -> Iterator[None]:
    """Raises UserError, with file and line, for whatever a config's own code raises."""
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        said = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        where = file if line is None else f"{file}, line {line}"
        raise UserError(f"{where}: this config cannot be run: {type(error).__name__}: {said}") from None


def _from_json(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"--config={path}: there is no such file.") from None
    except OSError as error:
        raise UserError(f"--config={path}: expected a file, found none that can be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected JSON in UTF-8, found other bytes.") from None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON, found something else: {error}.") from None
    return to_dict(from_dict(fields))


def _put(fields: Any, path: list[str], value: Any, where: str) -> None:
    name, *rest = path
    key: Any = name
    if isinstance(fields, list):
        if not name.isdigit() or int(name) >= len(fields):
            raise UserError(f"{where} has {len(fields)} items, numbered from 0; found [{name}].")
        key, where = int(name), f"{where}[{name}]"
    elif isinstance(fields, dict):
        if name not in fields:
            raise UserError(_unknown(where, name, list(fields)))
        where = f"{where}.{name}"
    else:
        raise UserError(f"{where} is a single value and has no field {name!r}.")
    if rest:
        _put(fields[key], rest, value, where)
    else:
        fields[key] = value


def _unknown(where: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    advice = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}."
    return f"{where} has no field {_shown(name)}; {advice}"


def _shown(value: Any) -> str:
    """On one line, and not all of what is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _typed(value: Any, kind: Any, where: str) -> Any:
    """Converts a value to `kind`, the annotation of a config's field."""
    if dataclasses.is_dataclass(kind):
        return _typed_dataclass(value, kind, where)
    if kind is Any or (kind is str and isinstance(value, str)):
        return str(value) if isinstance(value, _Text) else value
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        for choice in choices:
            if value == choice or (isinstance(value, _Text) and value == str(choice)):
                return choice
        raise UserError(f"{where}: expected one of {', '.join(map(str, choices))}; found {_shown(value)}.")
    if isinstance(value, _Text):
        value = _literal(value)
    if origin in (types.UnionType, typing.Union):
        return value if type(value) in choices else _typed(value, choices[-1], where)
    if origin is tuple and isinstance(value, list | tuple):
        return _typed_items(value, choices, where)
    return _typed_scalar(value, kind, where)


def _typed_items(values: Sequence[Any], kinds: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    kinds = kinds[:1] * len(values) if kinds[-1] is Ellipsis else kinds
    if len(kinds) != len(values):
        raise UserError(f"{where}: expected {len(kinds)} values, found {len(values)}: {_shown(values)}.")
    return tuple(_typed(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(values, kinds, strict=True)))


def _typed_scalar(value: Any, kind: Any, where: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (kind is float or (kind is int and (isinstance(value, int) or value.is_integer()))):
        with contextlib.suppress(OverflowError):
            return kind(value)
    if kind is bool and isinstance(value, bool):
        return value
    named = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, "a list")
    raise UserError(f"{where}: expected {named}, found {_shown(value)}.")


def _typed_dataclass(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected fields of {kind.__name__}, found {_shown(value)}.")
    hints = typing.get_type_hints(kind)
    for name in value:
        if name not in hints:
            raise UserError(_unknown(where, name, list(hints)))
    return kind(**{name: _typed(item, hints[name], f"{where}.{name}") for name, item in value.items()})


def _literal(text: str) -> Any:
    spoken = {"true": True, "false": False, "none": None, "": ""}
    if text.lower() in spoken:
        return spoken[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return str(text)
