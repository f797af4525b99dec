"""Large objects held apart: one weak spot between two neurons must not make one of them, and of all others, in the end.

Average linkage joins in falling order of its scores. Down to the stricter one nothing is forbidden; what is an object
by then and large may join another such only through smaller ones that belong to either.
"""

import dataclasses
import heapq
from collections import defaultdict

import numpy as np
from jaxtyping import Bool, Int64

from emsam_jax.segmentation.blockwise.merging import merge_edges
from emsam_jax.segmentation.blockwise.tables import LOOKUP, Table
from emsam_jax.segmentation.checks import SegmentationError


@dataclasses.dataclass(frozen=True)
class Guard:
    size: int = 0  # voxels from which on an object is large; 0: nothing is held apart
    threshold: float = 0.0  # two large ones are joined where their affinity is above 1 - it

    def __post_init__(self) -> None:
        if self.size < 0 or (self.size and not 0 < self.threshold < 1):
            raise SegmentationError(
                f"Large objects: expected a size above 0 and a threshold between 0 and 1, found {self.size} voxels and "
                f"{self.threshold:g}."
            )

    def check(self, method: str, threshold: float) -> None:
        """Whether there is something to be stricter than."""
        if self.size and (method != "waterz" or self.threshold >= threshold):
            raise SegmentationError(
                f"Large objects are held apart where waterz joins them below a stricter threshold: expected waterz and "
                f"one below {threshold:g}, found {method} and {self.threshold:g}."
            )


def hold_apart(
    edges: Table, fragments: Table, strict: Table, lenient: Table, *, guard: Guard, threshold: float
) -> Table:
    """The lenient lookup table, with objects split again where two large ones came together below the strict score.

    Each that could be such an object is agglomerated anew from its strict parts, with the guard.
    """
    parts = _renumber(strict["label"])
    sizes = np.bincount(parts, fragments["size"]).astype(np.int64)
    whole = np.zeros(len(sizes), np.int64)
    whole[parts] = _renumber(lenient["label"])
    anew = np.bincount(whole, sizes) >= 2 * guard.size  # no other object can have been made of two large ones
    table = _contract(edges, lenient["fragment"], parts)
    table = table[anew[whole[table["u"].view(np.int64)]] & _within(table, whole)]
    joined = _join(table, sizes, guard, 1 - threshold)
    owner = np.where(anew[whole], len(sizes) + joined, whole)  # a part's own objects, apart from the lenient ones
    found = np.zeros(len(lenient), LOOKUP)
    found["fragment"] = lenient["fragment"]
    found["label"] = owner[parts] + 1
    return found


def _join(edges: Table, sizes: Int64[np.ndarray, " n"], guard: Guard, least: float) -> Int64[np.ndarray, " n"]:
    """The part that stands for each part's object."""
    stands = np.arange(len(sizes))
    sizes, strict = sizes.copy(), 1 - guard.threshold
    beside: dict[int, dict[int, tuple[float, int]]] = defaultdict(dict)  # mean and size of each edge that is left
    for u, v, mean, size in edges.tolist():
        beside[u][v] = beside[v][u] = mean, size
    best = [(-mean, u, v) for u, v, mean, _ in edges.tolist() if mean > least]
    heapq.heapify(best)
    members = {part: [part] for part in beside}
    while best:
        mean, u, v = heapq.heappop(best)
        if beside.get(u, {}).get(v, (None,))[0] != -mean:
            continue  # one of them has been joined with another since
        if -mean <= strict and min(sizes[u], sizes[v]) >= guard.size:
            continue
        if len(beside[u]) < len(beside[v]):
            u, v = v, u
        del beside[u][v]
        sizes[u] += sizes[v]
        members[u] += members.pop(v)
        for other, (mean_v, size_v) in beside.pop(v).items():
            if other == u:
                continue
            del beside[other][v]
            mean_u, size_u = beside[u].get(other, (0.0, 0))
            size = size_u + size_v
            mean = (mean_u * size_u + mean_v * size_v) / size
            beside[u][other] = beside[other][u] = mean, size
            if mean > least:
                heapq.heappush(best, (-mean, u, other))
    for part, own in members.items():
        stands[own] = part
    return stands


def _contract(edges: Table, fragments: np.ndarray, parts: Int64[np.ndarray, " n"]) -> Table:
    """Between parts, which are named by their numbers."""
    ends = [parts[np.searchsorted(fragments, edges[end])] for end in "uv"]
    table = edges.copy()
    table["u"], table["v"] = np.minimum(*ends), np.maximum(*ends)
    return merge_edges([table[table["u"] != table["v"]]])


def _within(table: Table, whole: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " m"]:
    u, v = (whole[table[end].view(np.int64)] for end in "uv")
    return u == v


def _renumber(labels: np.ndarray) -> Int64[np.ndarray, " n"]:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
