"""Edits on the fragments of one run: where their points lie, what became of each, and the report of it."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from emsam_jax.errors import UserError
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.tables import look_up, write_file
from emsam_jax.segmentation.edits import Edit, Point
from emsam_jax.storage import Field, open_folder, read_key
from emsam_jax.volumes import Box, Volume

HELD, APPLIED, IMPOSSIBLE = "held", "applied", "impossible"
REPORT_KEYS = ("edits_report.json", "edits_report.csv")
_ENDS = ("a", "b")
_COLUMNS = (
    *("id", "kind", "author", "time", "status", "fragment_a", "fragment_b", "object_a", "object_b"),
    *("against", "why", "points_zyx_nm"),
)
_SHOWN = 20  # edits that could not be fulfilled, on the screen


@dataclasses.dataclass
class PlacedEdit:
    """An edit with the fragments at its points, 0 where there is none, and what became of it."""

    edit: Edit
    fragments: tuple[int, ...]
    why: str = ""  # it is impossible: a sentence
    against: str = ""  # id of the edit that it contradicts
    held: bool = False  # without any edit
    objects: tuple[int, ...] = ()

    @property
    def status(self) -> str:
        return IMPOSSIBLE if self.why else HELD if self.held else APPLIED

    def refuse(self, reason: str, against: Edit | None = None) -> None:
        self.why, self.against = f"{describe(self.edit)} {reason}", against.id if against else ""

    def allow(self) -> None:
        self.why = self.against = ""

    def to_row(self) -> dict[str, Any]:
        row = dict.fromkeys(_COLUMNS, "") | dataclasses.asdict(self.edit)
        row |= {"status": self.status, "against": self.against, "why": self.why}
        row |= {f"fragment_{end}": each for end, each in zip(_ENDS, self.fragments, strict=False)}
        row |= {f"object_{end}": each for end, each in zip(_ENDS, self.objects, strict=False)}
        return {name: row[name] for name in _COLUMNS}


def describe(edit: Edit) -> str:
    return f"{edit.kind.capitalize()} {edit.id} by {edit.author or 'nobody'} ({edit.time})"


def place_edits(job: Job, edits: Sequence[Edit]) -> list[PlacedEdit]:
    """Finds the fragments at the points of edits; reads these voxels alone."""
    volume, points = job.open_fragments(), [point for edit in edits for point in edit.points_zyx_nm]
    voxels = np.array([voxel_of(volume, point) for point in points], np.int64).reshape(-1, 3)
    inside = np.all((voxels >= 0) & (voxels < volume.shape), axis=1)
    pieces = np.zeros(len(points), np.uint64)
    pieces[inside] = read_pieces(job, volume, voxels[inside])
    names, index = np.unique(np.append(pieces, np.uint64(0)), return_inverse=True)
    fragments = np.concatenate([np.zeros(1, np.uint64), look_up(job.graph, names[1:], "pieces")])[index[:-1]]
    found, placed = iter(zip(points, inside.tolist(), fragments.tolist(), strict=True)), []
    for edit in edits:
        own = [next(found) for _ in edit.points_zyx_nm]
        one = PlacedEdit(edit, tuple(fragment for _, _, fragment in own))
        if edit.kind == "part" and one.fragments[0] == one.fragments[1]:
            one.refuse(f"has both points in fragment {one.fragments[0]}, which cannot be cut.")
        for point, there, fragment in own:
            at = f"has a point at {', '.join(f'{each:g}' for each in point)} nm (z, y, x),"
            if not there:
                one.refuse(f"{at} outside the volume: expected {_extent(volume)}.")
            elif not fragment:
                one.refuse(f"{at} which is background: expected a point in an object.")
        placed.append(one)
    return placed


def voxel_of(volume: Volume, point: Point) -> list[int]:
    sides = zip(point, volume.offset_zyx, volume.voxel_size_zyx, strict=True)
    return [int(np.clip((at - first) // size, -1, 1 << 60)) for at, first, size in sides]


def read_pieces(job: Job, volume: Volume, voxels: Int64[np.ndarray, "n 3"]) -> UInt64[np.ndarray, " n"]:
    ids = volume.read_voxels(voxels).astype(np.uint64)
    for row, (z, y, x) in enumerate(voxels.tolist() if job.given and job.mask else []):
        mask = job.read_mask(Box((z, y, x), (z + 1, y + 1, x + 1)))
        ids[row] *= np.uint64(mask is None or mask.all())
    return ids


def _extent(volume: Volume) -> str:
    sides = zip(volume.offset_zyx, volume.shape, volume.voxel_size_zyx, strict=True)
    return ", ".join(f"{first:g} to {first + count * size:g}" for first, count, size in sides) + " nm"


def write_report(url: str, placed: Sequence[PlacedEdit]) -> list[str]:
    """Writes `edits_report.json` and `.csv`, an edit a row, and returns their checksums."""
    rows = [one.to_row() for one in placed]
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    contents = json.dumps(rows, indent=1) + "\n", table.getvalue()
    return [write_file(url, key, text.encode()) for key, text in zip(REPORT_KEYS, contents, strict=True)]


class EditsReport(NamedTuple):
    held: int  # already, without any edit
    applied: int
    impossible: list[str]  # why, a sentence for each

    def __str__(self) -> str:
        lines = [f"Edits: {self.held} held already, {self.applied} applied, {len(self.impossible)} impossible."]
        lines += [f"  {why}" for why in self.impossible[:_SHOWN]]
        if len(self.impossible) > _SHOWN:
            lines.append(f"  and {len(self.impossible) - _SHOWN} more")
        return "\n".join(lines)


def read_edits_report(url: str) -> EditsReport:
    content = read_key(open_folder(url), REPORT_KEYS[0])
    if content is None:
        raise UserError(f"{url}: expected {REPORT_KEYS[0]} beside labels made with edits, found none; make them anew.")
    rows = [(row["status"].text, row["why"].text) for row in Field.parse(content, f"{url}/{REPORT_KEYS[0]}")]
    held, applied = ([status for status, _ in rows].count(name) for name in (HELD, APPLIED))
    return EditsReport(held, applied, [why for status, why in rows if status == IMPOSSIBLE])
