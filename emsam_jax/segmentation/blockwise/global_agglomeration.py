"""Agglomerates the whole volume's fragments at once, from the table of their edges.

Merges of two large objects are held to a stricter score, since a false one joins whole neurons.
"""

import dataclasses
import heapq
from collections.abc import Iterator, Sequence

import numpy as np
from bioimage_cpp.graph import UndirectedGraph
from bioimage_cpp.graph.agglomeration import GaspClusterPolicy
from bioimage_cpp.utils import UnionFind
from jaxtyping import Int64, UInt64

from emsam_jax.errors import UserError
from emsam_jax.segmentation.blockwise.tables import LOOKUP, Table, find_rows, merge_edges, rename_edges
from emsam_jax.segmentation.checks import check_thresholds
from emsam_jax.segmentation.multicut import cut_edges
from emsam_jax.segmentation.recipe import Recipe


def agglomerate_edges(
    edges: Table, fragments: UInt64[np.ndarray, " n"], thresholds: Sequence[float], method: str = "waterz"
) -> Iterator[Table]:
    """Yields, for each threshold, a table (fragment, label), labels 1..n in the order of each object's first fragment.

    `fragments` are all ids in increasing order, those without an edge too. `waterz` is average linkage, as waterz's
    mean scorer; for `components` each fragment is an object.
    """
    if method not in ("waterz", "multicut", "components"):
        raise UserError(f"Edges are agglomerated by waterz (mean scorer), multicut or components, not by {method!r}.")
    # Node 0 stands for background, as in the region graph of a volume.
    pairs = np.stack([find_rows(fragments, edges[end], "Edges") for end in "uv"], axis=1).astype(np.uint64) + np.uint64(
        1
    )
    graph = UndirectedGraph.from_unique_edges(len(fragments) + 1, pairs)
    for threshold in check_thresholds(thresholds):
        if method == "components":
            nodes = np.arange(len(fragments) + 1)
        elif method == "multicut":
            nodes = cut_edges(graph, edges["mean"], edges["size"].astype(np.float64), threshold)
        else:
            # Signed weights: joining ends where the strongest edge left is at 1 - threshold or below.
            nodes = GaspClusterPolicy(linkage="mean").optimize(
                graph, edges["mean"] - (1 - threshold), edge_sizes=edges["size"].astype(np.float64)
            )
        yield as_lookup(fragments, np.asarray(nodes[1:], np.uint64))


def as_lookup(fragments: UInt64[np.ndarray, " n"], nodes: UInt64[np.ndarray, " n"]) -> Table:
    lookup = np.zeros(len(fragments), LOOKUP)
    lookup["fragment"], lookup["label"] = fragments, number_by_first(nodes)
    return lookup


def number_by_first(nodes: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Renumbers a partition as 1..n, in the order in which its parts appear."""
    _, first, part = np.unique(nodes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.uint64)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1, dtype=np.uint64)
    return rank[part]


@dataclasses.dataclass(frozen=True)
class Guard:
    size: int  # voxels from which on an object is large
    threshold: float  # of merges of two large objects; all others have the recipe's

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.threshold < 1:
            raise UserError(f"A guard wants a size from 1 voxel up, a threshold between 0 and 1, not {self}.")


def check_guard(guard: Guard, recipe: Recipe) -> None:
    if (recipe.method, recipe.scorer) != ("waterz", "mean"):
        raise UserError(
            f"A guard is for waterz with mean, but the recipe is {recipe.method} with {recipe.scorer}: leave it out."
        )
    if guard.threshold >= recipe.threshold:
        raise UserError(
            f"A guard is stricter than the recipe, whose threshold is {recipe.threshold}, but has {guard.threshold}: "
            "lower it."
        )


def agglomerate_guarded(edges: Table, fragments: Table, threshold: float, guard: Guard) -> Table:
    """Does what `agglomerate_edges` does, but two objects of `guard.size` voxels merge at the guard's threshold only.

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
    """Returns the object of each part, numbered from 0; two that are both large stay apart. Parts count from 1."""
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
