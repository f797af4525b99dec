"""Tables of many blocks as one."""

from collections.abc import Callable, Iterable

import numpy as np
from bioimage_cpp.utils import UnionFind
from jaxtyping import Bool, UInt64

from emsam_jax.segmentation.blockwise.tables import EDGE, OBJECT, Table, find_rows

_MERGE_AT = 1 << 22  # rows collected before they are merged, which bounds the memory


def merge_edges(parts: Iterable[Table]) -> Table:
    """Each pair once, in increasing order of (u, v): sizes added, means weighted by them."""

    def merge(table: Table) -> Table:
        order = np.lexsort((table["v"], table["u"]))  # stable: equal pairs stay in the order of the parts
        table = table[order]
        starts = _starts((table["u"][1:] != table["u"][:-1]) | (table["v"][1:] != table["v"][:-1]))
        merged = table[starts]
        if len(merged) < len(table):
            merged["size"] = np.add.reduceat(table["size"], starts)
            merged["mean"] = np.add.reduceat(table["mean"] * table["size"], starts) / merged["size"]
        return merged

    return _merge(parts, EDGE, merge)


def rename_edges(edges: Table, lookup: Table) -> Table:
    """Between what the fragments belong to; those within one such fall away."""
    ends = [lookup["label"][find_rows(lookup["fragment"], edges[end], "Edges")] for end in "uv"]
    renamed = edges.copy()
    renamed["u"], renamed["v"] = np.minimum(*ends), np.maximum(*ends)
    return renamed[renamed["u"] != renamed["v"]]


def merge_objects(parts: Iterable[Table]) -> Table:
    """Each id once, in increasing order: voxels added, boxes united."""

    def merge(table: Table) -> Table:
        table = table[np.argsort(table["id"], kind="stable")]
        starts = _starts(table["id"][1:] != table["id"][:-1])
        merged = table[starts]
        if len(merged) < len(table):
            merged["voxels"] = np.add.reduceat(table["voxels"], starts)
            merged["start"] = np.minimum.reduceat(table["start"], starts, axis=0)
            merged["stop"] = np.maximum.reduceat(table["stop"], starts, axis=0)
        return merged

    return _merge(parts, OBJECT, merge)


def unite(ids: UInt64[np.ndarray, " n"], links: Table) -> UInt64[np.ndarray, " n"]:
    """For each of the ids, which increase, the first of all those that links join it with."""
    union = UnionFind(len(ids))
    union.merge(np.stack([find_rows(ids, links[end], "Links") for end in "uv"], axis=1).astype(np.uint64))
    _, first, part = np.unique(union.element_labeling(), return_index=True, return_inverse=True)
    return ids[first[part]]


def _merge(parts: Iterable[Table], dtype: np.dtype, merge: Callable[[Table], Table]) -> Table:
    """In the order of the parts, so that sums are the same to the bit whoever made them, and when."""
    merged, waiting, rows = np.zeros(0, dtype), [], 0
    for part in parts:
        if not len(part):
            continue
        waiting.append(part)
        rows += len(part)
        if rows > max(_MERGE_AT, len(merged)):
            merged, waiting, rows = merge(np.concatenate([merged, *waiting])), [], 0
    return merge(np.concatenate([merged, *waiting])) if waiting else merged


def _starts(changes: Bool[np.ndarray, " n"]) -> np.ndarray:
    """Where each run begins; `changes` says so from the second row on."""
    return np.flatnonzero(np.concatenate([[True], changes]))
