"""Finds which objects cost the most, and where they are, so that a person can go and look."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt64

from emsam_jax.scores.contingency import ContingencyTable
from emsam_jax.scores.measures import ObjectTerms
from emsam_jax.scores.tabulate import VoxelSource

_SLAB = 16  # sections read at a time
_PARTNERS = 4  # largest pieces that are named with an object


def list_worst(table: ContingencyTable, terms: ObjectTerms, count: int = 10) -> dict[str, list[dict[str, Any]]]:
    """Lists true objects by their bits of split, and segments by their bits of merge; both add up to the scores."""
    voxels = max(int(terms.truth_size.sum()), 1)
    turned = ContingencyTable(segment=table.truth, truth=table.segment, count=table.count)
    return {
        "splits": _list_worst(terms.truth, terms.truth_size, terms.split / voxels, table, count),
        "merges": _list_worst(terms.segment, terms.segment_size, terms.segment_merge / voxels, turned, count),
    }


def _list_worst(
    ids: UInt64[np.ndarray, " n"],
    sizes: Integer[np.ndarray, " n"],
    bits: Float[np.ndarray, " n"],
    table: ContingencyTable,
    count: int,
) -> list[dict[str, Any]]:
    """Lists rows of the objects `ids`, the table's truth, with the pieces that are its segments."""
    rows = []
    for i in np.argsort(-bits, kind="stable")[:count]:
        if bits[i] <= 0:
            break
        pieces = table.where(table.truth == ids[i])
        largest = np.argsort(-pieces.count, kind="stable")[:_PARTNERS]
        rows.append(
            {
                "id": int(ids[i]),
                "voxels": int(sizes[i]),
                "bits": float(bits[i]),
                "pieces": pieces.count.size,
                "largest_pieces": [{"id": int(pieces.segment[p]), "voxels": int(pieces.count[p])} for p in largest],
            }
        )
    return rows


def find_swallowed(table: ContingencyTable, neuron: int) -> dict[str, Any]:
    """Finds what else lies in the segments that are mostly this true object; leaving the object out hides that merge.

    A neuron counts where most of its voxels lie there. Unsegmented voxels are nobody's segment.
    """
    inside = table.where(table.segment != 0)
    order = np.lexsort((inside.count, inside.segment))
    last = np.flatnonzero(np.diff(inside.segment[order], append=inside.segment[order][-1:] + np.uint64(1)))
    main = order[last]  # of each segment, the pair with most voxels
    own = inside.segment[main[inside.truth[main] == np.uint64(neuron)]]
    others = table.truth != np.uint64(neuron)
    held = np.isin(table.segment, own) & others
    truth, of_truth = np.unique(table.truth[others], return_inverse=True)
    sizes = np.bincount(of_truth, table.count[others], truth.size)
    within = np.bincount(of_truth, np.where(held, table.count, 0)[others], truth.size)
    return {
        "segments": own.size,
        "neurons": int((2 * within > sizes).sum()),
        "voxels": int(within.sum()),
        "of_voxels": int(sizes.sum()),
    }


def locate(volume: VoxelSource, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Returns, for each id that occurs, its box [start, stop) and one of its voxels in the middle section; z, y, x."""
    wanted = np.unique(np.array(ids, np.uint64))
    depth, *plane = volume.shape
    rows, columns = (slice(0, size) for size in plane)
    low = np.full((wanted.size, 3), np.iinfo(np.int64).max)
    high = np.zeros((wanted.size, 3), np.int64)
    sections = np.zeros((wanted.size, depth), np.int64)
    for start in range(0, depth, _SLAB):
        which, places = _find(np.asarray(volume[start : min(start + _SLAB, depth), rows, columns]), wanted)
        places[0] += start
        for axis, along in enumerate(places):
            np.minimum.at(low[:, axis], which, along)
            np.maximum.at(high[:, axis], which, along + 1)
        np.add.at(sections, (which, places[0]), 1)
    found = {}
    for i in np.flatnonzero(sections.any(1)):
        cumulative = np.cumsum(sections[i])
        z = int(np.searchsorted(cumulative, (cumulative[-1] + 1) // 2))
        own = np.argwhere(np.asarray(volume[z : z + 1, rows, columns])[0] == wanted[i])
        y, x = own[len(own) // 2]
        box = [[int(a), int(b)] for a, b in zip(low[i], high[i], strict=True)]
        found[int(wanted[i])] = {"at_zyx": [z, int(y), int(x)], "box_zyx": box}
    return found


def _find(
    slab: Integer[np.ndarray, "z y x"], wanted: UInt64[np.ndarray, " n"]
) -> tuple[Integer[np.ndarray, " voxels"], Integer[np.ndarray, "3 voxels"]]:
    """Returns index into `wanted` and place of each voxel that has one of its ids."""
    ids = slab.ravel().astype(np.uint64)
    which = np.searchsorted(wanted, ids).clip(max=max(wanted.size - 1, 0))
    hits = np.flatnonzero(wanted[which] == ids) if wanted.size else np.zeros(0, np.int64)
    return which[hits], np.stack(np.unravel_index(hits, slab.shape)).astype(np.int64)
