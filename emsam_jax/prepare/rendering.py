"""Writes a prepared experiment: as Python with the reason above each choice, or as JSON of what differs."""

import dataclasses
import json
import re
import textwrap
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import emsam_jax.config
from emsam_jax.config import Config, DeclaredVolume, to_dict
from emsam_jax.volumes import Box

_WIDTH = 88  # ruff's own; what is longer is put on lines of its own
_TAB = "    "
_TOGETHER = 3  # items that stand on one line where it holds them


class Call(NamedTuple):
    """An expression whose items stand on lines of their own: `head(items)tail`."""

    head: str
    items: Sequence[str]
    tail: str = ""


class Setting(NamedTuple):
    field: str  # of Config, by its path
    value: Any  # of the field; of a dataclass, a mapping of the fields that are chosen
    reason: str
    code: Call | str | None = None  # in Python, in place of the value


class Source(NamedTuple):
    """A volume, and the parts of it that training, validation and test use, each with what it holds."""

    constant: str  # its name in Python
    volume: DeclaredVolume
    reasons: Mapping[str, str]  # by field
    sections: Sequence[tuple[int, int]] = ()  # outside of these, [start, stop), nothing is labelled; empty: anywhere
    shape: tuple[int, int, int] = (1, 1, 1)  # of the raw


class Portion(NamedTuple):
    source: Source
    role: str  # train, validation, test
    box: Box
    holds: str

    @property
    def declared(self) -> DeclaredVolume:
        volume = self.source.volume
        return dataclasses.replace(volume, name=f"{volume.name} {self.box}", roi=str(self.box))


def config_of(name: str, choices: Iterable[Setting], used: Iterable[Portion]) -> Config:
    config = dataclasses.replace(Config(), name=name)
    for choice in choices:
        config = _put(config, choice.field.split("."), choice.value)
    parts: dict[str, list[DeclaredVolume]] = {}
    for one in used:
        parts.setdefault(one.role, []).append(one.declared)
    return _put(config, ["data"], {role: tuple(volumes) for role, volumes in parts.items()})


def as_json(config: Config) -> str:
    text = json.dumps(_differing(to_dict(config), to_dict(Config())), indent=2) + "\n"
    return re.sub(
        r"\[[-\d.,\s]+\]", lambda numbers: " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]"), text
    )


def as_python(header: str, name: str, choices: Sequence[Setting], used: Sequence[Portion]) -> str:
    volumes = "\n\n".join(_volume(source) for source in {one.source.constant: one.source for one in used}.values())
    body = "\n".join(_body(name, choices, used))
    helpers = [_SECTIONS] if any(one.source.sections for one in used) else []
    code = "\n\n\n".join(
        (*helpers, volumes, f"def get_config() -> Config:\n{_TAB}return Config(\n{body}\n{_TAB})", _PART)
    )
    bare = re.sub(r"^ *#.*$", "", code, flags=re.MULTILINE)
    exported = [word for word in emsam_jax.config.__all__ if re.search(rf"\b{word}\b", bare)]
    ordered = sorted(exported, key=lambda word: (not word.isupper(), not word[0].isupper(), word))
    modules = "\n".join(f"import {module}" for module in ("dataclasses", "json") if f"{module}." in code)
    imports = "\n".join(("from emsam_jax.config import (", *(f"{_TAB}{word}," for word in ordered), ")"))
    return f'"""{header}"""\n\n{modules}\n\n{imports}\n\n{code}\n'


_PART = """\
def _part(volume: DeclaredVolume, roi: str) -> DeclaredVolume:
    return dataclasses.replace(volume, name=f"{volume.name} {roi}", roi=roi)"""
_SECTIONS = '''\
def _sections(shape: tuple[int, int, int], *spans: tuple[int, int]) -> str:
    """Returns a mask in TensorStore's JSON: labels count in these sections [start, stop)."""
    there = [int(any(a <= z < b for a, b in spans)) for z in range(shape[0])]
    across = {"input_shape": list(shape), "output": [{"input_dimension": 0}]}
    spec = {"driver": "array", "dtype": "uint8", "array": there, "transform": across}
    return json.dumps(spec)'''


