"""Settings of a prediction."""

import dataclasses
import itertools
import math
from typing import Any, Literal

from absl import logging

from emsam_jax.config import Config, check_patch, multiples
from emsam_jax.errors import UserError
from emsam_jax.inference.grid import Grid
from emsam_jax.inference.symmetry import WITHIN_SECTIONS, all_symmetries
from emsam_jax.volumes import Voxel


@dataclasses.dataclass(frozen=True)
class Prediction:
    window: tuple[int, ...] = ()  # voxels z, y, x; `window_of` gives that of an experiment
    stride: tuple[int, ...] = ()  # voxels z, y, x between windows; empty: half a window
    block: tuple[int, ...] = ()  # voxels z, y, x, rounded up to chunks; empty: whole shards, about 4 windows a side
    dtype: Literal["float16", "uint8", "float32"] = "float16"  # on disk; uint8 is 255 times the affinity
    coarse: bool = False  # also the coarse decoder's map, in `coarse` below the output
    symmetries: tuple[str, ...] = ("none",)  # averaged over: none, anisotropic (16), isotropic (48), or zyx, Zyx, ..
    batch: int = 0  # windows at once on each device; 0: chosen by device; fewer where memory asks for it
    encode_once: bool = True  # a section serves all windows along z that hold it
    check: bool = True  # when resuming, compare finished blocks with their checksums
    progress: bool = True  # a bar with voxels a second and the time left

    def grid(self) -> Grid:
        if len(self.window) != 3 or min(self.window) < 1:
            raise UserError(f"window: expected three voxel counts (z, y, x), found {self.window}.")
        z, y, x = self.window
        stride = self.stride or tuple(max(1, side // 2) for side in self.window)
        if len(stride) != 3 or not all(0 < step <= side for step, side in zip(stride, self.window, strict=True)):
            raise UserError(
                f"stride: expected three voxel counts from 1 to the window's {self.window} (z, y, x), found {stride}."
            )
        return Grid((z, y, x), (stride[0], stride[1], stride[2]))

    def block_shape(self, chunk: Voxel, shard: Voxel) -> Voxel:
        """Returns the block's shape: more windows in a block mean fewer that are computed for two blocks."""
        if self.block and (len(self.block) != 3 or min(self.block) < 1):
            raise UserError(f"block: expected three voxel counts (z, y, x), found {self.block}.")
        if self.block:
            z, y, x = (own * -(-side // own) for own, side in zip(chunk, self.block, strict=True))
        else:
            z, y, x = (own * max(1, 4 * side // own) for own, side in zip(shard, self.grid().window, strict=True))
        return z, y, x


def settings_from(config: Config, **more: Any) -> Prediction:
    """Converts an experiment's settings: strides are shares of the window; the first `symmetries` are used."""
    chosen, window = config.predict, window_of(config)
    if window != config.data.patch:
        logging.warning(
            "Prediction: windows of %s (z, y, x), where the model was trained on patches of %s; group normalisation "
            "takes its means over the window, so that affinities depend on it.",
            window,
            config.data.patch,
        )
    stride = tuple(max(1, round(share * side)) for share, side in zip(chosen.stride, window, strict=True))
    return Prediction(
        window=window,
        stride=stride,
        block=chosen.block,
        dtype=chosen.dtype,
        coarse=chosen.coarse,
        symmetries=tuple(map(str, all_symmetries()[: chosen.symmetries])),
        batch=chosen.batch,
        **more,
    )


def window_of(config: Config) -> Voxel:
    """Returns the window z, y, x: the one that was asked for, or the patch; or, where symmetries exchange z with
    other axes, the smallest cube that the model takes and that holds as many voxels as the patch.
    """
    chosen = config.predict
    turned = chosen.symmetries > WITHIN_SECTIONS
    if turned and not config.model.isotropic:
        raise UserError(
            f"predict.symmetries: expected 1 to {WITHIN_SECTIONS}, since this model is not isotropic and z cannot be "
            f"exchanged with other axes, found {chosen.symmetries}."
        )
    if chosen.window:
        if len(chosen.window) != 3:
            raise UserError(f"predict.window: expected three voxel counts (z, y, x), found {chosen.window}.")
        check_patch(config.model, chosen.window, "predict.window")
        z, y, x = chosen.window
        return z, y, x
    patch = config.data.patch
    if not turned or len(set(patch)) == 1:
        return patch
    multiple = math.lcm(*multiples(config.model))
    side = next(n for n in itertools.count(multiple, multiple) if n**3 >= math.prod(patch))
    return side, side, side
