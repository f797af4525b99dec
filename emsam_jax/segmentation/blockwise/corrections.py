"""Agglomerated objects, corrected so that all edits hold that can."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64, Shaped, UInt64

from emsam_jax.segmentation.blockwise.constraints import (
    FragmentGraph,
    Pair,
    costs_of,
    implied_parts,
    part_objects,
    refuse_joins,
    unite_objects,
)
from emsam_jax.segmentation.blockwise.placed_edits import PlacedEdit, describe
from emsam_jax.segmentation.blockwise.tables import Table, find_rows

Objects = Int64[np.ndarray, " n"]  # of each fragment


def correct_objects(placed: Sequence[PlacedEdit], edges: Table, lookup: Table) -> Objects:
    """Returns each fragment's object, and sets what became of each edit.

    Of joins and a part that contradict each other the part holds. An object that is done stays as the edits before made
    it: those after it that would change it are refused. What no edit touches stays.
    """
    objects = lookup["label"].astype(np.int64)
    rows = {
        number: find_rows(lookup["fragment"], np.array(one.fragments, np.uint64), "Edits").tolist()
        for number, one in enumerate(placed)
        if not one.why
    }
    for number, own in rows.items():
        placed[number].held = _holds(placed[number], objects, own)
    touched = np.isin(objects, objects[[row for own in rows.values() for row in own]])
    nodes, local = np.flatnonzero(touched), np.cumsum(touched) - 1
    pairs = {n: Pair(int(local[own[0]]), int(local[own[1]]), n) for n, own in rows.items() if len(own) == 2}
    joins, parts = ([one for n, one in pairs.items() if placed[n].edit.kind == kind] for kind in ("join", "part"))
    for number, other in refuse_joins(joins, parts, len(nodes)).items():
        against = placed[other].edit
        placed[number].refuse(f"contradicts {describe(against)}, given the other joins: undo one of them.", against)
    group = unite_objects(np.arange(len(nodes)), [pair for pair in joins if not placed[pair.by].why])
    ends = [find_rows(lookup["fragment"], edges[end], "Edges") for end in "uv"]
    inside = touched[ends[0]] & touched[ends[1]]
    u, v = (local[end[inside]] for end in ends)
    graph = FragmentGraph(u, v, costs_of(edges["mean"][inside], edges["size"][inside]))
    found, shut, parted = objects[nodes], {}, []
    for batch in _batches(placed, list(rows)):
        done = {int(found[row]): number for row, number in shut.items()}
        taken = [pairs[n] for n in batch if n in pairs and not _refused(placed, pairs[n], found, done)]
        joined = [pair for pair in taken if placed[pair.by].edit.kind == "join"]
        parted += [pair for pair in taken if placed[pair.by].edit.kind == "part"]
        if taken:
            # Before joins spread what an object holds by mistake: there, cuts are made where the mistake is.
            implied = [pair for pair in implied_parts(found, parted, group) if int(found[pair.a]) not in done]
            found = part_objects(found, graph, implied, group)
            found = part_objects(unite_objects(found, joined), graph, parted, group)
        shut |= {int(local[rows[n][0]]): n for n in batch if placed[n].edit.kind == "done"}
    objects[nodes] = found + objects.max(initial=0) + 1
    for number, own in rows.items():  # what contradicted it may have been refused itself
        if _holds(placed[number], objects, own):
            placed[number].allow()
    return objects


def _holds(one: PlacedEdit, objects: Objects, rows: Sequence[int]) -> bool:
    return one.edit.kind == "done" or (one.edit.kind == "join") == bool(objects[rows[0]] == objects[rows[1]])


def _batches(placed: Sequence[PlacedEdit], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Yields possible edits up to a run of dones, those included."""
    batch: list[int] = []
    for number in numbers:
        if placed[number].why:
            continue
        if batch and placed[batch[-1]].edit.kind == "done" != placed[number].edit.kind:
            yield batch
            batch = []
        batch.append(number)
    yield batch


def _refused(placed: Sequence[PlacedEdit], pair: Pair, objects: Objects, done: dict[int, int]) -> bool:
    """Refuses an edit that would change an object that is done."""
    one, ends = placed[pair.by], (int(objects[pair.a]), int(objects[pair.b]))
    if _holds(one, objects, pair[:2]):
        return False
    shut = [done[end] for end in ends if end in done]
    if shut:
        by = placed[shut[0]].edit
        one.refuse(f"would change the object that is finished by {describe(by)}: undo one of them.", by)
    return bool(shut)


def keep_names(
    objects: Objects, before: UInt64[np.ndarray, " n"], voxels: Shaped[np.ndarray, " n"], min_size: int
) -> UInt64[np.ndarray, " n"]:
    """Returns labels; of objects of fewer voxels than `min_size` 0, background.

    A label that was there before goes to the object with most of its voxels, which takes the smallest if it has
    several; the others are numbered after the last.
    """
    _, index, sizes = np.unique(objects, return_inverse=True, return_counts=True)
    count = len(sizes)
    shares, share = np.unique(before.astype(np.int64) * count + index, return_inverse=True)
    label, owner = shares // count, shares % count
    order = np.lexsort((-np.bincount(share, voxels, len(shares)), label))
    heaviest = order[np.flatnonzero(np.diff(label[order], prepend=0))]  # but of 0
    names = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(names, owner[heaviest], label[heaviest])
    unnamed = names == np.iinfo(np.int64).max
    small = np.bincount(index, voxels, count) < min_size
    names[unnamed & ~small] = int(before.max(initial=0)) + 1 + np.arange(int((unnamed & ~small).sum()))
    names[small] = 0
    return names[index].astype(np.uint64)
