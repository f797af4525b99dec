"""Cuts the region graph of fragments by multicut ("LMC" in the field's tables)."""

from collections.abc import Iterator, Sequence

import numpy as np
from bioimage_cpp.graph import UndirectedGraph, region_adjacency_graph
from bioimage_cpp.graph.features import affinity_features
from bioimage_cpp.graph.multicut import KernighanLinMulticut, MulticutObjective
from jaxtyping import Float32, Float64, UInt64

from emsam_jax.config import SHORT_OFFSETS
from emsam_jax.segmentation.cleaning import compact

# On good affinities the result is final after two or three; on those of an untrained network each takes a second, and
# the default of 100 would take minutes for each threshold.
_ROUNDS = 5
_CERTAIN = 1e-3  # means closer to 0 or 1 than this count as this close, so that costs stay finite


def cut_region_graph(
    affinities: Float32[np.ndarray, "c z y x"],
    fragments: UInt64[np.ndarray, "z y x"],
    thresholds: Sequence[float],
    threads: int = 1,
) -> Iterator[UInt64[np.ndarray, "z y x"]]:
    """Yields compact labels for each threshold, from fragments with compact ids.

    Greedy additive contraction, then Kernighan-Lin. A cost is the log odds of the edge's mean affinity against beta = 1
    - threshold, weighted by the edge's share of the largest edge.
    """
    regions = region_adjacency_graph(fragments, number_of_threads=threads)
    means, sizes = affinity_features(regions, fragments, affinities[:3], SHORT_OFFSETS, number_of_threads=threads).T
    edges = regions.uv_ids()
    inside = edges[:, 0] > 0  # edges to background, node 0, never merge
    graph = UndirectedGraph.from_unique_edges(regions.number_of_nodes, edges[inside])
    for threshold in thresholds:
        nodes = cut_edges(graph, means[inside], sizes[inside], threshold) + np.uint64(1)
        nodes[0] = 0
        labels = nodes[fragments]
        yield compact(labels, out=labels)


def cut_edges(
    graph: UndirectedGraph,
    means: Float64[np.ndarray, " edges"],
    sizes: Float64[np.ndarray, " edges"],
    threshold: float,
) -> UInt64[np.ndarray, " nodes"]:
    """Returns the part, numbered from 0, that each node belongs to."""
    costs = edge_costs(means, sizes, beta=1 - threshold)
    return KernighanLinMulticut(number_of_outer_iterations=_ROUNDS).optimize(MulticutObjective(graph, costs))


def edge_costs(
    means: Float64[np.ndarray, " edges"], sizes: Float64[np.ndarray, " edges"], beta: float
) -> Float64[np.ndarray, " edges"]:
    """Computes costs: positive, so that joining is rewarded, where an edge's affinity is above beta."""
    means = np.clip(means, _CERTAIN, 1 - _CERTAIN)
    return (np.log(means / (1 - means)) - np.log(beta / (1 - beta))) * sizes / sizes.max(initial=1)
