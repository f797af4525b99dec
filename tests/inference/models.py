"""Small models whose values are known, by the same formulas in numpy and in jax, and what they predict."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from flax import nnx

from emsam_jax.blocks import plan_blocks
from emsam_jax.config import ModelConfig
from emsam_jax.inference import Prediction, Predictor
from emsam_jax.inference.symmetry import Symmetry
from emsam_jax.model import Maps
from emsam_jax.volumes import Specimen, Volume, box_of
from tests.inference.brute_force import slide

WINDOW = (4, 8, 8)
RAW = np.random.default_rng(0).integers(0, 256, (11, 19, 26), dtype=np.uint8)
SHORT = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))


def specimen_of(raw: np.ndarray) -> Specimen:
    return Specimen(Volume(ts.array(raw), "an array", voxel_size_zyx=(40.0, 4.0, 4.0)))


def seen(xp: Any, sections: Any) -> Any:
    """[n, y, x, 1] -> [n, y/2, x/2, 2]: depends on the whole section and on where in it."""
    n, y, x, _ = sections.shape
    pooled = sections.reshape(n, y // 2, 2, x // 2, 2).mean((2, 4))
    slope = xp.arange(x // 2) / x
    return xp.stack([xp.sin(5 * pooled) - sections.mean((1, 2, 3))[:, None, None], pooled * slope[None, None]], -1)


def logits(xp: Any, raw: Any, features: Any) -> Any:
    """[b, z, y, x, 1] and [b, z, y/2, x/2, 2] -> [b, z, y, x, 3]: depends on the window and on where in it."""
    grey, guide = raw[..., 0], features.repeat(2, 2).repeat(2, 3)
    depth = xp.arange(grey.shape[1])[None, :, None, None] / 10
    return xp.stack(
        [
            3 * (grey - grey.mean((1, 2, 3))[:, None, None, None]) + depth,
            2 * guide[..., 0] - depth * guide[..., 1],
            grey * (guide[..., 0] + guide[..., 1]) - 0.5,
        ],
        -1,
    )


class OneSided(nnx.Module):
    """Has no symmetry at all."""

    def encode(self, sections: Any) -> Any:
        return (seen(jnp, sections),)

    def decode(self, raw: Any, features: Any) -> Maps:
        found = logits(jnp, raw, features[0])
        return Maps(-2 * found, found)


class Hungry(OneSided):
    """Needs terabytes for more than two windows at once."""

    def decode(self, raw, features):
        maps = super().decode(raw, features)
        if raw.shape[0] <= 2:
            return maps
        more = jnp.sort(jnp.broadcast_to(raw, (2**28, *raw.shape)), axis=0)
        return maps._replace(refined=maps.refined + more[17, ..., :1])


class Edges(nnx.Module):
    """An affinity for each offset from the two voxels that it joins, so that every symmetry of the voxel is one of
    the model: all that a symmetry changes is which channel holds the value, and at which of the two voxels.
    """

    def __init__(self, offsets: tuple[tuple[int, int, int], ...]):
        self.config = ModelConfig(offsets=offsets)
        self.scale = nnx.Param(jnp.float32(4))

    def encode(self, sections: Any) -> Any:
        return ()

    def decode(self, raw: Any, features: Any) -> Maps:
        grey = raw[..., 0]
        both = [grey + jnp.roll(grey, [-step for step in offset], (1, 2, 3)) for offset in self.config.offsets]
        return Maps(None, self.scale[...] * jnp.stack([sums - 1 for sums in both], -1))


def turned(symmetry: Symmetry, volume: Any) -> np.ndarray:
    """By the symmetry's definition."""
    return np.flip(volume.transpose(symmetry.order), tuple(axis for axis in range(3) if symmetry.flips[axis]))


def affinities_of(raw: np.ndarray) -> np.ndarray:
    """The one-sided model's, of one window [z, y, x] -> [z, y, x, 3]."""
    found = logits(np, raw[None, ..., None], seen(np, raw[..., None])[None])[0]
    return 1 / (1 + np.exp(-found))


def predict(model, raw, block, region=None, *, devices=1, **settings):
    """Block by block, put together."""
    region = region or box_of(raw.shape)
    plan = plan_blocks(box_of(raw.shape), region, block, (1, 1, 1))
    chosen = Prediction(**{"window": WINDOW, "dtype": "float32", **settings})
    predictor = Predictor(model, chosen, plan, devices=jax.devices()[:devices])
    found = np.full((predictor.channels, *region.shape), np.nan, np.float32)
    specimen = specimen_of(raw)
    for block_of_plan in plan:
        where = plan.output_box(block_of_plan).slices
        found[(slice(None), *where)] = predictor.predict_block(specimen, block_of_plan.box)
    return found


def whole(raw, window=WINDOW, stride=(2, 4, 4), predict_window=affinities_of):
    return slide(raw / 255, window, stride, SHORT, lambda grey: (values := predict_window(grey), np.ones_like(values)))