def _volume(source: Source) -> str:
    lines = [f"{source.constant} = DeclaredVolume("]
    usual = DeclaredVolume()
    for field in dataclasses.fields(DeclaredVolume):
        value = getattr(source.volume, field.name)
        code: Call | str | None = None
        if field.name == "mask" and source.sections:
            code = Call("_sections", [repr(source.shape), *(repr(tuple(span)) for span in source.sections)])
        elif value == getattr(usual, field.name) and field.name not in source.reasons:
            continue
        lines += _assigned(field.name, code or _code(value), source.reasons.get(field.name, ""), 1)
    return "\n".join((*lines, ")"))


def _body(name: str, choices: Sequence[Setting], used: Sequence[Portion]) -> list[str]:
    lines = [f'{_TAB * 2}name="{name}",']
    groups: dict[str, list[Setting]] = {"model": [], "data": []}
    for choice in choices:
        groups.setdefault(choice.field.partition(".")[0], []).append(choice)
    for group, members in groups.items():
        own = [choice for choice in members if choice.field == group]
        for choice in own:
            lines += _assigned(group, choice.code or _code(choice.value, _class_of(group)), choice.reason, 2)
        inner = [] if own else members
        parts = list(used) if group == "data" else []
        if not inner and not parts:
            continue
        lines.append(f"{_TAB * 2}{group}={_class_of(group)}(")
        for role in dict.fromkeys(one.role for one in parts):
            lines += _parts(role, [one for one in parts if one.role == role])
        for choice in inner:
            code = choice.code or _code(choice.value, _class_of(choice.field))
            lines += _assigned(choice.field.partition(".")[2], code, choice.reason, 3)
        lines.append(f"{_TAB * 2}),")
    return lines


def _parts(role: str, parts: Sequence[Portion]) -> list[str]:
    items = [f'_part({one.source.constant}, "{one.box}")' for one in parts]
    lines = [line for one in parts for line in _comment(one.holds, 3)]
    one_line = f"{_TAB * 3}{role}=({items[0]},),"
    if len(items) == 1 and len(one_line) <= _WIDTH:
        return [*lines, one_line]
    return [*lines, f"{_TAB * 3}{role}=(", *(f"{_TAB * 4}{item}," for item in items), f"{_TAB * 3}),"]


def _assigned(name: str, code: Call | str, reason: str, depth: int) -> list[str]:
    tab = _TAB * depth
    lines = _comment(reason, depth)
    if isinstance(code, str):
        return [*lines, f"{tab}{name}={code},"]
    one_line = f"{tab}{name}={code.head}({', '.join(code.items)}){code.tail},"
    if len(code.items) <= _TOGETHER and len(one_line) <= _WIDTH:
        return [*lines, one_line]
    items = (f"{tab}{_TAB}{item}," for item in code.items)
    return [*lines, f"{tab}{name}={code.head}(", *items, f"{tab}){code.tail},"]


def _code(value: Any, kind: str = "") -> Call | str:
    if isinstance(value, Mapping):
        return Call(kind, [f"{name}={_literal(each)}" for name, each in value.items()])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        usual = type(value)()
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        chosen = {name: each for name, each in fields.items() if each != getattr(usual, name)}
        return Call(type(value).__name__, [f"{name}={_literal(each)}" for name, each in chosen.items()])
    return _literal(value)


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _comment(reason: str, depth: int) -> list[str]:
    lead = f"{_TAB * depth}# "
    return textwrap.wrap(reason, _WIDTH, initial_indent=lead, subsequent_indent=lead, break_long_words=False)


def _class_of(path: str) -> str:
    """Returns the name of the dataclass that a field of Config is."""
    kind: Any = Config
    for name in path.split("."):
        kind = typing.get_type_hints(kind)[name]
    return getattr(kind, "__name__", "")


def _put(config: Any, path: Sequence[str], value: Any) -> Any:
    name, *rest = path
    old = getattr(config, name)
    if rest:
        value = _put(old, rest, value)
    elif isinstance(value, Mapping):
        value = dataclasses.replace(old, **value)
    return dataclasses.replace(config, **{name: value})


def _differing(fields: Any, usual: Any) -> Any:
    if not isinstance(fields, dict):
        if isinstance(fields, list) and fields and isinstance(fields[0], dict):
            return [_differing(item, json.loads(json.dumps(dataclasses.asdict(DeclaredVolume())))) for item in fields]
        return fields
    return {name: _differing(value, usual[name]) for name, value in fields.items() if value != usual[name]}
