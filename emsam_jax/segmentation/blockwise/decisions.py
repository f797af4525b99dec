"""Lists the decisions that a segmentation rests on: links that hold objects together, and pairs that were left apart.

An object of n fragments hangs on n - 1 links, the strongest merges of each level of an agglomeration by the mean:
without one of them it is in two. Two objects that touch are one decision, however many of their fragments do.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, Integer, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from emsam_jax.segmentation.blockwise.global_agglomeration import agglomerate_edges
from emsam_jax.segmentation.blockwise.stage_2_edges import list_objects, measure_edges
from emsam_jax.segmentation.blockwise.tables import LOOKUP, Table, find_rows
from emsam_jax.segmentation.probability import FEATURES, log_odds

DECISION = np.dtype(
    [
        ("fragments", "<u8", 2),  # that touch there; of all on both sides, those whose contact is largest
        ("objects", "<u8", 2),
        ("joined", "?"),
        ("voxels", "<i8"),  # of the smaller side: what a mistake would cost
        ("mean", "<f8"),  # affinity between the sides
        ("features", "<f8", len(FEATURES)),
    ]
)
# Log odds of thresholds: those at which the two sides come together say how sure the merge is.
LEVELS = tuple(np.arange(-5.0, 3.1).tolist())
_NEVER = LEVELS[-1] + 1
_EDGE = np.dtype([("u", "<u8"), ("v", "<u8"), ("mean", "<f8"), ("size", "<i8"), ("edge", "<i8"), ("of", "<i8")])


def list_decisions(edges: Table, fragments: Table, lookup: Table) -> Table:
    """Lists the decisions of a graph: its edges, its fragments with their voxels, and their objects in the same order.

    Fragments of object 0 take part in none.
    """
    ids, voxels = fragments["id"], fragments["voxels"]
    _, first, part = np.unique(lookup["label"], return_index=True, return_inverse=True)
    objects = first[part].astype(np.uint64)  # named by the row of their first fragment
    graph = np.zeros(len(edges), _EDGE)
    for end in "uv":
        graph[end] = find_rows(ids, edges[end], "Edges")
    for name in ("mean", "size"):
        graph[name] = edges[name]
    graph["edge"], graph["of"] = np.arange(len(edges)), edges["size"]
    graph = graph[(lookup["label"][graph["u"]] > 0) & (lookup["label"][graph["v"]] > 0)]
    inside = objects[graph["u"]] == objects[graph["v"]]
    links, joined_at = _find_links(graph[inside], objects)
    pairs, apart_at = _find_pairs(_contract(graph[~inside], objects))

    both = np.concatenate([links, pairs])
    ends = edges[both["edge"]]
    rows = np.stack([find_rows(ids, ends[end], "Edges") for end in "uv"], axis=1)
    sizes = np.bincount(objects.astype(np.int64), voxels, len(objects)).astype(np.int64)
    found = np.zeros(len(both), DECISION)
    found["fragments"], found["objects"], found["mean"] = ids[rows], lookup["label"][rows], both["mean"]
    found["joined"][: len(links)] = True
    found["voxels"][: len(links)] = _smaller_sides(rows[: len(links)], voxels)
    found["voxels"][len(links) :] = sizes[objects[rows[len(links) :]]].min(1)
    columns = {
        "mean": log_odds(both["mean"]),
        "contact": np.log(both["size"]),
        "level": np.concatenate([joined_at, apart_at]),
        "nearest_mean": log_odds(ends["mean"]),
        "nearest_contact": np.log(ends["size"]),
        "fragment": np.log(voxels[rows].min(1)),
        "voxels": np.log(found["voxels"]),
    }
    found["features"] = np.stack([columns[name] for name in FEATURES], axis=1)
    return found


class Tables(NamedTuple):
    edges: Table
    fragments: Table
    lookup: Table


def tables_within(
    fragments: UInt64[np.ndarray, "z y x"],
    affinities: Float32[np.ndarray, "c z y x"],
    labels: Integer[np.ndarray, "z y x"],
) -> Tables:
    """Makes the tables of a segmentation in memory, whose fragments lie in one object each."""
    objects = list_objects(fragments, (0, 0, 0))
    belongs = np.zeros(int(fragments.max()) + 1, np.uint64)
    belongs[fragments] = labels
    lookup = np.zeros(len(objects), LOOKUP)
    lookup["fragment"], lookup["label"] = objects["id"], belongs[objects["id"]]
    return Tables(measure_edges(fragments, affinities[:3], (0, 0, 0)), objects, lookup)


def _find_links(graph: Table, objects: UInt64[np.ndarray, " n"]) -> tuple[Table, Float64[np.ndarray, " links"]]:
    """Finds the links of objects and the level of each; at the last one all that is left of an object is joined."""
    found, levels = [np.zeros(0, _EDGE)], [np.zeros(0)]
    for level in (*LEVELS, _NEVER):
        parts = objects if level == _NEVER else _agglomerate(graph, len(objects), level)
        merged = _spanning_forest(graph[parts[graph["u"]] == parts[graph["v"]]], len(objects))
        found.append(merged)
        levels.append(np.full(len(merged), level))
        graph = _contract(graph, parts)
    return np.concatenate(found), np.concatenate(levels)


def _find_pairs(pairs: Table) -> tuple[Table, Float64[np.ndarray, " pairs"]]:
    """Finds the level at which each pair of objects would be joined."""
    levels, graph = np.full(len(pairs), _NEVER), pairs
    count = int(max(pairs["u"].max(initial=0), pairs["v"].max(initial=0))) + 1
    nodes = np.arange(count, dtype=np.uint64)
    for level in LEVELS:
        parts = _agglomerate(graph, count, level)
        nodes = parts[nodes]
        levels[(levels > level) & (nodes[pairs["u"]] == nodes[pairs["v"]])] = level
        graph = _contract(graph, parts)
    return pairs, levels


def _agglomerate(graph: Table, count: int, level: float) -> UInt64[np.ndarray, " n"]:
    """Returns, for each node, the first one of the part that it belongs to at a level."""
    parts, nodes = np.arange(count, dtype=np.uint64), np.unique([graph["u"], graph["v"]])
    if len(nodes):
        labels = next(agglomerate_edges(graph, nodes, [1 / (1 + np.exp(-level))]))["label"]
        _, first, part = np.unique(labels, return_index=True, return_inverse=True)
        parts[nodes] = nodes[first[part]]
    return parts


def _contract(graph: Table, parts: UInt64[np.ndarray, " n"]) -> Table:
    """Merges edges between the same two parts, and drops those within one; `edge` is the one of largest contact."""
    ends = parts[graph["u"]], parts[graph["v"]]
    graph = graph.copy()
    graph["u"], graph["v"] = np.minimum(*ends), np.maximum(*ends)
    graph = graph[graph["u"] != graph["v"]]
    graph = graph[np.lexsort((graph["edge"], -graph["of"], graph["v"], graph["u"]))]
    changes = (graph["u"][1:] != graph["u"][:-1]) | (graph["v"][1:] != graph["v"][:-1])
    starts = np.flatnonzero(np.concatenate([[True], changes])) if len(graph) else np.zeros(0, int)
    merged = graph[starts]
    if len(merged) < len(graph):
        merged["size"] = np.add.reduceat(graph["size"], starts)
        merged["mean"] = np.add.reduceat(graph["mean"] * graph["size"], starts) / merged["size"]
    return merged


def _spanning_forest(graph: Table, count: int) -> Table:
    """Returns the edges of the spanning forest of highest means."""
    ends = graph["u"].astype(np.int64), graph["v"].astype(np.int64)
    weights = coo_array((2 - graph["mean"], ends), shape=(count, count)).tocsr()
    chosen = minimum_spanning_tree(weights).tocoo()
    order = np.lexsort((graph["v"], graph["u"]))
    keys = graph["u"][order] * np.uint64(count) + graph["v"][order]
    wanted = chosen.row.astype(np.uint64) * np.uint64(count) + chosen.col.astype(np.uint64)
    return graph[order[np.searchsorted(keys, np.sort(wanted))]]


def _smaller_sides(links: Int64[np.ndarray, "links 2"], voxels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " links"]:
    """Returns the voxels of the smaller of the two sides that what hangs together falls into without a link."""
    forest = root_forest(links, len(voxels))
    below, above = voxels.tolist(), forest.above.tolist()
    for node in reversed(forest.order.tolist()):
        if above[node] >= 0:
            below[above[node]] += below[node]
    sides = np.array(below, np.int64)
    outer = np.where(forest.above[links[:, 0]] == links[:, 1], links[:, 0], links[:, 1])
    return np.minimum(sides[outer], sides[forest.top[outer]] - sides[outer])


class Forest(NamedTuple):
    order: Int64[np.ndarray, " n"]  # nodes, each after the one above it
    above: Int64[np.ndarray, " n"]  # negative at the top
    top: Int64[np.ndarray, " n"]


def root_forest(links: Int64[np.ndarray, "links 2"], count: int) -> Forest:
    """Hangs up each tree by its first node."""
    _, part = connected_components(coo_array((np.ones(len(links)), links.T), shape=(count, count)), directed=False)
    tops = np.unique(part, return_index=True)[1]
    ends = np.concatenate([links, np.stack([np.full(len(tops), count), tops], axis=1)])
    tree = coo_array((np.ones(len(ends)), ends.T), shape=(count + 1, count + 1)).tocsr()
    order, above = breadth_first_order(tree, count, directed=False)
    above = np.where(above[:count] == count, -1, above[:count])
    return Forest(order[1:].astype(np.int64), above.astype(np.int64), tops[part])
