"""The symmetries of a voxel, and what they do to affinities.

One is written by the axes in their new order, in upper case those that are turned round: `zyx` is the volume as it is,
`Zyx` turns z round, `zxy` exchanges y and x. An affinity that joins v and v-1 joins, seen in a mirror, v and v+1: it is
the neighbour's, so a channel moves by its offset, and the voxel that this leaves without a value gets no weight.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emsam_jax.inference.errors import PredictionError
from emsam_jax.inference.grid import Grid
from emsam_jax.volumes.box import Voxel

_NAMED = ("none", "anisotropic", "isotropic")


class Source(NamedTuple):
    """Which of the model's channels gives a channel, and the shift at which it lies there."""

    channel: int
    shift: Voxel


@dataclasses.dataclass(frozen=True)
class Symmetry:
    order: tuple[int, int, int] = (0, 1, 2)  # axis i of the turned volume is this axis of the volume,
    flips: tuple[bool, bool, bool] = (False, False, False)  # then turned round

    def __str__(self) -> str:
        letters = ("zyx"[axis] for axis in self.order)
        return "".join(a.upper() if flip else a for a, flip in zip(letters, self.flips, strict=True))

    def sources(self, offsets: Sequence[Voxel]) -> tuple[Source | None, ...]:
        """For each channel; None where no channel of the turned volume joins such voxels."""
        turned: dict[tuple[int, ...], int] = {}
        for channel, offset in enumerate(offsets):
            back = [0, 0, 0]
            for axis, flip, steps in zip(self.order, self.flips, offset, strict=True):
                back[axis] = -steps if flip else steps
            turned[tuple(back)] = channel
        found: list[Source | None] = []
        for offset in offsets:
            opposite = tuple(-steps for steps in offset)
            if offset in turned:
                found.append(Source(turned[offset], (0, 0, 0)))
            else:
                found.append(Source(turned[opposite], offset) if opposite in turned else None)
        return tuple(found)

    def undo(
        self, values: Float[Array, "n z2 y2 x2 c"], sources: Sequence[Source | None]
    ) -> Float[Array, "n z y x channels"]:
        """Windows of the turned volume as those of the volume, channels likewise; 0 where there is no value."""
        flipped = jnp.flip(values, [1 + axis for axis in range(3) if self.flips[axis]])
        back = flipped.transpose(0, *(1 + self.order.index(axis) for axis in range(3)), 4)
        shape = back.shape[:-1]
        return jnp.stack(
            [jnp.zeros(shape) if s is None else shifted(back[..., s.channel], s.shift) for s in sources], axis=-1
        )


def shifted(values: Float[Array, "n z y x"], by: Voxel) -> Float[Array, "n z y x"]:
    """The value at v is the one that was at v + by, or 0 where that lies outside."""
    steps = [max(-n, min(n, step)) for step, n in zip(by, values.shape[1:], strict=True)]
    keep = [slice(max(0, step), n + min(0, step)) for step, n in zip(steps, values.shape[1:], strict=True)]
    pads = [(max(0, -step), max(0, step)) for step in steps]
    return jnp.pad(values[(slice(None), *keep)], [(0, 0), *pads])


def parse_symmetries(names: str | Iterable[str]) -> tuple[Symmetry, ...]:
    """From their names, or all those that voxels longer in z have (`anisotropic`, 16), or cubes (`isotropic`, 48)."""
    names = [names] if isinstance(names, str) else list(names)
    every = [
        Symmetry((z, y, x), (fz, fy, fx))
        for z, y, x in itertools.permutations(range(3))
        for fz, fy, fx in itertools.product((False, True), repeat=3)
    ]
    known = {str(symmetry): symmetry for symmetry in every}
    found: dict[Symmetry, None] = {}
    for name in names:
        if name in _NAMED:
            chosen = {"none": [Symmetry()], "isotropic": every}.get(name, [s for s in every if s.order[0] == 0])
        elif name in known:
            chosen = [known[name]]
        else:
            raise PredictionError(
                f"symmetries: expected {', '.join(_NAMED)}, or names such as zyx, Zyx, zxY; found {name!r}."
            )
        found |= dict.fromkeys(chosen)
    return tuple(found) or (Symmetry(),)


def check_symmetries(symmetries: Iterable[Symmetry], grid: Grid) -> None:
    for symmetry in symmetries:
        turned = tuple(grid.window[axis] for axis in symmetry.order)
        if turned != grid.window:
            raise PredictionError(
                f"symmetries: {symmetry} would turn the window {grid.window} (z, y, x) into {turned}; "
                "leave it out or choose a window with equal sides."
            )


def blending_weights(
    grid: Grid, symmetries: Sequence[Symmetry], offsets: Sequence[Voxel]
) -> Float[np.ndarray, "z y x c"]:
    """Of a window's values under each symmetry, such that those of all windows and symmetries sum up to 1 anywhere."""
    gaussian = grid.gaussian()
    weights = []
    for sources in zip(*(symmetry.sources(offsets) for symmetry in symmetries), strict=True):
        views = np.zeros(grid.window)  # that have a value for the voxel: their mean is the window's
        for source in sources:
            if source is not None:
                reach = zip(source.shift, grid.window, strict=True)
                views[tuple(slice(max(0, -step), max(0, min(n, n - step))) for step, n in reach)] += 1
        blended = grid.over_windows(gaussian * (views > 0))
        if not blended.all():
            raise PredictionError(
                f"symmetries: {', '.join(map(str, symmetries))} leave voxels without a value for the offset "
                f"{offsets[len(weights)]} (z, y, x); add zyx or choose a smaller stride."
            )
        weights.append(gaussian * (views > 0) / np.maximum(views, 1) / blended)
    return np.stack(weights, -1).astype(np.float32)
