"""Answers to merge decisions: what objects become of them, by the rules of edits, and which edits are answers."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, UInt64

from emsam_jax.segmentation.blockwise.constraints import (
    FragmentGraph,
    Pair,
    costs_of,
    implied_parts,
    part_objects,
    refuse_joins,
    unite_objects,
)
from emsam_jax.segmentation.blockwise.decisions import Forest, Tables, root_forest
from emsam_jax.segmentation.blockwise.placed_edits import PlacedEdit
from emsam_jax.segmentation.blockwise.tables import Table, find_rows


class Answers:
    """Starts from the objects of a segmentation; all answers given so far hold, but those that contradict others."""

    def __init__(self, tables: Tables):
        self.ids, labels = tables.lookup["fragment"], tables.lookup["label"]
        self.objects, self.inside = labels.astype(np.int64), labels > 0
        u, v = (find_rows(self.ids, tables.edges[end], "Edges") for end in "uv")
        self.graph = FragmentGraph(u, v, costs_of(tables.edges["mean"], tables.edges["size"]))
        self.joins: list[Pair] = []
        self.parts: list[Pair] = []

    @property
    def labels(self) -> UInt64[np.ndarray, " m"]:
        return np.where(self.inside, self.objects + 1, 0).astype(np.uint64)

    def give(self, fragments: UInt64[np.ndarray, "n 2"], together: Bool[np.ndarray, " n"]) -> bool:
        """Takes more answers, and returns whether any of them was news."""
        rows = np.stack([find_rows(self.ids, fragments[:, end], "Answers") for end in range(2)], axis=1)
        for (a, b), same in zip(rows.tolist(), together.tolist(), strict=True):
            into = self.joins if same else self.parts
            into.append(Pair(a, b, len(self.joins) + len(self.parts)))
        one, other = self.objects[rows].T
        if ((one == other) == together).all():
            return False
        refused = refuse_joins(self.joins, self.parts, len(self.ids))
        joins = [pair for pair in self.joins if pair.by not in refused]
        group = unite_objects(np.arange(len(self.ids)), joins)
        found = part_objects(self.objects, self.graph, implied_parts(self.objects, self.parts, group), group)
        self.objects = part_objects(unite_objects(found, joins), self.graph, self.parts, group)
        return True


def find_answered(
    decisions: Table, together: Float64[np.ndarray, " n"], placed: Sequence[PlacedEdit], lookup: Table
) -> Bool[np.ndarray, " n"]:
    """Finds decisions that edits have made: those of finished objects, of pairs that were parted, and of joined
    fragments the least certain link between them.
    """
    answered, joined = np.zeros(len(decisions), bool), decisions["joined"]
    ids = lookup["fragment"]
    links = np.flatnonzero(joined)
    ends = np.stack([find_rows(ids, decisions["fragments"][links, end], "Decisions") for end in range(2)], axis=1)
    forest = root_forest(ends, len(ids))
    link_of = {frozenset(pair): link for pair, link in zip(ends.tolist(), links.tolist(), strict=True)}
    for one in placed:
        if one.why:
            continue
        rows = find_rows(ids, np.array(one.fragments, np.uint64), "Edits")
        objects = lookup["label"][rows]
        if one.edit.kind == "done":
            answered |= (decisions["objects"] == objects[0]).any(1)
        elif one.edit.kind == "part":
            answered |= ~joined & (np.sort(decisions["objects"], axis=1) == np.sort(objects)).all(1)
        elif path := _path(forest, *rows.tolist()):
            answered[min((link_of[pair] for pair in path), key=lambda link: together[link])] = True
    return answered


def _path(forest: Forest, one: int, other: int) -> list[frozenset[int]]:
    """Returns the pairs of nodes that lead from one to the other; none between two trees."""
    if forest.top[one] != forest.top[other]:
        return []
    path: set[frozenset[int]] = set()
    for start in (one, other):  # what both climb is no part of it
        node = start
        while (upper := int(forest.above[node])) >= 0:
            path ^= {frozenset((node, upper))}
            node = upper
    return list(path)
