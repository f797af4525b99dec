"""Grows neurites that fill space: branching, tapering walks, and the voxels nearest to each, measured in radii.

Everything is in nm until voxels are labelled. Each point of a walk is a ball; a voxel belongs to the ball of least
|x - centre|^2 - radius^2, which a k-d tree answers in four dimensions: the fourth holds what a ball lacks in size.
"""

import dataclasses
import functools
from typing import NamedTuple

import bioimage_cpp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt32
from scipy.spatial import KDTree

Triple = tuple[float, float, float]


class Balls(NamedTuple):
    """Points along the walks, in nm."""

    centres: Float[np.ndarray, "n 3"]
    radii: Float[np.ndarray, " n"]
    neurites: Int[np.ndarray, " n"]
    mitochondria: Float[np.ndarray, "n 4"]  # centre and radius of the piece of mitochondrion inside; radius 0: none
    boutons: Float[np.ndarray, " n"]  # 1 where vesicles gather


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """Sizes and habits of the neurites."""

    radius: float = 165.0  # median, nm
    radius_spread: float = 0.4  # of the logarithm
    radius_range: tuple[float, float] = (75.0, 450.0)  # nm
    step: float = 0.4  # between balls, radii
    bend: float = 0.2  # change of direction a step
    branch: float = 0.03  # chance a step
    waviness: float = 65.0  # how far borders are bent, nm
    mitochondria: float = 0.06  # chance a step that one begins
    boutons: float = 0.03  # likewise
    mitochondrion_fill: tuple[float, float] = (0.5, 0.75)  # of the neurite's radius
    mitochondrion_girth: tuple[float, float] = (60.0, 170.0)  # radius, nm


def grow(rng: np.random.Generator, size: Triple, anatomy: Anatomy) -> Balls:
    """Grows walks from evenly scattered starts, both ways, until they leave the box [0, size] widened by a margin."""
    margin = 2 * anatomy.radius
    box = np.asarray(size) + 2 * margin
    # A start stands for the volume of a walk right through the box and its branches.
    reach = float(np.mean(box)) * 1.2
    count = max(int(1.6 * np.prod(box) / (np.pi * anatomy.radius**2 * reach)), 2)
    starts = _scatter(rng, count, box) - margin
    radii = anatomy.radius * np.exp(anatomy.radius_spread * rng.standard_normal(count))
    headings = _unit(rng.standard_normal((count, 3)))
    walkers = _Walkers(
        np.tile(starts, (2, 1)),
        np.concatenate([headings, -headings]),
        np.tile(np.clip(radii, *anatomy.radius_range), 2),
        np.tile(np.arange(count), 2),
        np.zeros((2 * count, 4)),
        np.zeros((2 * count, 2)),
    )
    trail = []
    for _ in range(10_000):
        walkers = _advance(rng, walkers, anatomy)
        inside = np.all((walkers.at > -margin) & (walkers.at < np.asarray(size) + margin), axis=1)
        walkers = _Walkers(*(state[inside & (walkers.radii > anatomy.radius_range[0])] for state in walkers))
        if not len(walkers.at):
            break
        trail.append(walkers)
    at, _, radii, neurites, mitochondria, _ = (np.concatenate(states) for states in zip(*trail, strict=True))
    left = np.concatenate([walkers.left for walkers in trail])
    inside = np.column_stack([at + mitochondria[:, :3], np.where(left[:, 0] > 0, mitochondria[:, 3], 0)])
    return Balls(at, radii, neurites, inside, (left[:, 1] > 0).astype(float))


class _Walkers(NamedTuple):
    at: Float[np.ndarray, "n 3"]
    headings: Float[np.ndarray, "n 3"]
    radii: Float[np.ndarray, " n"]
    neurites: Int[np.ndarray, " n"]
    mitochondria: Float[np.ndarray, "n 4"]  # offset from the axis and radius, nm
    left: Float[np.ndarray, "n 2"]  # nm until the mitochondrion and the bouton end


