"""From samples to training batches, on the device: grey values, widened borders, affinities."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from emsam_jax.data.affinities import affinities_within, widen_borders
from emsam_jax.data.augmentation import Augmentation
from emsam_jax.data.intensity import change_greys
from emsam_jax.data.patches import Samples
from emsam_jax.data.target import BACKGROUND, UNLABELLED, Target, is_short


class Batch(NamedTuple):
    """What a model is trained on. Channel c of the affinities at voxel v joins v and v + offsets[c]."""

    raw: Float[Array, "b z y x 1"]  # on [0, 1]
    affinities: Float[Array, "b z y x c"]
    valid: Bool[Array, "b z y x c"]


def make_augment(target: Target, augmentation: Augmentation, seed: int) -> Callable[[Samples], Batch]:
    """Samples to a batch; what happens to sample i depends on (seed, i) alone.

    Two jitted functions in a row, because XLA would compute a voxel's widening anew for each neighbour that looks at
    it.
    """
    stain, join = _stages(target, augmentation)
    seed_key = jax.random.key(seed)

    def augment(samples: Samples) -> Batch:
        return join(*stain(seed_key, samples))

    return augment


@functools.cache
def _stages(target: Target, augmentation: Augmentation) -> tuple[Callable[..., Any], ...]:
    stain_each: Any = jax.vmap(functools.partial(stain_one, target=target, augmentation=augmentation))

    def stain(
        seed_key: Key[Array, ""], samples: Samples
    ) -> tuple[Float[Array, "b z y x"], Int[Array, "b zl yl xl"], Int[Array, "b zl yl xl"]]:
        keys = jax.vmap(functools.partial(jax.random.fold_in, seed_key))(samples.number)
        return stain_each(keys, samples.raw, samples.labels)

    return jax.jit(stain), jax.jit(jax.vmap(functools.partial(join_one, target=target)))


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
        affinities_within(source, known, [offset], BACKGROUND, start=target.margin.before, shape=target.patch)
        for offset in target.offsets
        for source in (widened if is_short(offset) else labels,)
    ]
    affinities, valid = (jnp.concatenate(parts) for parts in zip(*channels, strict=True))
    return Batch(image[..., None], jnp.moveaxis(affinities, 0, -1), jnp.moveaxis(valid, 0, -1))
