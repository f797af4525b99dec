"""Opens what a finished segmentation left: its fragments, their tables by block, and the object of each piece."""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

from emsam_jax.blocks import Block, Ledger, Plan, plan_blocks, read_facts
from emsam_jax.errors import UserError
from emsam_jax.segmentation.blockwise.stage_2_edges import counts_key, edges_key, links_key
from emsam_jax.segmentation.blockwise.tables import EDGE, LINK, LOOKUP, OBJECT, Table, look_up, read_table
from emsam_jax.storage import normalise, open_folder, read_key
from emsam_jax.volumes import Volume, box_of, open_volume


@dataclasses.dataclass(frozen=True)
class Segmented:
    """A finished run, picklable. A piece is what a block holds of a fragment; `fragments/` has their ids."""

    labels: str  # URL, of the lookup too
    graph: str  # URL of the fragments and the tables of their blocks
    plan: Plan
    recipe: str  # such as waterz-0.5
    content: str  # checksum of the lookup

    def facts(self) -> dict[str, Any]:
        """Returns what identifies the work on its blocks."""
        shapes = {"shape": list(self.plan.region.shape), "blocks": list(self.plan.block)}
        return {"labels": self.labels, "lookup": self.content, **shapes}

    def open_fragments(self) -> Volume:
        return open_volume(f"{self.graph}/fragments")

    def read_pieces(self) -> Table:
        """Reads the pieces that belong to objects, in increasing order, and the object of each."""
        lookup = read_table(self.labels, "lookup.npy", LOOKUP)
        return lookup[lookup["label"] > 0]

    def find_objects(self, pieces: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
        """Returns the objects of pieces in increasing order, 0 for what is none, from the pages that hold them."""
        return look_up(self.labels, pieces)

    def read_edges(self, block: Block) -> Table:
        """Reads the edges between pieces that belong to the block: those whose second voxels lie in it."""
        return read_table(self.graph, edges_key(block), EDGE)

    def read_links(self, block: Block) -> Table:
        """Reads the pairs of pieces that are one fragment, across the faces before the block."""
        return read_table(self.graph, links_key(block), LINK)

    def list_pieces(self, block: Block) -> UInt64[np.ndarray, " n"]:
        return read_table(self.graph, counts_key(block), OBJECT)["id"]

    def number_of(self, pieces: UInt64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of the block that each piece lies in, in the plan's order."""
        return ((pieces - np.uint64(1)) // np.uint64(math.prod(self.plan.block))).astype(np.int64)


def open_segmented(url: str) -> Segmented:
    """Opens the output of `emsam segment`; raises where it is not finished."""
    labels = normalise(url)
    facts, ledger = read_facts(f"{labels}/ledger", "labels"), Ledger.existing(f"{labels}/ledger", "lookup")
    if facts is None or ledger is None:
        raise UserError(f"{url}: expected labels of emsam segment, found no ledger of theirs; name its --out.")
    whole = box_of(facts.sides("shape"))
    plan = plan_blocks(whole, whole, facts.sides("blocks"), (1, 1, 1))
    stored, entry = (
        Ledger.existing(f"{labels}/ledger", "labels"),
        ledger.entry(Plan(whole, whole, whole.shape).at((0, 0, 0))),
    )
    if entry is None or stored is None or stored.status().done < len(plan):
        raise UserError(f"{url}: expected finished labels, found a run that was stopped; call emsam segment again.")
    if (given := facts.text("fragments")) not in ("watershed", "components"):
        raise UserError(f"{url}: expected fragments that emsam segment made, found ones from {given}.")
    here = read_key(open_folder(labels), "pieces.npy") is not None
    recipe = f"{facts.text('method')}-{facts.get('threshold'):g}"
    return Segmented(labels, labels if here else facts.text("graph"), plan, recipe, entry.checksum)
