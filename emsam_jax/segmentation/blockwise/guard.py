"""Merges of two large objects, held to a stricter score: a false one joins whole neurons, and more of them the rest."""

import dataclasses
import heapq

import numpy as np
from bioimage_cpp.utils import UnionFind
from jaxtyping import Int64

from emsam_jax.segmentation.blockwise.agglomeration import agglomerate_edges, as_lookup
from emsam_jax.segmentation.blockwise.merging import merge_edges, rename_edges
from emsam_jax.segmentation.blockwise.tables import Table
from emsam_jax.segmentation.checks import SegmentationError
from emsam_jax.segmentation.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Guard:
    size: int  # voxels from which on an object is large
    threshold: float  # of merges of two large objects; all others have the recipe's

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.threshold < 1:
            raise SegmentationError(f"A guard wants a size from 1 voxel up, a threshold between 0 and 1, not {self}.")


def check_guard(guard: Guard, recipe: Recipe) -> None:
    if (recipe.method, recipe.scorer) != ("waterz", "mean"):
        raise SegmentationError(
            f"A guard is for waterz with mean, but the recipe is {recipe.method} with {recipe.scorer}: leave it out."
        )
    if guard.threshold >= recipe.threshold:
        raise SegmentationError(
            f"A guard is stricter than the recipe, whose threshold is {recipe.threshold}, but has {guard.threshold}: "
            "lower it."
        )


def agglomerate_guarded(edges: Table, fragments: Table, threshold: float, guard: Guard) -> Table:
    """Average linkage in which two objects of `guard.size` voxels merge at its threshold only; as `agglomerate_edges`.

    Each object of the agglomeration without a guard that is large enough to hold two such is made anew from its own
    edges, so that guarded objects are parts of unguarded ones. Linkage never gets stronger by merging: what merges at
    the stricter threshold comes first, and is left to the quick agglomeration.
    """
    strict, lenient = agglomerate_edges(edges, fragments["id"], [guard.threshold, threshold])
    part = strict["label"].astype(np.int64) - 1
    sizes = np.bincount(part, fragments["voxels"], len(fragments)).astype(np.int64)
    owner = np.zeros(len(fragments), np.int64)  # of each part; there are no more of them than fragments
    owner[part] = lenient["label"]
    anew = (np.bincount(owner, sizes, len(fragments) + 1) >= 2 * guard.size)[owner]
    inside = rename_edges(edges, strict)
    u, v = (inside[end].astype(np.int64) - 1 for end in "uv")
    inside = merge_edges([inside[(owner[u] == owner[v]) & anew[u]]])
    nodes = np.where(anew, len(fragments) + 1 + join_parts(inside, sizes, threshold, guard.size), owner)
    return as_lookup(fragments["id"], nodes[part].astype(np.uint64))


def join_parts(edges: Table, sizes: Int64[np.ndarray, " n"], threshold: float, large: int) -> Int64[np.ndarray, " n"]:
    """A number for each part, from 0, of what it ends in; two that are both large stay apart. Parts count from 1."""
    neighbours: dict[int, dict[int, tuple[float, int]]] = {}
    queue = []

    def connect(one: int, other: int, total: float, size: int) -> None:
        neighbours.setdefault(one, {})[other] = neighbours.setdefault(other, {})[one] = (total, size)
        if total / size > 1 - threshold:
            heapq.heappush(queue, (-total / size, min(one, other), max(one, other)))

    for u, v, mean, size in edges.tolist():
        connect(u - 1, v - 1, mean * size, size)
    union, sizes = UnionFind(len(sizes)), sizes.copy()
    while queue:
        mean, one, other = heapq.heappop(queue)
        total, size = neighbours.get(one, {}).get(other, (0.0, 1))
        if -total / size != mean or min(sizes[one], sizes[other]) >= large:
            continue  # an edge that is no more as it was, or one that will never be allowed, since parts only grow
        if len(neighbours[one]) < len(neighbours[other]):
            one, other = other, one
        union.merge(np.array([[one, other]], np.uint64))
        sizes[one] += sizes[other]
        del neighbours[one][other]
        for third, (total, size) in neighbours.pop(other).items():
            if third != one:
                del neighbours[third][other]
                more, places = neighbours[one].get(third, (0.0, 0))
                connect(one, third, total + more, size + places)
    return np.asarray(union.element_labeling()).astype(np.int64)
