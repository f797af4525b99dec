"""From windows as they were read to training batches, on the device: warp, grey values, affinities."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt

from emsam_jax.data.affinities import SHORT_OFFSETS, Offset, Widening, affinities_within, widen_borders
from emsam_jax.data.augmentation import Augmentation, Voxels, window_shape
from emsam_jax.data.intensity import change_greys
from emsam_jax.data.warp import crop, draw_field, sample_linear, sample_nearest

BACKGROUND, UNLABELLED = 0, -1  # in windows of labels, whatever the volume's own ids are


class Windows(NamedTuple):
    """What the host reads: patches with what lies around them. Inverted contrast has a grey range turned round."""

    raw: UInt[Array, "*b zw yw xw"] | UInt[np.ndarray, "*b zw yw xw"]
    labels: Int[Array, "*b zw yw xw"] | Int[np.ndarray, "*b zw yw xw"]  # neurons > 0
    grey_range: Float[Array, "*b 2"] | Float[np.ndarray, "*b 2"]  # raw values that become 0 and 1
    number: UInt[Array, "*b"] | UInt[np.ndarray, "*b"]  # of the sample


class Batch(NamedTuple):
    """What a model is trained on. Channel c of the affinities at voxel v joins v and v + offsets[c]."""

    raw: Float[Array, "b z y x 1"]  # on [0, 1]
    affinities: Float[Array, "b z y x c"]
    valid: Bool[Array, "b z y x c"]


@dataclasses.dataclass(frozen=True)
class Target:
    """Which affinities of which patch."""

    patch: Voxels = (18, 160, 160)
    offsets: tuple[Offset, ...] = SHORT_OFFSETS
    widening: Widening = "2d"  # of borders: none, 2d (anisotropic voxels), faces or 3d (isotropic)
    radius: int = 1  # of the widening, voxels
    isotropic: bool = False  # all axes may be exchanged; the warp stays within planes

    @property
    def margin(self) -> Voxels:
        """Voxels around the patch on each side that affinities and widening at its faces look at."""
        reach = [max(abs(offset[axis]) for offset in self.offsets) for axis in range(3)]
        widened = {"none": (), "2d": (1, 2), "3d": (0, 1, 2), "faces": (0, 1, 2)}[self.widening]
        z, y, x = (n + (self.radius if axis in widened else 0) for axis, n in enumerate(reach))
        return z, y, x

    def window(self, augmentation: Augmentation) -> Voxels:
        """Voxels to read for a patch, whose centre is theirs."""
        return window_shape(self.patch, self.margin, augmentation, self.isotropic)


def make_augment(target: Target, augmentation: Augmentation, seed: int) -> Callable[[Windows], Batch]:
    """Windows to a batch; what happens to sample i depends on (seed, i) alone.

    Three jitted functions in a row, because XLA would compute a voxel's warp anew for each neighbour that looks at it:
    in one function this takes 3 times as long on the CPU.
    """
    warp, stain, join = _stages(target, augmentation)
    seed_key = jax.random.key(seed)

    def augment(windows: Windows) -> Batch:
        return join(*stain(*warp(seed_key, windows)))

    return augment


@functools.cache
def _stages(target: Target, augmentation: Augmentation) -> tuple[Callable[..., Any], ...]:
    options = {"target": target, "augmentation": augmentation}

    def warp(
        seed_key: Key[Array, ""], windows: Windows
    ) -> tuple[Key[Array, " b"], Float[Array, "b z y x"], Int[Array, "b zl yl xl"]]:
        keys = jax.vmap(functools.partial(jax.random.fold_in, seed_key))(windows.number)
        return jax.vmap(functools.partial(warp_one, **options))(keys, windows.raw, windows.labels, windows.grey_range)

    return (
        jax.jit(warp),
        jax.jit(jax.vmap(functools.partial(stain_one, **options))),
        jax.jit(jax.vmap(functools.partial(join_one, target=target))),
    )


def warp_one(
    key: Key[Array, ""],
    raw: UInt[Array, "zw yw xw"],
    labels: Int[Array, "zw yw xw"],
    grey_range: Float[Array, "2"],
    *,
    target: Target,
    augmentation: Augmentation,
) -> tuple[Key[Array, ""], Float[Array, "z y x"], Int[Array, "zl yl xl"]]:
    """A key for what follows, the patch on [0, 1], and its labels with their margin."""
    field_key, grey_key = jax.random.split(key)
    z, y, x = (side + 2 * more for side, more in zip(target.patch, target.margin, strict=True))
    field = draw_field(field_key, augmentation, (z, y, x), raw.shape, target.isotropic)
    low, high = grey_range
    image = sample_linear(raw, crop(field, target.margin, target.patch))
    return grey_key, jnp.clip((image - low) / (high - low), 0, 1), sample_nearest(labels, field)


def stain_one(
    key: Key[Array, ""],
    image: Float[Array, "z y x"],
    labels: Int[Array, "zl yl xl"],
    *,
    target: Target,
    augmentation: Augmentation,
) -> tuple[Float[Array, "z y x"], Int[Array, "zl yl xl"], Int[Array, "zl yl xl"]]:
    """Other grey values; labels as they are and with widened borders."""
    widened = widen_borders(labels, target.widening, target.radius, BACKGROUND, UNLABELLED)
    return change_greys(key, image, augmentation), labels, widened


def join_one(
    image: Float[Array, "z y x"],
    labels: Int[Array, "zl yl xl"],
    widened: Int[Array, "zl yl xl"],
    *,
    target: Target,
) -> Batch:
    """A batch without its first axis. Only channels to neighbours see the widened borders."""
    known = labels != UNLABELLED
    channels = [
        affinities_within(source, known, target.margin, [offset], BACKGROUND)
        for offset in target.offsets
        for source in (widened if max(map(abs, offset)) == 1 else labels,)
    ]
    affinities, valid = (jnp.concatenate(parts) for parts in zip(*channels, strict=True))
    return Batch(image[..., None], jnp.moveaxis(affinities, 0, -1), jnp.moveaxis(valid, 0, -1))
