"""Writes the tables of docs/config.md from the dataclasses, their comments and their limits.

python docs/config_fields.py
"""

import dataclasses
import inspect
import math
import re
import typing
from pathlib import Path
from typing import Any

from emsam_jax.config import Config
from emsam_jax.config.limits import LIMITS, Limit

PAGE = Path(__file__).parent / "config.md"
MARK = "<!-- From here on written by docs/config_fields.py. -->\n"
NAMES = {int: "integer", float: "number", bool: "true, false", str: "text"}


def page() -> str:
    """Returns the page: what is written by hand above the mark, and a table for each dataclass below it."""
    by_hand, mark, _ = PAGE.read_text().partition(MARK)
    return by_hand + mark + "".join(tables(Config, "config"))


def tables(kind: Any, path: str) -> list[str]:
    """Returns the table of a dataclass's own fields, then those of the dataclasses that it holds, in their order."""
    hints, comments = typing.get_type_hints(kind), comments_of(kind)
    rows: list[str] = []
    inner: list[str] = []
    for field in dataclasses.fields(kind):
        place = f"{path}.{field.name}"
        held = held_by(hints[field.name])
        if held is None:
            hint = shown(hints[field.name])
            cells = (f"`{field.name}`", hint, find_limit(place), f"`{default(field)}`", comments[field.name])
            rows.append("| " + " | ".join(cells) + " |")
        elif typing.get_origin(hints[field.name]) is tuple:
            rows.append(f"| `{field.name}` | list of volumes | | `()` | {comments[field.name]} |")
            inner += tables(held, f"{place}[i]") if field.name == "train" else []
        else:
            inner += tables(held, place)
    about = (kind.__doc__ or "").splitlines()[0] if not (kind.__doc__ or "").startswith(kind.__name__ + "(") else ""
    head = "| field | type | range | default | what it is |\n|---|---|---|---|---|\n"
    return [f"\n## {path}\n\n" + (f"{about}\n\n" if about else "") + head + "\n".join(rows) + "\n", *inner]


def comments_of(kind: Any) -> dict[str, str]:
    found = re.findall(r"^    (\w+):[^#\n]*?(?:  # (.+))?$", inspect.getsource(kind), re.MULTILINE)
    return {name: comment.replace("|", "\\|") for name, comment in found}


def held_by(hint: Any) -> Any:
    """Returns the dataclass that a field holds, or a list of which it holds; None for plain values."""
    return next((kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)), None)


def shown(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return f"list of {shown(inner[0])}"
    if origin is tuple:
        return f"{len(inner)} x {shown(inner[0])}"
    return NAMES.get(hint, "number")


def find_limit(place: str) -> str:
    path = place.removeprefix("config.").replace("[i]", "[]")
    limit = next((LIMITS[name] for name in (path, f"{path}[]", f"{path}[][]") if name in LIMITS), Limit())
    if math.isinf(limit.low) or limit.low < -(2**31):
        return ""
    if limit.high >= 2**31 - 1:
        return f"{'>' if limit.open_low else '≥'} {limit.low}"
    return f"{'above ' * limit.open_low}{limit.low} to {'below ' * limit.open_high}{limit.high}"


def default(field: Any) -> Any:
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    return repr(value).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"Written: {PAGE}")
