"""Stage 2: one table of all objects; for each group of them its own rows, and the pieces that they are made of."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from emsam_jax.blocks import Block, Entry
from emsam_jax.errors import UserError
from emsam_jax.objects.objects_job import ObjectsJob, digest_of, read_files
from emsam_jax.objects.pieces import PIECE, read_objects, read_pieces
from emsam_jax.segmentation.blockwise import OBJECT, Table, find_rows, read_table, write_table

_OBJECTS = "objects.npy"


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Has one block, the whole volume."""

    job: ObjectsJob
    name: str = "catalogue"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_labels()

    def run(self, block: Block) -> str:
        """Deals objects out from the largest down, so that no group has more than its share of large ones."""
        out, objects, pieces = self.job.out, read_objects(self.job), read_pieces(self.job)
        write_table(out, _OBJECTS, objects)
        groups = list(self.job.plan_groups(len(objects)))
        dealt = np.empty(len(objects), np.int64)
        dealt[np.argsort(-objects["voxels"], kind="stable")] = np.arange(len(objects)) % max(1, len(groups))
        place = dealt[find_rows(objects["id"], pieces["id"], f"{out}/{_OBJECTS}")]
        order = np.lexsort((pieces["id"], place))  # stable: an object's pieces stay in the order of blocks
        pieces, place = pieces[order], place[order]
        for number, group in enumerate(groups):
            write_table(out, _members_key(group), objects[dealt == number])
            write_table(out, _pieces_key(group), pieces[slice(*np.searchsorted(place, [number, number + 1]))])
        return digest_of(read_files(out, self._keys(len(objects))))

    def is_intact(self, block: Block, entry: Entry) -> bool:
        try:
            objects = read_table(self.job.out, _OBJECTS, OBJECT)
        except UserError:
            return False
        return digest_of(read_files(self.job.out, self._keys(len(objects)))) == entry.checksum

    def _keys(self, objects: int) -> Iterator[str]:
        yield _OBJECTS
        for group in self.job.plan_groups(objects):
            yield from (_members_key(group), _pieces_key(group))


def read_catalogue(job: ObjectsJob) -> Table:
    """Reads the objects by increasing ids; raises where there is none."""
    objects = read_table(job.out, _OBJECTS, OBJECT)
    if not len(objects):
        raise UserError(f"{job.labels}: expected objects, found none: every voxel is background.")
    return objects


def read_group(job: ObjectsJob, group: Block) -> Iterator[tuple[np.void, Table]]:
    """Yields each object of a group with its pieces, by increasing ids."""
    pieces = read_table(job.out, _pieces_key(group), PIECE)
    for row in read_table(job.out, _members_key(group), OBJECT):
        yield row, pieces[pieces["id"] == row["id"]]


def _members_key(group: Block) -> str:
    return f"groups/{group.name}.npy"


def _pieces_key(group: Block) -> str:
    return f"groups/{group.name}-pieces.npy"