def _advance(rng: np.random.Generator, walkers: _Walkers, anatomy: Anatomy) -> _Walkers:
    at, headings, radii, neurites, mitochondria, left = walkers
    n = len(at)
    steps = anatomy.step * radii
    headings = _unit(headings + anatomy.bend * rng.standard_normal((n, 3)))
    at = at + steps[:, None] * headings
    radii = np.clip(radii * np.exp(0.12 * rng.standard_normal(n) - 0.004), 0, anatomy.radius_range[1])
    left = left - steps[:, None]

    begins = (left[:, 0] < -200) & (rng.random(n) < anatomy.mitochondria) & (radii > 110)
    girth = np.clip(rng.uniform(*anatomy.mitochondrion_fill, n) * radii, *anatomy.mitochondrion_girth)
    offset = _unit(rng.standard_normal((n, 3))) * ((radii - girth) * rng.uniform(0, 0.5, n))[:, None]
    mitochondria = np.where(begins[:, None], np.column_stack([offset, girth]), mitochondria)
    left[:, 0] = np.where(begins, rng.uniform(200, 1500, n), left[:, 0])
    gathers = (left[:, 1] < 0) & (rng.random(n) < anatomy.boutons)
    left[:, 1] = np.where(gathers, rng.uniform(200, 600, n), left[:, 1])

    grows = rng.random(n) < anatomy.branch
    aside = _unit(headings + rng.uniform(0.7, 1.6, (n, 1)) * _unit(rng.standard_normal((n, 3))))
    twigs = _Walkers(at, aside, 0.75 * radii, neurites, 0 * mitochondria, 0 * left)
    stems = _Walkers(at, headings, np.where(grows, 0.9, 1) * radii, neurites, mitochondria, left)
    return _Walkers(*(np.concatenate([stem, twig[grows]]) for stem, twig in zip(stems, twigs, strict=True)))


def _scatter(rng: np.random.Generator, count: int, box: np.ndarray) -> Float[np.ndarray, "n 3"]:
    """Scatters points that keep their distance: each is the candidate of ten that is farthest from those before."""
    points = rng.random((1, 3)) * box
    while len(points) < count:
        fresh = min(max(len(points) // 2, 1), count - len(points))
        candidates = rng.random((fresh, 10, 3)) * box
        distances, _ = KDTree(points).query(candidates)
        chosen = candidates[np.arange(fresh), np.argmax(distances, axis=1)]
        points = np.concatenate([points, chosen])
    return points


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], voxel_size: Triple, grain: float
) -> Float[np.ndarray, "z y x"]:
    """Draws noise of unit variance, smooth below `grain` nm: cubic B-splines on a lattice of random values."""
    bases = [_spline_basis(n * spacing / grain, n) for n, spacing in zip(shape, voxel_size, strict=True)]
    field = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
    for axis, basis in enumerate(bases):
        field = np.moveaxis(np.tensordot(basis, field, (1, axis)), 0, axis)
    return np.ascontiguousarray(field)


def _spline_basis(cells: float, n: int) -> Float[np.ndarray, "n lattice"]:
    lattice = np.arange(-1, int(np.ceil(cells)) + 2)
    t = np.abs((np.arange(n) + 0.5)[:, None] * cells / n - lattice)
    basis = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
    return (basis / np.sqrt(np.mean(np.sum(basis**2, axis=1)))).astype(np.float32)


