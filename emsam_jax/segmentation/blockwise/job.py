"""What all stages of one segmentation share: inputs, outputs, and the recipe."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from jaxtyping import Bool, Float32, UInt64

from emsam_jax.blocks import Block, Plan, content_of, hash_of, plan_blocks, read_facts
from emsam_jax.errors import UserError
from emsam_jax.segmentation.agglomeration import check_scorer
from emsam_jax.segmentation.blockwise.global_agglomeration import Guard, check_guard
from emsam_jax.segmentation.checks import check_affinities, check_stored
from emsam_jax.segmentation.edits import Edit
from emsam_jax.segmentation.fragments import FragmentParameters
from emsam_jax.segmentation.recipe import Recipe
from emsam_jax.storage import normalise
from emsam_jax.volumes import (
    Box,
    Format,
    Layout,
    Sizes,
    Volume,
    Voxel,
    chunk_for,
    create_array,
    open_volume,
    plan_layout,
    read_nearest,
    shard_for,
    shard_within,
    with_size_of,
)


class Options(TypedDict, total=False):
    """Optional settings of a segmentation; None is the default."""

    fragments: Volume | None  # ids made elsewhere, instead of a watershed of each block
    mask: Volume | None  # voxels where it is 0 stay background
    graph: str | Path | None  # folder of fragments and edges, by default the labels'
    halo: Voxel | None  # voxels around a block that are seen by its watershed
    format: Format | None  # of the labels, by default OME-Zarr
    content: str | None  # what `content_of` gave, where affinities are gone that have served
    guard: Guard | None
    edits: Sequence[Edit] | None  # in force: the labels fulfil all that can be
    queue: int  # decisions that are listed to be looked at; none by default


@dataclasses.dataclass(frozen=True)
class Job:
    """A picklable description of one segmentation: volumes are opened where they are needed."""

    affinities: str  # URL
    mask: str  # URL, or empty
    given: str  # URL of fragments made elsewhere, or empty
    graph: str  # folder of fragments, edges and their ledger
    recipe: Recipe
    halo: Voxel
    guard: Guard | None
    edits: str  # fingerprint, or empty
    queue: int
    plan: Plan
    fragments: Layout
    labels: Layout
    content: str  # of the affinities, and of what is given
    merges: str  # folder of the blocks' votes: the graph's, where its run had the same recipe

    @property
    def whole(self) -> Plan:
        """Plans one block, for stages that hold the tables of all blocks."""
        return Plan(self.plan.volume, self.plan.region, self.plan.region.shape)

    @property
    def joins_voxels(self) -> bool:
        return self.recipe.method == "components"

    @property
    def votes(self) -> bool:
        """Whether blocks vote on merges: quantile scorers need more than an edge's mean, and are approximate."""
        return self.recipe.method == "waterz" and self.recipe.scorer != "mean"

    @property
    def context(self) -> Voxel:
        """Returns the halo in voxels that a block's merges depend on: half a block, within limits."""
        z, y, x = (min(max(side // 2, 32), 64) for side in self.plan.block)
        return z, y, x

    def open_fragments(self) -> Volume:
        return open_volume(self.given) if self.given else create_array(self.fragments, resume=True)

    def open_labels(self) -> Volume:
        return create_array(self.labels, resume=True)

    def read_affinities(self, box: Box) -> Float32[np.ndarray, "3 z y x"]:
        volume = open_volume(self.affinities, channel="all")
        stored = volume[(slice(0, 3), *box.slices)]
        return check_affinities(stored.astype(np.float32) if stored.dtype == np.float16 else stored)  # halves are slow

    def read_mask(self, box: Box) -> Bool[np.ndarray, "z y x"] | None:
        if not self.mask:
            return None
        grid = open_volume(self.affinities, channel="all")
        values, there = read_nearest(grid, with_size_of(grid, open_volume(self.mask)), box)
        return (values != 0) & there

    def read_fragments(self, box: Box) -> UInt64[np.ndarray, "z y x"]:
        """Reads fragments; the mask is applied unless they are this run's own, which have it."""
        ids = np.ascontiguousarray(self.open_fragments().read(box), np.uint64)
        if self.given and (mask := self.read_mask(box)) is not None:
            ids = np.where(mask, ids, np.uint64(0))
        return ids

    def number(self, block: Block) -> int:
        return int(np.ravel_multi_index(block.index, self.plan.counts))

    def facts_of_graph(self) -> dict[str, Any]:
        """Returns what fragments and edges depend on; the threshold is no part of it, except for components."""
        facts: dict[str, Any] = {
            "affinities": self.affinities,
            "shape": list(self.fragments.shape),
            "content": self.content,
            "mask": self.mask,
            "blocks": list(self.plan.block),
            "fragments": self.given or ("components" if self.joins_voxels else "watershed"),
        }
        if self.joins_voxels:
            return facts | {"threshold": self.recipe.threshold}
        return facts if self.given else facts | dataclasses.asdict(self.recipe.fragments) | {"halo": list(self.halo)}

    def facts_of_merges(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"method": self.recipe.method, "threshold": self.recipe.threshold}
        facts |= {"min_object": self.recipe.clean_up.min_size, "graph": self.graph, "format": self.labels.format}
        if self.votes:
            facts |= {"scorer": self.recipe.scorer, "context": list(self.context)}
        if self.guard:
            facts |= {"guard_size": self.guard.size, "guard_threshold": self.guard.threshold}
        return self.facts_of_graph() | facts

    def facts_of_labels(self) -> dict[str, Any]:
        return self.facts_of_merges() | ({"edits": self.edits} if self.edits else {})


def plan_job(
    affinities: Volume, out: str | Path, recipe: Recipe, block: Voxel | None = None, **options: Unpack[Options]
) -> Job:
    """Plans a segmentation; raises where the recipe cannot be followed block by block."""
    fragments, mask, graph = options.get("fragments"), options.get("mask"), options.get("graph")
    content, edits = options.get("content"), options.get("edits")
    halo, guard, format = options.get("halo"), options.get("guard"), options.get("format") or "ome-zarr"  # noqa: A001
    check_recipe(recipe)
    if guard:
        check_guard(guard, recipe)
    check_stored(affinities)
    box = affinities.box
    if fragments is not None:
        if recipe.method == "components":
            raise UserError("Components need no fragments; leave them out, or choose waterz or multicut.")
        if fragments.shape != box.shape or fragments.dtype.kind not in "iu":
            raise UserError(
                f"{fragments.url}: expected integer fragments of the affinities' shape {box.shape}, found "
                f"{fragments.dtype} {fragments.shape}."
            )
    labels_url = normalise(str(out))
    graph_url = normalise(str(graph)) if graph else labels_url
    chunk = chunk_for(box.shape, affinities.voxel_size_zyx)
    if block is None:
        block = usual_block(box.shape, affinities.voxel_size_zyx)
    chunk = _chunk_within(block, chunk, box.shape)
    volumes = [volume for volume in (affinities, fragments, mask) if volume is not None]

    def lay_out(url: str, format: Format) -> Layout:  # noqa: A002
        size, offset = affinities.voxel_size_zyx, affinities.offset_zyx
        shard = shard_within(block, chunk, box.shape, format)
        return plan_layout(url, box.shape, np.uint64, size, offset_zyx=offset, format=format, chunk=chunk, shard=shard)

    pieces, labels = lay_out(f"{graph_url}/fragments", "ome-zarr"), lay_out(labels_url, format)

    job = Job(
        affinities=affinities.url,
        mask=mask.url if mask else "",
        given=fragments.url if fragments else "",
        graph=graph_url,
        recipe=recipe,
        halo=default_halo(recipe.fragments) if halo is None else halo,
        guard=guard,
        edits="" if edits is None else hash_of([edit.to_json() for edit in edits]),
        queue=options.get("queue", 0),
        plan=plan_blocks(box, box, block, pieces.shard),
        fragments=pieces,
        labels=labels,
        content=content or ",".join(content_of(volume.read, box) for volume in volumes),
        merges=labels_url,
    )
    voted = job.votes and read_facts(f"{graph_url}/ledger", "merges") == json.loads(json.dumps(job.facts_of_merges()))
    return dataclasses.replace(job, merges=graph_url) if voted else job


def usual_block(shape: Voxel, voxel_size_zyx: Sizes) -> Voxel:
    """Returns the default block: a shard."""
    return shard_for(shape, chunk_for(shape, voxel_size_zyx))


def check_recipe(recipe: Recipe) -> None:
    if recipe.method not in (methods := ("waterz", "multicut", "components")):
        raise UserError(
            f"Block by block, expected one of {', '.join(methods)}, but found {recipe.method}: choose another recipe."
        )
    check_scorer(recipe.scorer)
    if recipe.clean_up.fill:
        raise UserError(
            "Block by block, background cannot be filled, since the nearest object may lie in any block: "
            "choose a recipe without clean_up.fill."
        )
    if not 0 < recipe.threshold < 1:
        raise UserError(f"Thresholds must lie between 0 and 1, but the recipe's is {recipe.threshold}.")


def default_halo(fragments: FragmentParameters) -> Voxel:
    """Returns the default halo; fragments in sections need none from other sections."""
    return (0, 32, 32) if fragments.kind == "2d" else (16, 16, 16)


def _chunk_within(block: Voxel, usual: Voxel, region: Voxel) -> Voxel:
    """Returns the usual chunk, or the largest smaller one that divides the block."""
    z, y, x = (
        most if own >= side else next(n for n in range(min(most, own), 0, -1) if own % n == 0)
        for own, most, side in zip(block, usual, region, strict=True)
    )
    return z, y, x
