"""The windows that sweep over a plan's blocks, under each symmetry, and how many calls of the programs they take."""

import functools
import itertools
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from emsam_jax.blocks import Plan
from emsam_jax.config import SHORT_OFFSETS
from emsam_jax.errors import UserError
from emsam_jax.inference.fitting import Fitted
from emsam_jax.inference.grid import Along, Extent
from emsam_jax.inference.programs import AffinityModel
from emsam_jax.inference.settings import Prediction
from emsam_jax.inference.symmetry import Symmetry, Undo, check_symmetries, parse_symmetries
from emsam_jax.volumes import Box, Voxel


class Sweep:
    """What follows from a model's shapes, the settings and the plan; parameters may be abstract."""

    def __init__(self, model: AffinityModel, settings: Prediction, plan: Plan):
        self.settings, self.plan = settings, plan
        self.grid = settings.grid()
        self.symmetries = parse_symmetries(settings.symmetries)
        check_symmetries(self.symmetries, self.grid)
        self.offsets = offsets_of(model)
        self.maps = 1 + settings.coarse
        check_maps(model, self.grid.window, len(self.offsets), settings.coarse)
        self.extent = Extent(self.grid, plan, {symmetry.order[0] for symmetry in self.symmetries})

    @property
    def channels(self) -> int:
        """Counts the channels: the refined map's, then the coarse one's where it is asked for."""
        return self.maps * len(self.offsets)

    @functools.cached_property
    def undo(self) -> dict[Symmetry, Undo | None]:
        if self.symmetries == (Symmetry(),):
            return dict.fromkeys(self.symmetries)
        return {s: s.undo(self.offsets, self.grid.window, self.maps) for s in self.symmetries}

    def turns(self) -> list[list[Symmetry]]:
        """Groups the symmetries that share columns, and what is encoded of them: all but a flip across sections."""
        turns: dict[tuple[Any, ...], list[Symmetry]] = {}
        for symmetry in self.symmetries:
            turns.setdefault((symmetry.order, symmetry.flips[1:]), []).append(symmetry)
        return list(turns.values())

    def count_windows(self) -> int:
        """Counts the windows of all blocks, under all symmetries; those of two blocks are computed for each."""
        return len(self.symmetries) * sum(
            times * math.prod(side.windows for side in sides) for sides, times in self._blocks().items()
        )

    def count_calls(self, fitted: Fitted) -> Counter[str]:
        """Counts the calls of each program for all blocks."""
        total: Counter[str] = Counter()
        for sides, times in self._blocks().items():
            for name, calls in self._calls(sides, fitted).items():
                total[name] += times * calls
        return total

    def count_steps(self, box: Box, fitted: Fitted) -> int:
        """Counts the calls of the decoder for a block."""
        sides = [self.extent.along(axis, box.start[axis], box.stop[axis]) for axis in range(3)]
        return self._calls(tuple(sides), fitted)["decode"]

    def _blocks(self) -> Counter[tuple[Along, ...]]:
        """Counts the blocks by what their windows are along each axis."""
        sides = [Counter(self.extent.intervals(axis)) for axis in range(3)]
        return Counter(
            {
                tuple(along for along, _ in each): math.prod(times for _, times in each)
                for each in itertools.product(*(side.items() for side in sides))
            }
        )

    def _calls(self, sides: tuple[Along, ...], fitted: Fitted) -> Counter[str]:
        calls = Counter(finish=1)
        for symmetries in self.turns():
            section, *plane = symmetries[0].order
            cuts = -(-math.prod(sides[axis].windows for axis in plane) // fitted.batch.columns)
            calls["cut"] += cuts
            if "encode" in fitted.programs:
                calls["encode"] += cuts * -(-sides[section].read // fitted.at_once)
            calls["decode"] += len(symmetries) * cuts * -(-sides[section].windows // fitted.batch.depth)
        calls["blend"] = calls["decode"]
        return calls


def offsets_of(model: AffinityModel) -> tuple[Voxel, ...]:
    """Of its channels; the short ones where its config names none."""
    return getattr(getattr(model, "config", None), "offsets", SHORT_OFFSETS)


def check_maps(model: AffinityModel, window: Voxel, channels: int, coarse: bool) -> None:
    z, y, x = window

    def look(model: AffinityModel, raw: Float[jax.Array, "1 z y x 1"]) -> Any:
        seen = model.encode(raw.reshape(z, y, x, 1))
        return model.decode(raw, tuple(f.reshape(1, z, *f.shape[1:]) for f in seen))

    maps = jax.eval_shape(look, model, jax.ShapeDtypeStruct((1, z, y, x, 1), jnp.float32))
    if coarse and maps.coarse is None:
        raise UserError("coarse: this model has no coarse decoder; leave the coarse map out.")
    if maps.refined.shape[-1] != channels:
        raise UserError(f"model.offsets: expected one for each of {maps.refined.shape[-1]} channels, found {channels}.")
