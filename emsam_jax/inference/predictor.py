"""Predicts blocks of affinities from a model: every window that touches a block, blended on the device.

Windows that overlap in z share their sections, so that for each place in the plane the sections of the block's depth
are encoded once and then decoded window by window. The same holds for each symmetry within sections; a volume flipped
in z shares even those.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, Int

from emsam_jax.blocks import Plan
from emsam_jax.inference.fitting import Fitted, fewer, fit, usual_batch
from emsam_jax.inference.programs import AffinityModel, ColumnFeatures, Devices, Windows, programs_for
from emsam_jax.inference.settings import Prediction
from emsam_jax.inference.sweep import Sweep
from emsam_jax.inference.symmetry import Symmetry, blending_weights
from emsam_jax.targets import out_of_memory
from emsam_jax.volumes import Box, Specimen, Voxel, reflect

_IN_FLIGHT = 2  # steps queued on the device
Watch = Callable[[str, Any], object]  # called with a stage's name and what it gave, which may still be under way


class Region(NamedTuple):
    """What the windows of a block see of the volume."""

    raw: jax.Array  # z y x, on [0, 1], as large for every block
    first: Voxel  # the volume's voxel at its start
    box: Box  # the block


class Columns(NamedTuple):
    """Windows at some places of the plane; along z each place holds the same ones."""

    places: list[tuple[int, ...]]  # where they start in the plane; the last ones may only fill up the devices
    real: int  # how many do not
    tiles: jax.Array  # m n y x


class Predictor:
    """Compiled for the blocks of one plan."""

    def __init__(
        self,
        model: AffinityModel,
        settings: Prediction,
        plan: Plan,
        *,
        devices: Devices | None = None,
        watch: Watch = lambda stage, result: None,
    ):
        self.settings, self.plan, self.watch = settings, plan, watch
        self.sweep = Sweep(model, settings, plan)
        self.grid, self.extent = self.sweep.grid, self.sweep.extent
        weights = blending_weights(self.grid, self.sweep.symmetries, self.sweep.offsets)
        weights = np.concatenate([weights] * self.sweep.maps, -1)
        devices = jax.local_devices() if devices is None else devices
        self._programs = programs_for(tuple(devices), settings.coarse, settings.encode_once)
        self._model, self._weights = jax.device_put((model, weights), self._programs.everywhere)
        self._features: ColumnFeatures | None = None
        self.advance: Callable[[float], object] = lambda voxels: None  # called as parts of a block are computed
        self._steps: deque[tuple[jax.Array, float]] = deque()  # under way, with voxels of the block for each
        self.fitted = self._fit(settings.batch or usual_batch(devices[0]))

    @property
    def channels(self) -> int:
        return self.sweep.channels

    def predict_block(self, specimen: Specimen, box: Box) -> np.ndarray:
        """Predicts affinities [c, z, y, x] of a block of the plan, in the stored type."""
        return self.fetch(self.predict(self.read(specimen, box)), box)

    def fetch(self, found: jax.Array, box: Box) -> np.ndarray:
        return np.asarray(found)[(slice(None), *(slice(side) for side in box.shape))]

    def read(self, specimen: Specimen, box: Box) -> Region:
        """Reads what a block's windows see. Thread-safe, so that blocks are prefetched."""
        read = self.extent.read_box(box)
        values = specimen.read_normalised(read)
        if values.shape != self.extent.read_shape:
            wide = [(0, size - side) for size, side in zip(self.extent.read_shape, values.shape, strict=True)]
            values = np.pad(values, wide)
        return Region(jax.device_put(values, self._programs.everywhere), read.start, box)

    def predict(self, region: Region) -> jax.Array:
        """Predicts [c, z, y, x] of the whole block shape; values beyond the region's box are undefined."""
        while True:
            self._steps.clear()
            try:
                found = jax.block_until_ready(self._predict(region))
                self._end_steps(0)
                return found
            except jax.errors.JaxRuntimeError as error:
                if not out_of_memory(error):
                    raise
                logging.warning("The device ran out of memory with %s at once; trying fewer.", self.fitted.batch)
                self._features = None
                self.fitted = self._fit(fewer(self.fitted.windows, self.extent))

    def _end_steps(self, left: int) -> None:
        while len(self._steps) > left:
            values, voxels = self._steps.popleft()
            jax.block_until_ready(values)
            self.advance(voxels)

    def _fit(self, windows: int) -> Fitted:
        return fit(
            self._model,
            self._programs,
            self.extent,
            windows=windows,
            channels=self.channels,
            encode_once=self.settings.encode_once,
        )

    def _predict(self, region: Region) -> jax.Array:
        shape = (self._programs.devices, *self.extent.total_shape, self.channels)
        total = jnp.zeros(shape, jnp.float32, device=self._programs.columns)
        for symmetries in self.sweep.turns():
            axis = symmetries[0].order[0]
            sections = self._inside(region, axis, np.array(self._starts(region, axis)))
            for columns in self._columns(region, symmetries[0]):
                windows = self._encode(columns, sections)
                for symmetry in symmetries:
                    total = self._decode(total, region, symmetry, columns, windows)
        start = np.subtract(region.box.start, self.extent.first(region.box)).astype(np.int32)
        return self._programs.finish(total, start, shape=self.plan.block, dtype=self.settings.dtype)

    def _columns(self, region: Region, symmetry: Symmetry) -> Iterator[Columns]:
        """Yields all places of the plane, a batch of columns at a time."""
        _, *plane = symmetry.order
        every = list(itertools.product(*(self._starts(region, axis) for axis in plane)))
        size = self.fitted.batch.columns
        for at in range(0, len(every), size):
            places = every[at : at + size]
            real = len(places)
            places += places[-1:] * (size - real)
            lines = []
            for axis, flip, starts in zip(plane, symmetry.flips[1:], zip(*places, strict=True), strict=True):
                inside = self._inside(region, axis, np.array(starts))
                lines.append(jax.device_put(inside[:, ::-1] if flip else inside, self._programs.columns))
            tiles = self._programs.cut(region.raw, *lines, order=symmetry.order, depth=self.extent.sections)
            self.watch("cut", tiles)
            yield Columns(places, real, tiles)

    def _encode(self, columns: Columns, sections: Int[np.ndarray, "q side"]) -> Windows:
        """Encodes each section of the columns' windows once."""
        encode, at_once = self.fitted.programs.get("encode"), self.fitted.at_once
        needed, places = np.unique(sections, return_inverse=True)
        if encode is not None:
            if self._features is None:
                self._features = tuple(jnp.zeros(f.shape, f.dtype, device=f.sharding) for f in self.fitted.features)
            for place in range(0, len(needed), at_once):
                chosen = needed[np.minimum(np.arange(place, place + at_once), len(needed) - 1)]
                self._features = encode(self._model, columns.tiles, chosen, self._features, np.int32(place))
                self.watch("encode", self._features)
        return Windows(sections, places.reshape(sections.shape).astype(np.int32))

    def _decode(
        self,
        total: Float[jax.Array, "devices z y x c"],
        region: Region,
        symmetry: Symmetry,
        columns: Columns,
        windows: Windows,
    ) -> Float[jax.Array, "devices z y x c"]:
        """Decodes the columns' windows, some of each at a time, and adds them to the block."""
        batch = self.fitted.batch
        turn = slice(None, None, -1 if symmetry.flips[0] else 1)
        first = self.extent.first(region.box)
        section, *plane = symmetry.order
        starts = np.array(self._starts(region, section))
        share = region.box.voxels / self.sweep.count_steps(region.box, self.fitted)
        for step in range(0, len(starts), batch.depth):
            chosen = np.arange(step, step + batch.depth)
            within = np.minimum(chosen, len(starts) - 1)
            some = Windows(*(of_all[within, turn] for of_all in windows))
            values = self.fitted.programs["decode"](self._model, columns.tiles, self._features or (), some)
            self.watch("decode", values)
            self._steps.append((values, share))
            self._end_steps(_IN_FLIGHT)
            at = np.zeros((batch.columns, batch.depth, 3), np.int32)
            at[..., section] = starts[within] - first[section]
            at[..., plane] = (np.array(columns.places) - [first[axis] for axis in plane])[:, None]
            real = (np.arange(batch.columns) < columns.real)[:, None] & (chosen < len(starts))
            total = self._programs.blend(
                total,
                values,
                self._weights,
                at,
                real.astype(np.float32),
                undo=self.sweep.undo[symmetry],
                order=symmetry.order,
            )
            self.watch("blend", total)
        return total

    def _starts(self, region: Region, axis: int) -> range:
        return self.grid.starts(axis, region.box.start[axis], region.box.stop[axis])

    def _inside(self, region: Region, axis: int, starts: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n side"]:
        """Returns where the voxels of windows with these starts lie in the region's raw."""
        indices = starts[:, None] + np.arange(self.grid.window[axis])
        return (reflect(indices, self.plan.volume.stop[axis]) - region.first[axis]).astype(np.int32)
