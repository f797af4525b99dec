"""One agglomeration of the whole volume's fragments, from the table of their edges."""

from collections.abc import Iterator, Sequence

import numpy as np
from bioimage_cpp.graph import UndirectedGraph
from bioimage_cpp.graph.agglomeration import GaspClusterPolicy
from jaxtyping import UInt64

from emsam_jax.segmentation.blockwise.tables import LOOKUP, Table, find_rows
from emsam_jax.segmentation.checks import SegmentationError, check_thresholds
from emsam_jax.segmentation.multicut import cut_edges


def agglomerate_edges(
    edges: Table, fragments: UInt64[np.ndarray, " n"], thresholds: Sequence[float], method: str = "waterz"
) -> Iterator[Table]:
    """For each threshold a table (fragment, label), labels 1..n in the order of each object's first fragment.

    `fragments` are all ids in increasing order, those without an edge too. `waterz` is average linkage, as waterz's
    mean scorer; to `components` each fragment is an object.
    """
    if method not in ("waterz", "multicut", "components"):
        raise SegmentationError(
            f"Edges are agglomerated by waterz (mean scorer), multicut or components, not by {method!r}."
        )
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
    """The same partition as 1..n, in the order in which its parts appear."""
    _, first, part = np.unique(nodes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.uint64)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1, dtype=np.uint64)
    return rank[part]
