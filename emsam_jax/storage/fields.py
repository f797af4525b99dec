"""Reads metadata that others wrote: a value is taken by its name and kind, and one that does not fit is a sentence."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from emsam_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Field:
    """A value of a metadata file, and the path of fields to it. A missing one is None, and false."""

    value: Any
    file: str
    name: str = ""

    @classmethod
    def parse(cls, content: bytes | str, file: str) -> "Field":
        try:
            return cls(json.loads(content), file)
        except (ValueError, RecursionError):
            raise UserError(f"{file}: expected JSON, found {content[:40]!r}.") from None

    def __bool__(self) -> bool:
        return self.value is not None

    def __getitem__(self, name: str) -> "Field":
        """Returns a field of a mapping, or of nothing."""
        if self and not isinstance(self.value, dict):
            raise self.unlike("a mapping")
        return Field((self.value or {}).get(name), self.file, f"{self.name}.{name}" if self.name else name)

    def __contains__(self, name: str) -> bool:
        return isinstance(self.value, dict) and name in self.value

    def __iter__(self) -> Iterator["Field"]:
        """Yields the elements of a list, or of nothing."""
        if self and not isinstance(self.value, list):
            raise self.unlike("a list")
        return (Field(value, self.file, f"{self.name}[{i}]") for i, value in enumerate(self.value or ()))

    @property
    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.unlike("text")
        return self.value

    @property
    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float | str):
            raise self.unlike("a number")
        try:
            return float(self.value)
        except (ValueError, OverflowError):
            raise self.unlike("a number") from None

    def numbers(self, *counts: int) -> list[float]:
        """Returns the numbers, if there are as many as one of `counts`, or any number of them."""
        found = [field.number for field in self]
        if counts and len(found) not in counts:
            raise self.unlike(f"{' or '.join(map(str, counts))} numbers")
        return found

    def unlike(self, expected: str) -> UserError:
        found, where = repr(self.value), f"{self.file}: {self.name}" if self.name else self.file
        return UserError(f"{where}: expected {expected}, found {found[:80] + '...' * (len(found) > 80)}.")
