"""Stage 3: the mesh, the skeleton and the measurements of each object of a group."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from emsam_jax.blocks import Block, Entry, Plan
from emsam_jax.errors import UserError
from emsam_jax.objects.catalogue import read_group
from emsam_jax.objects.centreline import trace_object
from emsam_jax.objects.objects_job import ObjectsJob, digest_of, read_files
from emsam_jax.objects.pieces import read_masks
from emsam_jax.objects.precomputed_shapes import (
    encode_centreline,
    encode_manifest,
    encode_surface,
    list_parts,
    name_mesh,
    name_skeleton,
)
from emsam_jax.objects.surface import area_of, count_normals, mesh_pieces
from emsam_jax.segmentation.blockwise import Table, read_table, read_tables, write_table
from emsam_jax.storage import open_folder, read_key, write_keys
from emsam_jax.volumes import Box

# What is measured of an object, in nm; the box is z, y, x, with the volume's offset.
MEASURED = np.dtype(
    [
        ("id", "<u8"),
        ("voxels", "<i8"),
        ("volume", "<f8"),
        ("surface", "<f8"),
        ("start", "<f8", 3),
        ("stop", "<f8", 3),
        ("skeleton", "<f8"),
        ("mean_thickness", "<f8"),
        ("largest_thickness", "<f8"),
    ]
)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Its blocks are groups of objects."""

    job: ObjectsJob
    name: str = "shapes"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_shapes()

    def run(self, block: Block) -> str:
        rows = [self._measure(row, pieces) for row, pieces in read_group(self.job, block)]
        write_table(self.job.out, _measured_key(block), np.array(rows, MEASURED))
        return digest_of(self._contents(block))

    def _measure(self, row: np.void, pieces: Table) -> tuple[Any, ...]:
        """Writes the object's mesh and skeleton, and returns its row of measurements."""
        job, name, folder = self.job, int(row["id"]), open_folder(self.job.out)
        size, offset = np.array(job.voxel_size_zyx), np.array(job.offset_zyx)
        parts, normals, files = 0, np.zeros((), np.int64), {}
        for surface in mesh_pieces(read_masks(job.out, pieces)):
            write_keys(folder, files)  # of a large object, each part before the next is made
            key = list_parts(encode_manifest(name, parts := parts + 1))[-1]
            normals = normals + count_normals(surface)
            files = {key: encode_surface(surface, job.voxel_size_zyx, job.offset_zyx)}
        (z, y, x), (z1, y1, x1) = row["start"].tolist(), row["stop"].tolist()
        line = trace_object(job, read_masks(job.out, pieces), Box((z, y, x), (z1, y1, x1)))
        files |= {name_mesh(name): encode_manifest(name, parts), name_skeleton(name): encode_centreline(line)}
        write_keys(folder, files)
        voxels = int(row["voxels"])
        return (
            *(name, voxels, voxels * float(size.prod()), area_of(normals, job.voxel_size_zyx)),
            *(row["start"] * size + offset, row["stop"] * size + offset),
            *(float(line.lengths.sum()), *line.thickness),
        )

    def is_intact(self, block: Block, entry: Entry) -> bool:
        try:
            return digest_of(self._contents(block)) == entry.checksum
        except (UserError, ValueError, KeyError):
            return False

    def _contents(self, block: Block) -> Iterator[bytes]:
        """Yields all files of the group."""
        out, folder = self.job.out, open_folder(self.job.out)
        rows = read_table(out, _measured_key(block), MEASURED)
        yield rows.tobytes()
        for name in rows["id"].tolist():
            manifest = read_key(folder, name_mesh(name)) or b""
            yield manifest
            yield from read_files(out, [*list_parts(manifest), name_skeleton(name)])


def read_measured(out: str, groups: Plan) -> Table:
    """Reads what was measured of all objects, by increasing ids."""
    rows = np.concatenate([np.zeros(0, MEASURED), *read_tables(out, _measured_key, groups, MEASURED)])
    return rows[np.argsort(rows["id"])]


def _measured_key(block: Block) -> str:
    return f"measured/{block.name}.npy"