def claim(
    rng: np.random.Generator,
    balls: Balls,
    shape: tuple[int, int, int],
    voxel_size: Triple,
    anatomy: Anatomy,
    *,
    classes: int = 1,
) -> tuple[Int[np.ndarray, "z y x"], Float[np.ndarray, "z y x 3"]]:
    """Returns each voxel's ball, and the bent coordinates, in nm, in which the ball is a ball.

    Where radii differ much, a tree for each of several classes of size answers sooner than one for all.
    """
    limits = np.geomspace(balls.radii.min(), balls.radii.max(), classes + 1)[1:-1]
    groups = [found for i in range(classes) if len(found := np.flatnonzero(np.digitize(balls.radii, limits) == i))]
    trees = [_tree(balls, group) for group in groups]
    bent = np.empty((*shape, 3), np.float32)
    for axis, (n, spacing) in enumerate(zip(shape, voxel_size, strict=True)):
        waves = smooth_noise(rng, shape, voxel_size, 3.5 * anatomy.waviness)
        waves += 0.3 * smooth_noise(rng, shape, voxel_size, 1.2 * anatomy.waviness)
        line = (np.arange(n, dtype=np.float32) + 0.5) * spacing
        bent[..., axis] = anatomy.waviness * waves + np.expand_dims(
            line, [other for other in range(3) if other != axis]
        )

    def query(coordinates: Float[np.ndarray, "... 3"]) -> Int[np.ndarray, "..."]:
        flat = np.zeros((*coordinates.shape[:-1], 4))
        flat[..., :3] = coordinates
        least, nearest = np.full(flat.shape[:-1], np.inf), np.zeros(flat.shape[:-1], np.int32)
        for (tree, largest), group in zip(trees, groups, strict=True):
            distances, found = tree.query(flat, workers=-1)
            power = distances**2 - largest**2
            nearest = np.where(power < least, group[found], nearest).astype(np.int32)
            least = np.minimum(power, least)
        return nearest

    # Every fourth voxel along fine axes first; then, twice as fine, only where neighbours belong to different neurites.
    steps = [4 if spacing < 2 * min(voxel_size) else 1 for spacing in voxel_size]
    nearest = query(bent[:: steps[0], :: steps[1], :: steps[2]])
    while max(steps) > 1:
        halved = np.flatnonzero([step > 1 for step in steps])
        unsure = _differs_nearby(balls.neurites[nearest], halved)
        steps = [max(step // 2, 1) for step in steps]
        finer = bent[:: steps[0], :: steps[1], :: steps[2]]
        for axis in halved:
            nearest, unsure = (np.repeat(a, 2, axis).take(range(finer.shape[axis]), axis) for a in (nearest, unsure))
        nearest[unsure] = query(finer[unsure])
    return nearest, bent


def _tree(balls: Balls, group: Int[np.ndarray, " m"]) -> tuple[KDTree, float]:
    """Returns the tree of some balls, and the radius of their largest."""
    radii = balls.radii[group]
    largest = float(radii.max())
    return KDTree(np.column_stack([balls.centres[group], np.sqrt(largest**2 - radii**2)]), leafsize=32), largest


def _differs_nearby(values: Int[np.ndarray, "z y x"], axes: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "z y x"]:
    """Returns whether any of the nearest along and across these axes has another value."""
    low, high = values, values
    for axis in axes:
        padded = [np.pad(a, [(int(other == axis),) * 2 for other in range(3)], mode="edge") for a in (low, high)]
        n = values.shape[axis]
        low, high = (
            functools.reduce(choose, (a.take(range(shift, shift + n), axis) for shift in range(3)))
            for choose, a in zip((np.minimum, np.maximum), padded, strict=True)
        )
    return low != high


def tidy(labels: UInt32[np.ndarray, "z y x"], smallest: int) -> UInt32[np.ndarray, "z y x"]:
    """Splits objects into connected ones; pieces below `smallest` voxels go to a neighbour."""
    pieces = bioimage_cpp.segmentation.label(labels, connectivity=1)
    sizes = np.bincount(pieces.ravel())
    crumbs = (sizes < smallest)[pieces]
    if crumbs.any() and not crumbs.all():
        where = bioimage_cpp.distance.distance_transform(crumbs, return_distances=False, return_indices=True)
        pieces = pieces[tuple(np.asarray(where))]
        pieces = bioimage_cpp.segmentation.label(pieces, connectivity=1)
    return pieces.astype(np.uint32)
