"""Turns samples into training batches on the device: grey values, widened borders, affinities.

Grey values are in [0, 1], and change as microscopes, staining and lost sections change them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from emsam_jax.config import Augmentation
from emsam_jax.data.affinities import BACKGROUND, UNLABELLED, Target, affinities_within, is_short, widen_borders
from emsam_jax.data.patches import Samples

Image = Float[Array, "z y x"]


def change_greys(key: Key[Array, ""], image: Image, augmentation: Augmentation) -> Image:
    """Changes grey values in the order in which it would happen: stain, focus, noise, loss."""
    changes = (change_contrast, blur_section, add_noise, lose_part, lose_section, cut_out)
    for change_key, change in zip(jax.random.split(key, len(changes)), changes, strict=True):
        image = change(change_key, image, augmentation)
    return jnp.clip(image, 0, 1)


def change_contrast(key: Key[Array, ""], image: Image, augmentation: Augmentation) -> Image:
    """Changes contrast, brightness and gamma of the volume, then of each section."""
    if not augmentation.grey:
        return image
    n = image.shape[0]
    contrast, brightness, gamma = jnp.ones((n, 1, 1)), jnp.zeros((n, 1, 1)), jnp.zeros((n, 1, 1))
    whole = (augmentation.volume_contrast, augmentation.volume_brightness, augmentation.volume_gamma)
    each = (augmentation.section_contrast, augmentation.section_brightness, augmentation.section_gamma)
    for strengths, count in ((whole, 1), (each, n)):
        key, chance_key, draw_key = jax.random.split(key, 3)
        draws = jax.random.uniform(draw_key, (3, count, 1, 1), minval=-1) * jnp.array(strengths)[:, None, None, None]
        by, up, exponent = draws * (jax.random.uniform(chance_key) < augmentation.grey)
        contrast, brightness, gamma = contrast * (1 + by), brightness + up, gamma + exponent
    return jnp.clip((image - 0.5) * contrast + 0.5 + brightness, 0, 1) ** jnp.exp(gamma)


def blur_section(key: Key[Array, ""], image: Image, augmentation: Augmentation) -> Image:
    if not augmentation.blurred_section:
        return image
    section, chance, strength = _one_section(key, image)
    sigma = jnp.maximum(strength[0] * augmentation.blur_voxels, 0.5)

    def smoothing(n: int) -> Float[Array, "n n"]:
        at = jnp.arange(n, dtype=jnp.float32)
        weights = jnp.exp(-((at[:, None] - at[None]) ** 2) / (2 * sigma**2))
        return weights / weights.sum(1, keepdims=True)

    sharp = jax.lax.dynamic_index_in_dim(image, section, keepdims=False)
    blurred = smoothing(sharp.shape[0]) @ sharp @ smoothing(sharp.shape[1]).T
    chosen = jnp.where(chance < augmentation.blurred_section, blurred, sharp)
    return jax.lax.dynamic_update_index_in_dim(image, chosen, section, 0)


def add_noise(key: Key[Array, ""], image: Image, augmentation: Augmentation) -> Image:
    if not augmentation.noise:
        return image
    strength_key, noise_key = jax.random.split(key)
    chance, strength = jax.random.uniform(strength_key, (2,))
    sigma = jnp.where(chance < augmentation.noise, strength * augmentation.noise_sigma, 0)
    return image + sigma * jax.random.normal(noise_key, image.shape)


def lose_part(key: Key[Array, ""], image: Image, augmentation: Augmentation) -> Image:
    """Blackens one section on one side of a line."""
    if not augmentation.missing_part:
        return image
    section, chance, (angle, distance) = _one_section(key, image)
    z, y, x = image.shape
    at_y, at_x = jnp.arange(y)[:, None] / y - 0.5, jnp.arange(x)[None] / x - 0.5
    beyond = jnp.cos(2 * jnp.pi * angle) * at_y + jnp.sin(2 * jnp.pi * angle) * at_x > 0.7 * (distance - 0.5)
    hit = (jnp.arange(z) == section) & (chance < augmentation.missing_part)
    return jnp.where(hit[:, None, None] & beyond[None], 0, image)


def lose_section(key: Key[Array, ""], image: Image, augmentation: Augmentation) -> Image:
    if not augmentation.missing_section:
        return image
    section, chance, _ = _one_section(key, image)
    hit = (jnp.arange(image.shape[0]) == section) & (chance < augmentation.missing_section)
    return jnp.where(hit[:, None, None], 0, image)


def cut_out(key: Key[Array, ""], image: Image, augmentation: Augmentation) -> Image:
    """Fills a box with the mean grey of the patch."""
    if not augmentation.cut_out:
        return image
    place_key, size_key, chance_key = jax.random.split(key, 3)
    sides = jnp.array(image.shape)
    size = jnp.maximum(jax.random.uniform(size_key, (3,), minval=0.3) * augmentation.cut_out_share * sides, 1)
    start = jax.random.uniform(place_key, (3,)) * (sides - size)
    z, y, x = (
        (jnp.arange(n) >= first) & (jnp.arange(n) < first + length)
        for n, first, length in zip(image.shape, start, size, strict=True)
    )
    hit = jax.random.uniform(chance_key) < augmentation.cut_out
    box = hit & z[:, None, None] & y[None, :, None] & x[None, None]
    return jnp.where(box, image.mean(), image)


def _one_section(key: Key[Array, ""], image: Image) -> tuple[Array, Array, Float[Array, "2"]]:
    place_key, chance_key = jax.random.split(key)
    chance, *free = jax.random.uniform(chance_key, (3,))
    return jax.random.randint(place_key, (), 0, image.shape[0]), chance, jnp.stack(free)


class Batch(NamedTuple):
    """A training batch. Channel c of the affinities at voxel v joins v and v + offsets[c]."""

    raw: Float[Array, "b z y x 1"]  # on [0, 1]
    affinities: Float[Array, "b z y x c"]
    valid: Bool[Array, "b z y x c"]


def make_augment(target: Target, augmentation: Augmentation, seed: int) -> Callable[[Samples], Batch]:
    """Returns the function from samples to a batch; what happens to sample i depends on (seed, i) alone.

    Two jitted functions in a row, because XLA would compute a voxel's widening anew for each neighbour that reads it.
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
