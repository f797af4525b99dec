"""The symmetries of a voxel, and their effect on affinities.

A symmetry is written by its permuted axes, flipped ones in upper case: `zyx` is the identity, `Zyx` flips z, `zxy`
exchanges y and x. In a mirror, an affinity that joins v and v-1 joins v and v+1: it is the neighbour's, so a channel is
shifted by its offset, and the voxel that is left without a value gets no weight.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emsam_jax.errors import UserError
from emsam_jax.inference.grid import Grid
from emsam_jax.volumes import Voxel

WITHIN_SECTIONS = 16  # this many symmetries, the first of all, leave z where it is
_NAMED = ("none", "anisotropic", "isotropic")


class Undo(NamedTuple):
    """How to undo a symmetry, for each channel of the volume: the permuted one's channel that holds its values and,
    with the axes back in order, the index along each axis that has a voxel's value. The window's side as an index:
    there is none.
    """

    channels: Int[np.ndarray, " c"] | Int[Array, " c"]
    z: Int[np.ndarray, "c z"] | Int[Array, "c z"]
    y: Int[np.ndarray, "c y"] | Int[Array, "c y"]
    x: Int[np.ndarray, "c x"] | Int[Array, "c x"]


@dataclasses.dataclass(frozen=True)
class Symmetry:
    order: tuple[int, int, int] = (0, 1, 2)  # axis i of the turned volume is this axis of the volume,
    flips: tuple[bool, bool, bool] = (False, False, False)  # then turned round

    def __str__(self) -> str:
        letters = ("zyx"[axis] for axis in self.order)
        return "".join(a.upper() if flip else a for a, flip in zip(letters, self.flips, strict=True))

    def undo(self, offsets: Sequence[Voxel], window: Voxel, maps: int = 1) -> Undo:
        """Returns how to undo this symmetry, for `maps` maps of such channels one after the other."""
        turned: dict[tuple[int, ...], int] = {}
        for channel, offset in enumerate(offsets):
            back = [0, 0, 0]
            for axis, flip, steps in zip(self.order, self.flips, offset, strict=True):
                back[axis] = -steps if flip else steps
            turned[tuple(back)] = channel
        channels, places = [], ([], [], [])
        for offset in offsets:
            opposite = tuple(-steps for steps in offset)
            has_value = offset in turned or opposite in turned
            channels.append(turned.get(offset, turned.get(opposite, 0)))
            for axis, side in enumerate(window):
                place = np.arange(side) + (0 if offset in turned else offset[axis])
                inside = (place >= 0) & (place < side) & has_value
                place = side - 1 - place if self.flips[self.order.index(axis)] else place
                places[axis].append(np.where(inside, place, side))
        every = [channel + number * len(offsets) for number in range(maps) for channel in channels]
        z, y, x = (np.array(lines * maps, np.int32) for lines in places)
        return Undo(np.array(every, np.int32), z, y, x)


def undone(
    values: Float[Array, "n z2 y2 x2 c"], undo: Undo, order: tuple[int, int, int]
) -> Float[Array, "n z y x channels"]:
    """Undoes a symmetry of windows; 0 where there is no value."""
    back = values.transpose(0, *(1 + order.index(axis) for axis in range(3)), 4)
    channels = []
    for number, channel in enumerate(undo.channels):
        found = back[..., channel]
        for axis, places in enumerate((undo.z, undo.y, undo.x)):
            found = jnp.take(found, places[number], axis=1 + axis, mode="fill", fill_value=0)
        channels.append(found)
    return jnp.stack(channels, -1)


def all_symmetries() -> list[Symmetry]:
    """Lists all 48: the identity, then flips in the plane (4), in z too (8), then with y and x exchanged (16)."""
    return [
        Symmetry((z, y, x), (fz, fy, fx))
        for z, y, x in itertools.permutations(range(3))
        for fz, fy, fx in itertools.product((False, True), repeat=3)
    ]


def parse_symmetries(names: str | Iterable[str]) -> tuple[Symmetry, ...]:
    """Parses names, or `anisotropic` (16, of voxels longer in z) or `isotropic` (48, of cubes)."""
    names = [names] if isinstance(names, str) else list(names)
    every = all_symmetries()
    known = {str(symmetry): symmetry for symmetry in every}
    found: dict[Symmetry, None] = {}
    for name in names:
        if name in _NAMED:
            chosen = {"none": [Symmetry()], "isotropic": every}.get(name, [s for s in every if s.order[0] == 0])
        elif name in known:
            chosen = [known[name]]
        else:
            raise UserError(
                f"symmetries: expected {', '.join(_NAMED)}, or names such as zyx, Zyx, zxY; found {name!r}."
            )
        found |= dict.fromkeys(chosen)
    return tuple(found) or (Symmetry(),)


def check_symmetries(symmetries: Iterable[Symmetry], grid: Grid) -> None:
    for symmetry in symmetries:
        turned = tuple(grid.window[axis] for axis in symmetry.order)
        if turned != grid.window:
            raise UserError(
                f"symmetries: {symmetry} would turn the window {grid.window} (z, y, x) into {turned}; "
                "leave it out or choose a window with equal sides."
            )


def blending_weights(
    grid: Grid, symmetries: Sequence[Symmetry], offsets: Sequence[Voxel]
) -> Float[np.ndarray, "z y x c"]:
    """Returns weights of a window's values under each symmetry; over all windows and symmetries they sum to 1
    everywhere.

    An edge that leaves the window counts only where no window of the grid holds both of its voxels.
    """
    weights = []
    undos = [symmetry.undo(offsets, grid.window) for symmetry in symmetries]
    for channel, offset in enumerate(offsets):
        views = np.zeros(grid.window)  # that have a value for the voxel: their mean is the window's
        for undo in undos:
            z, y, x = (line[channel] < side for line, side in zip(undo[1:], grid.window, strict=True))
            views += z[:, None, None] & y[:, None] & x
        valued = grid.gaussian(offset) * (views > 0)
        within = valued * grid.holds_both(offset)
        blended = grid.over_windows(within)
        held = blended > 0
        valued, blended = np.where(held, within, valued), np.where(held, blended, grid.over_windows(valued))
        if not blended.all():
            raise UserError(
                f"symmetries: {', '.join(map(str, symmetries))} leave voxels without a value for the offset "
                f"{offset} (z, y, x); add zyx or choose a smaller stride."
            )
        weights.append(valued / np.maximum(views, 1) / blended)
    return np.stack(weights, -1).astype(np.float32)
