"""Objects of fragments under constraints: pairs that belong together, pairs that do not, and objects that are shut.

An agglomeration has made the objects. Joined ones are united; where a pair to part lies in one object, the object is
cut in two where that costs least, by a minimum cut of its fragments' graph. All other objects stay as they are.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from bioimage_cpp.utils import UnionFind
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

_CERTAIN = 1e-3  # means closer to 1 than this count as this close, so that costs stay finite
_MOST = 1 << 28  # of the costs of one graph, as integers: what is left of one is at most twice as much, below 2^31


class Pair(NamedTuple):
    """Two fragments, by their index, and who says something of them."""

    a: int
    b: int
    by: int


class FragmentGraph(NamedTuple):
    """Edges between fragments, by their index, and what it costs to cut them."""

    u: Int64[np.ndarray, " edges"]
    v: Int64[np.ndarray, " edges"]
    cost: Shaped[np.ndarray, " edges"]

    def only(self, edges: Shaped[np.ndarray, " _"] | slice) -> "FragmentGraph":
        return FragmentGraph(self.u[edges], self.v[edges], self.cost[edges])

    def renamed(self, names: Int64[np.ndarray, " n"]) -> "FragmentGraph":
        """Replaces fragments by what they are part of; edges within one are dropped, those of one pair added."""
        u, v = np.minimum(names[self.u], names[self.v]), np.maximum(names[self.u], names[self.v])
        count, kept = int(v.max(initial=0)) + 1, u != v
        pairs, edge = np.unique((u * count + v)[kept], return_inverse=True)
        return FragmentGraph(pairs // count, pairs % count, np.bincount(edge, self.cost[kept], len(pairs)))


def costs_of(means: Float64[np.ndarray, " edges"], sizes: Int64[np.ndarray, " edges"]) -> Float64[np.ndarray, " edges"]:
    """Computes what cutting costs: -log(1 - mean affinity), the odds of a mistake, at each pair of voxels."""
    return -sizes * np.log(np.clip(1 - means, _CERTAIN, 1 - _CERTAIN))


def refuse_joins(joins: Sequence[Pair], parts: Sequence[Pair], count: int) -> dict[int, int]:
    """Returns who says each join that cannot hold, and who says the part that it contradicts, given the other joins.

    Parts hold: where joins lead from one fragment to the other, the fewest that cut all ways are refused, of as few the
    later ones.
    """
    u, v, _ = np.array(joins, np.int64).reshape(-1, 3).T
    age = 1 - np.arange(len(joins)) / max(1, len(joins))
    graph = FragmentGraph(u, v, 1 + age / max(1, len(joins))).renamed(np.arange(count))
    led = unite_objects(np.arange(count), joins)
    sides = cut_apart(graph, count, [(a, b) for a, b, _ in parts if led[a] == led[b]])
    groups = unite_objects(np.arange(count), [pair for pair in joins if sides[pair.a] == sides[pair.b]])
    one, other, _ = np.array(parts, np.int64).reshape(-1, 3).T
    refused = {}
    for a, b, by in joins:
        if sides[a] == sides[b] or groups[a] == groups[b]:
            continue
        ends = np.sort([groups[one], groups[other]], axis=0)
        against = np.flatnonzero((ends == np.sort([groups[[a]], groups[[b]]], axis=0)).all(axis=0))
        if len(against):
            refused[by] = parts[against[0]].by
        else:  # cuts for other parts have made this one needless
            groups[groups == groups[a]] = groups[b]
    return refused


def unite_objects(objects: Int64[np.ndarray, " n"], joins: Sequence[Pair]) -> Int64[np.ndarray, " n"]:
    """Returns for each fragment its object, numbered from 0; objects that a join reaches into are one."""
    _, numbered = np.unique(objects, return_inverse=True)
    union = UnionFind(int(numbered.max(initial=-1)) + 1)
    if joins:
        union.merge(np.array([(numbered[a], numbered[b]) for a, b, _ in joins], np.uint64))
    return np.asarray(union.element_labeling())[numbered].astype(np.int64)


def implied_parts(
    objects: Int64[np.ndarray, " n"], parts: Sequence[Pair], group: Int64[np.ndarray, " n"]
) -> list[Pair]:
    """Returns the pairs to part that lie in one object, if fragments of a `group` are each as good as the other."""
    apart = {frozenset((int(group[a]), int(group[b]))): by for a, b, by in parts}
    bound = np.flatnonzero(np.isin(group, [name for pair in apart for name in pair]))
    held: dict[int, dict[int, int]] = {}  # of each object: a fragment of each of its groups
    for fragment in bound.tolist():
        held.setdefault(int(objects[fragment]), {})[int(group[fragment])] = fragment
    return [
        Pair(own[one], own[other], by)
        for own in held.values()
        for one, other in itertools.combinations(own, 2)
        if (by := apart.get(frozenset((one, other)))) is not None
    ]


def part_objects(
    objects: Int64[np.ndarray, " n"],
    graph: FragmentGraph,
    parts: Sequence[Pair],
    group: Int64[np.ndarray, " n"],
) -> Int64[np.ndarray, " n"]:
    """Cuts objects until no pair lies in one, pair after pair; fragments of one `group` stay together."""
    wrong: dict[int, list[Pair]] = {}
    for pair in parts:
        if objects[pair.a] == objects[pair.b]:
            wrong.setdefault(int(objects[pair.a]), []).append(pair)
    names = np.zeros(len(objects), np.int64)
    order = np.argsort(objects, kind="stable")
    inner = graph.only(objects[graph.u] == objects[graph.v])
    inner = inner.only(np.argsort(objects[inner.u], kind="stable"))
    sorted_objects, sorted_edges = objects[order], objects[inner.u]
    objects, free = objects.copy(), int(objects.max(initial=-1)) + 1
    for name, pairs in wrong.items():
        nodes = order[slice(*np.searchsorted(sorted_objects, [name, name + 1]))]
        _, names[nodes] = np.unique(group[nodes], return_inverse=True)
        own = inner.only(slice(*np.searchsorted(sorted_edges, [name, name + 1])))
        ends = [(int(names[a]), int(names[b])) for a, b, _ in pairs]
        sides = cut_apart(own.renamed(names), int(names[nodes].max()) + 1, ends)
        objects[nodes] = free + sides[names[nodes]]
        free += int(sides.max()) + 1
    return objects


def cut_apart(graph: FragmentGraph, count: int, pairs: Sequence[tuple[int, int]]) -> Int64[np.ndarray, " n"]:
    """Returns the side, from 0, of each of `count` nodes; each cut parts one pair, at the least cost."""
    sides = np.zeros(count, np.int64)
    costs = np.maximum(1, np.rint(graph.cost / graph.cost.max(initial=1e-9) * _MOST)).astype(np.int32)
    graph = graph._replace(cost=costs)
    for number, (source, sink) in enumerate(pairs, start=1):
        if sides[source] == sides[sink]:
            here = sides == sides[source]
            near = _near(graph.only(here[graph.u] & here[graph.v]), count, source, sink)
            sides[here & ~near] = number
    return np.unique(sides, return_inverse=True)[1]


def _near(graph: FragmentGraph, count: int, source: int, sink: int) -> Bool[np.ndarray, " n"]:
    """Returns which nodes lie on the source's side of a minimum cut: to where more could flow."""
    ends = np.concatenate([graph.u, graph.v]), np.concatenate([graph.v, graph.u])
    capacity = csr_array(coo_array((np.concatenate([graph.cost, graph.cost]), ends), shape=(count, count)))
    left = csr_array(capacity - maximum_flow(capacity, source, sink).flow)
    left.eliminate_zeros()
    near = np.zeros(count, bool)
    near[breadth_first_order(left, source, return_predecessors=False)] = True
    return near
