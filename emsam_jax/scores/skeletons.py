"""Computes expected run length (ERL): how far one can follow a neuron before an error."""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bioimage_cpp.skeleton import teasar_labels
from jaxtyping import Bool, Float, Integer, UInt64

from emsam_jax.errors import UserError
from emsam_jax.scores.tabulate import BLOCK_ZYX, VoxelSource


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A tree, or several, of one neuron; voxel i of an axis spans offset + [i, i + 1) voxel sizes."""

    nodes: Float[np.ndarray, "nodes 3"]  # nm, z, y, x
    edges: Integer[np.ndarray, "edges 2"]  # indices of nodes

    def __post_init__(self) -> None:
        if self.edges.size and not 0 <= self.edges.min() <= self.edges.max() < len(self.nodes):
            raise UserError(
                f"A skeleton's edges must be indices of its {len(self.nodes)} nodes, but reach from "
                f"{self.edges.min()} to {self.edges.max()}."
            )

    @property
    def lengths(self) -> Float[np.ndarray, " edges"]:
        """Returns the length of each edge in nm."""
        return np.linalg.norm(self.nodes[self.edges[:, 0]] - self.nodes[self.edges[:, 1]], axis=1)


def read_skeletons(path: str) -> dict[int, Skeleton]:
    """Reads an SWC file, a folder of them, or a CSV with the columns skeleton, node, parent, z, y, x; in nm.

    A root's parent is -1. Types and radii count for nothing. Skeletons are numbered from 1 in the order of their names.
    """
    place = Path(path)
    files = sorted(place.glob("*.swc")) if place.is_dir() else [place]
    if not files:
        raise UserError(f"{path}: expected SWC files in this folder, found none.")
    try:
        if place.suffix.lower() == ".csv":
            return _read_csv(place)
        return {number: _read_swc(file) for number, file in enumerate(files, 1)}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected skeletons as SWC or CSV, found what cannot be read: {error}.") from None


class _Node(NamedTuple):
    number: int
    parent: int
    place: tuple[float, float, float]  # nm, z, y, x


def _read_swc(file: Path) -> Skeleton:
    """Reads lines of `node type x y z radius parent`."""
    nodes = []
    for line, text in enumerate(file.read_text().splitlines(), 1):
        if cells := text.partition("#")[0].split():
            chosen = [cells[i] for i in (0, 6, 4, 3, 2)] if len(cells) == 7 else []
            nodes.append(_parse(chosen, f"{file}, line {line}"))
    return _connect(nodes, str(file))


def _read_csv(file: Path) -> dict[int, Skeleton]:
    columns = ("skeleton", "node", "parent", "z", "y", "x")
    nodes: dict[str, list[_Node]] = {}
    with file.open(newline="") as lines:
        reader = csv.DictReader(lines)
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise UserError(f"{file}: expected the columns {', '.join(columns)}, found no {missing[0]}.")
        for line, row in enumerate(reader, 2):
            node = _parse([row[name] for name in columns[1:]], f"{file}, line {line}")
            nodes.setdefault(row["skeleton"], []).append(node)
    return {number: _connect(nodes[name], f"{file}, {name}") for number, name in enumerate(sorted(nodes), 1)}


def _parse(cells: Sequence[str | None], where: str) -> _Node:
    """Takes node, parent, z, y, x."""
    try:
        number, parent, z, y, x = (float(cell or "") for cell in cells)
        if all(map(math.isfinite, (z, y, x))):
            return _Node(int(number), int(parent), (z, y, x))
    except (ValueError, OverflowError):
        pass
    raise UserError(f"{where}: expected numbers for node, parent, z, y and x, found {' '.join(map(str, cells))!r}.")


def _connect(nodes: Sequence[_Node], where: str) -> Skeleton:
    index = {node.number: i for i, node in enumerate(nodes)}
    children = [node for node in nodes if node.parent >= 0]
    if len(index) < len(nodes):
        raise UserError(f"{where}: expected each node once, found {len(nodes) - len(index)} numbers again.")
    if lost := [node for node in children if node.parent not in index]:
        raise UserError(f"{where}: expected the parent of each node, found no node {lost[0].parent}.")
    places = np.array([node.place for node in nodes], np.float64).reshape(-1, 3)
    edges = np.array([(index[node.number], index[node.parent]) for node in children], np.int64).reshape(-1, 2)
    return Skeleton(places, edges)


def make_skeletons(
    truth: Integer[np.ndarray, "z y x"],
    voxel_size_zyx: tuple[float, float, float],
    *,
    offset_zyx: tuple[float, float, float] = (0.0, 0.0, 0.0),
    min_length: float = 0.0,
    twig: float = 300.0,
) -> dict[int, Skeleton]:
    """Makes a skeleton (TEASAR) of each true object that is at least `min_length` nm long.

    A branch must reach `twig` nm beyond 1.5 times the radius: less gives hairs, which end at the surface.
    """
    found = {}
    centre = np.array(offset_zyx) + np.array(voxel_size_zyx) / 2
    made = teasar_labels(truth, spacing=voxel_size_zyx, constant=twig)
    for neuron, (nodes, edges, _) in made.items():
        skeleton = Skeleton(nodes + centre, edges.astype(np.int64))
        if len(edges) and skeleton.lengths.sum() >= min_length:
            found[int(neuron)] = skeleton
    return found


def score_skeletons(
    skeletons: Mapping[int, Skeleton],
    labels: VoxelSource,
    voxel_size_zyx: tuple[float, float, float],
    *,
    offset_zyx: tuple[float, float, float] = (0.0, 0.0, 0.0),
    merge_nodes: int = 1,
) -> dict[str, Any]:
    """Computes ERL in nm, the longest possible one, their ratio (normalised ERL), and the shares of length in each
    error.

    An edge is omitted if an end is in segment 0, split if its ends are in two segments, merged if its segment is a
    merger: one that holds at least `merge_nodes` nodes of each of two or more skeletons; else it is correct. A run is
    all the correct length of one skeleton in one segment. Edges that leave the volume do not count. With a node a
    voxel, as `make_skeletons` gives them, one node is a strict rule: borders are not certain to a voxel.
    """
    names = list(skeletons)
    segments = {name: _read_nodes(skeletons[name].nodes, labels, voxel_size_zyx, offset_zyx) for name in names}
    mergers = _find_mergers({name: ids[inside] for name, (ids, inside) in segments.items()}, merge_nodes)
    total = squared_runs = squared_lengths = 0.0
    shares: dict[str, float] = dict.fromkeys(("correct", "omitted", "split", "merged"), 0.0)
    for name in names:
        ids, inside = segments[name]
        edges = skeletons[name].edges
        counted = inside[edges].all(1)
        lengths = skeletons[name].lengths[counted]
        first, second = ids[edges[counted]].T
        omitted = (first == 0) | (second == 0)
        split = ~omitted & (first != second)
        merged = ~omitted & ~split & np.isin(first, mergers)
        correct = ~(omitted | split | merged)
        for kind, which in (("correct", correct), ("omitted", omitted), ("split", split), ("merged", merged)):
            shares[kind] += float(lengths[which].sum())
        _, run = np.unique(first[correct], return_inverse=True)
        squared_runs += float((np.bincount(run, lengths[correct]).astype(np.float64) ** 2).sum())
        squared_lengths += float(lengths.sum() ** 2)
        total += float(lengths.sum())
    conventions = {"merge_nodes": merge_nodes, "run": "all correct length of one skeleton in one segment"}
    if total == 0:
        empty = dict.fromkeys(("erl", "erl_max", "normalised_erl", *shares))
        return {**empty, "reason": "no skeleton has an edge inside the volume", "conventions": conventions}
    return {
        "erl": squared_runs / total,
        "erl_max": squared_lengths / total,
        "normalised_erl": squared_runs / squared_lengths,
        **{kind: length / total for kind, length in shares.items()},
        "length": total,
        "skeletons": len(names),
        "mergers": [int(i) for i in mergers],
        "conventions": conventions,
    }


def _find_mergers(nodes: Mapping[int, UInt64[np.ndarray, " _"]], merge_nodes: int) -> UInt64[np.ndarray, " mergers"]:
    """Finds segments that hold enough nodes of more than one skeleton."""
    touched = [np.zeros(0, np.uint64)]
    for ids in nodes.values():
        found, counts = np.unique(ids[ids != 0], return_counts=True)
        touched.append(found[counts >= merge_nodes])
    found, skeletons = np.unique(np.concatenate(touched), return_counts=True)
    return found[skeletons > 1]


def _read_nodes(
    nodes: Float[np.ndarray, "n 3"],
    labels: VoxelSource,
    voxel_size_zyx: tuple[float, float, float],
    offset_zyx: tuple[float, float, float],
) -> tuple[UInt64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Reads the segment at each node, in the blocks that hold nodes, and whether the node is inside the volume."""
    voxels = np.floor((nodes - np.array(offset_zyx)) / np.array(voxel_size_zyx)).astype(np.int64)
    inside = np.all((voxels >= 0) & (voxels < np.array(labels.shape)), axis=1)
    ids = np.zeros(len(nodes), np.uint64)
    blocks = voxels // np.array(BLOCK_ZYX)
    for block in np.unique(blocks[inside], axis=0):
        here = np.flatnonzero(inside & (blocks == block).all(1))
        start = block * BLOCK_ZYX
        box = tuple(
            slice(int(a), int(min(a + n, size))) for a, n, size in zip(start, BLOCK_ZYX, labels.shape, strict=True)
        )
        ids[here] = np.asarray(labels[box])[tuple((voxels[here] - start).T)]
    return ids, inside
