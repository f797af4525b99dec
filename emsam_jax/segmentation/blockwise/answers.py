"""Objects of fragments as answers to merge decisions come in, by the same rules as those that edits follow."""

import numpy as np
from jaxtyping import Bool, UInt64

from emsam_jax.segmentation.blockwise.constraints import (
    FragmentGraph,
    Pair,
    choose_consistent,
    costs_of,
    part_objects,
    unite_objects,
)
from emsam_jax.segmentation.blockwise.decisions import Tables
from emsam_jax.segmentation.blockwise.tables import find_rows


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
        consistent = choose_consistent(self.joins, self.parts)
        united = unite_objects(self.objects, consistent.joins)
        self.objects = part_objects(united, self.graph, self.parts, consistent.group)
        return True
