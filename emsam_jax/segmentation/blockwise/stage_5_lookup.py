"""Stage 5: agglomerates the graph to a table of each piece's object, and measures the objects."""

import dataclasses
import json
from typing import Any, NamedTuple

import numpy as np

from emsam_jax.blocks import Block, Entry
from emsam_jax.errors import UserError
from emsam_jax.segmentation.blockwise.corrections import correct_objects, keep_names
from emsam_jax.segmentation.blockwise.global_agglomeration import (
    agglomerate_edges,
    agglomerate_guarded,
    as_lookup,
    number_by_first,
)
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.placed_edits import REPORT_KEYS, place_edits, write_report
from emsam_jax.segmentation.blockwise.stage_4_merges import merges_key
from emsam_jax.segmentation.blockwise.tables import (
    EDGE,
    LOOKUP,
    OBJECT,
    Table,
    are_intact,
    find_rows,
    lookup_keys,
    merge_edges,
    merge_objects,
    read_table,
    read_tables,
    unite,
    write_file,
    write_lookup,
    write_table,
)
from emsam_jax.segmentation.edits import Edit
from emsam_jax.storage import open_folder, read_key

SUMMARY = "summary.json"
_LARGE = 0.3


class Summary(NamedTuple):
    objects: int
    voxels: int  # of all objects
    largest: int  # id
    largest_share: float  # of the voxels

    @property
    def is_suspicious(self) -> bool:
        return self.largest_share > _LARGE

    def __str__(self) -> str:
        if not self.objects:
            return "no objects"
        share = f"{self.largest_share:.1%} of the voxels"
        return f"{self.objects} objects, of which the largest, {self.largest}, holds {share}"


def summarise(objects: Table) -> Summary:
    sizes = objects["voxels"]
    if not len(sizes):
        return Summary(0, 0, 0, 0.0)
    place, total = int(sizes.argmax()), int(sizes.sum())
    return Summary(len(sizes), total, int(objects["id"][place]), float(sizes[place] / total))


def write_summary(url: str, objects: Table) -> str:
    return write_file(url, SUMMARY, json.dumps(summarise(objects)._asdict()).encode())


def read_summary(url: str) -> Summary:
    content = read_key(open_folder(url), SUMMARY)
    if content is None:
        raise UserError(f"{url}: expected {SUMMARY} beside labels made block by block, found none; make them anew.")
    try:
        found = json.loads(content)
        kinds = {"objects": int, "voxels": int, "largest": int, "largest_share": (int, float)}
        if not (found.keys() == kinds.keys() and all(isinstance(found[name], kind) for name, kind in kinds.items())):
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        raise UserError(
            f"{url}/{SUMMARY}: expected {', '.join(Summary._fields)}, found {content!r:.60}; make the labels anew."
        ) from None
    return Summary(**found)


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Has one block, the whole volume."""

    job: Job
    edits: tuple[Edit, ...] = ()
    name: str = "lookup"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_labels()

    def run(self, block: Block) -> str:
        job, out = self.job, self.job.labels.url
        fragments = read_table(job.graph, "fragments.npy", OBJECT)
        lookup, report = self._agglomerate(fragments), []
        if job.edits:
            lookup, report = self._correct(lookup, fragments)
        else:
            drop_small(lookup, fragments, job.recipe.clean_up.min_size)
        objects = merge_objects([as_objects(fragments, lookup)])
        pieces = read_table(job.graph, "pieces.npy", LOOKUP)
        pieces["label"] = lookup["label"][find_rows(lookup["fragment"], pieces["label"], f"{job.graph}/fragments.npy")]
        written = write_lookup(out, pieces), write_table(out, "objects.npy", objects), write_summary(out, objects)
        return ",".join([*written, *report])

    def _agglomerate(self, fragments: Table) -> Table:
        """Merges fragments; where blocks vote, those that all blocks in which they touch have merged."""
        job, recipe = self.job, self.job.recipe
        if job.votes:
            votes = merge_edges(read_tables(job.merges, merges_key, job.plan, EDGE))
            return as_lookup(fragments["id"], unite(fragments["id"], votes[votes["mean"] == 1]))
        edges = read_table(job.graph, "edges.npy", EDGE)
        if job.guard:
            return agglomerate_guarded(edges, fragments, recipe.threshold, job.guard)
        return next(agglomerate_edges(edges, fragments["id"], [recipe.threshold], recipe.method))

    def _correct(self, lookup: Table, fragments: Table) -> tuple[Table, list[str]]:
        """Fulfils the edits; what they do not touch keeps its label. Returns the report's checksums too."""
        job, min_size = self.job, self.job.recipe.clean_up.min_size
        placed = place_edits(job, self.edits)
        objects = correct_objects(placed, read_table(job.graph, "edges.npy", EDGE), lookup)
        drop_small(lookup, fragments, min_size)
        lookup["label"] = keep_names(objects, lookup["label"], fragments["voxels"], min_size)
        for one in placed:
            there = np.array([fragment for fragment in one.fragments if fragment], np.uint64)
            names = iter(lookup["label"][find_rows(lookup["fragment"], there, "Edits")].tolist())
            one.objects = tuple(next(names) if fragment else 0 for fragment in one.fragments)
        return lookup, write_report(job.labels.url, placed)

    def is_intact(self, block: Block, entry: Entry) -> bool:
        keys = (*lookup_keys(), "objects.npy", SUMMARY, *(REPORT_KEYS if self.job.edits else ()))
        return are_intact(self.job.labels.url, keys, entry.checksum)


def drop_small(lookup: Table, fragments: Table, min_size: int) -> None:
    """Turns objects of fewer voxels into background, 0; renumbers the others."""
    labels = lookup["label"].view(np.int64)
    if min_size <= 1 or not len(labels):
        return
    small = np.bincount(labels, fragments["voxels"]) < min_size
    kept = ~small[labels]
    lookup["label"][~kept] = 0
    lookup["label"][kept] = number_by_first(lookup["label"][kept])


def as_objects(fragments: Table, lookup: Table) -> Table:
    """Returns the fragments under their objects' ids, without background."""
    inside = lookup["label"] > 0
    found = fragments[inside]
    found["id"] = lookup["label"][inside]
    return found
