"""Corrections of a segmentation by places in nm: `edits.jsonl`, a file that is only ever appended to."""

import dataclasses
import datetime
import fcntl
import json
import math
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from emsam_jax.errors import UserError
from emsam_jax.storage import Field, normalise, open_folder, read_key, split_last

# Two points belong together, or do not; a point's object is finished; an earlier edit counts no more.
POINTS = {"join": 2, "part": 2, "done": 1, "undo": 0}
_ID = re.compile("[0-9a-f]{12}")
Point = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Edit:
    id: str  # 12 hexadecimal digits
    kind: str
    points_zyx_nm: tuple[Point, ...]  # in the world, the volume's offset included
    author: str
    time: str  # ISO 8601, with its zone
    undoes: str = ""  # id of an earlier edit

    def __post_init__(self) -> None:
        named = f"Edit {self.id}"
        if not _ID.fullmatch(self.id):
            raise UserError(f"Expected an edit's id of 12 hexadecimal digits, found {self.id!r:.40}.")
        if self.kind not in POINTS:
            raise UserError(f"{named}: expected one of {', '.join(POINTS)} as its kind, found {self.kind!r:.40}.")
        if len(self.points_zyx_nm) != POINTS[self.kind]:
            raise UserError(
                f"{named}: expected {POINTS[self.kind]} points of a {self.kind}, found {len(self.points_zyx_nm)}."
            )
        if not all(len(point) == 3 and all(map(math.isfinite, point)) for point in self.points_zyx_nm):
            raise UserError(f"{named}: expected points of three finite numbers, found {self.points_zyx_nm}.")
        try:
            zone = datetime.datetime.fromisoformat(self.time).tzinfo
        except ValueError:
            zone = None
        if zone is None:
            raise UserError(
                f"{named}: expected a time with its zone, as 2026-11-22T03:40:00+00:00, found {self.time!r:.40}."
            )
        if bool(self.undoes) != (self.kind == "undo"):
            raise UserError(f"{named}: expected what it undoes of an undo, and of no other, found {self.undoes!r:.40}.")

    def to_json(self) -> str:
        values = dataclasses.asdict(self)
        return json.dumps(values if self.undoes else {name: values[name] for name in values if name != "undoes"})

    @classmethod
    def parse(cls, field: Field) -> "Edit":
        points = (tuple(point.numbers(3)) for point in field["points_zyx_nm"])
        undoes = field["undoes"].text if "undoes" in field else ""
        id_, kind, author, time = (field[name].text for name in ("id", "kind", "author", "time"))
        return cls(id_, kind, tuple((z, y, x) for z, y, x in points), author, time, undoes)


def new_edit(kind: str, points: Iterable[Iterable[int | float]], author: str, undoes: str = "") -> Edit:
    """Makes an edit of now, with an id of its own."""
    places = tuple((float(z), float(y), float(x)) for z, y, x in points)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Edit(secrets.token_hex(6), kind, places, author, now, undoes)


def read_edits(path: str | Path) -> tuple[Edit, ...]:
    """Reads all edits in their order, undone ones too; tells of a last line that its writer did not finish."""
    url = normalise(str(path))
    folder, name = split_last(url)
    content = read_key(open_folder(folder), name)
    if content is None:
        raise UserError(f"{url}: expected a file of edits, found none.")
    found = _parse(content, url)
    if found.torn:
        print(f"{url}: its last line, {found.torn[:40]!r}, was not written to its end and is skipped.", file=sys.stderr)
    return found.edits


def append_edit(path: str | Path, edit: Edit) -> None:
    """Appends one line durably, in place of a last one that its writer did not finish; makes the file if need be.

    Processes of one machine may append to it at once.
    """
    place = Path(path)
    with place.open("ab+") as file:  # always writes to the end
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        file.seek(0)
        content = file.read()
        found = _parse(content, str(place))
        _check_new(edit, {each.id for each in found.edits}, str(place))
        if found.torn:
            file.truncate(len(content) - len(found.torn))
        glue = b"\n" if content and not found.torn and not content.endswith(b"\n") else b""
        file.write(glue + edit.to_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def in_force(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Returns joins, parts and dones that are not undone; an undo may be undone itself."""
    return tuple(reversed(list(_in_force(reversed(tuple(edits))))))


def _in_force(last_first: Iterable[Edit]) -> Iterator[Edit]:
    undone = set()
    for edit in last_first:
        if edit.id in undone:
            continue
        if edit.undoes:
            undone.add(edit.undoes)
        else:
            yield edit


class _Parsed(NamedTuple):
    edits: tuple[Edit, ...]
    torn: bytes  # the last line, where it has no end


def _parse(content: bytes, url: str) -> _Parsed:
    edits: dict[str, Edit] = {}
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{url}, line {number}"
        try:
            field = Field.parse(line, where)
        except UserError:
            if number == len(lines) and line.startswith(b"{"):
                return _Parsed(tuple(edits.values()), line)
            raise
        try:
            edit = Edit.parse(field)
        except UserError as error:
            raise error if str(error).startswith(url) else UserError(f"{where}: {error}") from None
        _check_new(edit, edits.keys(), where)
        edits[edit.id] = edit
    return _Parsed(tuple(edits.values()), b"")


def _check_new(edit: Edit, known: Iterable[str], where: str) -> None:
    if edit.id in known:
        raise UserError(f"{where}: expected an id of its own for each edit, found {edit.id} twice.")
    if edit.undoes and edit.undoes not in known:
        raise UserError(f"{where}: edit {edit.id} undoes {edit.undoes}, but no edit before it has this id.")
