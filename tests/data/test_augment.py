"""Augmentation: raw and labels stay together, ids stay ids, keys decide everything, symmetries are exact."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsam_jax.data import (
    NOTHING,
    Augmentation,
    Target,
    Windows,
    affinities_from_labels,
    make_augment,
    widen_borders,
)
from emsam_jax.data.augment import warp_one
from emsam_jax.data.intensity import add_noise, blur_section, cut_out, lose_part, lose_section
from emsam_jax.data.warp import crop, draw_field, sample_linear, sample_nearest

TARGET = Target(patch=(6, 32, 32))
STRONG = Augmentation(rotate=1.0, scale=1.0, elastic=1.0, slip=1.0, jump=1.0, misalign_voxels=5)
MOVES = ("rotate", "scale", "elastic", "slip", "jump")


@functools.cache
def warp(augmentation: Augmentation, target: Target):
    return jax.jit(functools.partial(warp_one, target=target, augmentation=augmentation))


def windows_of(values: np.ndarray, n: int) -> Windows:
    raw = np.broadcast_to(values, (n, *values.shape)).astype(np.uint8)
    grey_range = np.tile(np.array([0, 255], np.float32), (n, 1))
    return Windows(raw, raw.astype(np.int32) + 1, grey_range, np.arange(n, dtype=np.uint32))


def test_a_warped_checkerboard_agrees_in_raw_and_labels():
    z, y, x = np.indices(TARGET.window(STRONG))
    board = ((y // 9 + x // 9 + z) % 2 * 200).astype(np.uint8)
    field_seen = 0
    for seed in range(4):
        _, image, labels = warp(STRONG, TARGET)(
            jax.random.key(seed), board, board.astype(np.int32), jnp.array([0.0, 200.0])
        )
        inner = tuple(slice(n, n + side) for n, side in zip(TARGET.margin, TARGET.patch, strict=True))
        assert set(np.unique(labels)) == {0, 200}  # no id is invented
        np.testing.assert_array_equal(np.asarray(image) > 0.5, np.asarray(labels[inner]) == 200)
        field_seen += not np.array_equal(image, np.round(image))  # it did interpolate
    assert field_seen == 4


def test_no_warp_looks_beyond_the_window():
    """Each kind at its strongest, for many keys: every voxel read lies inside, also those to interpolate between."""
    window = TARGET.window(STRONG)
    z, y, x = (side + 2 * more for side, more in zip(TARGET.patch, TARGET.margin, strict=True))
    fields = jax.jit(jax.vmap(lambda key: draw_field(key, STRONG, (z, y, x), window, False)))(
        jax.random.split(jax.random.key(1), 500)
    )
    shifts = np.asarray(fields.shifts).swapaxes(1, 2)
    lowest = np.asarray(fields.plane).min((2, 3)) + shifts.min(2)
    highest = np.asarray(fields.plane).max((2, 3)) + shifts.max(2)
    assert lowest.min() >= 0
    assert np.ceil(highest).max() <= window[1] - 1
    assert highest.max() > window[1] - 12  # and no more is read than that
    assert np.asarray(fields.sections).min() >= 0
    assert np.asarray(fields.sections).max() <= window[0] - 1


def test_the_field_is_sampled_as_by_scipy():
    from scipy.ndimage import map_coordinates

    window = TARGET.window(STRONG)
    values = np.random.default_rng(0).integers(0, 255, window).astype(np.uint8)
    z, y, x = (side + 2 * more for side, more in zip(TARGET.patch, TARGET.margin, strict=True))
    field = crop(draw_field(jax.random.key(3), STRONG, (z, y, x), window, False), TARGET.margin, TARGET.patch)
    plane = np.asarray(field.plane)[None] + np.asarray(field.shifts)[:, :, None, None]
    at = np.stack([np.broadcast_to(np.asarray(field.sections)[:, None, None], TARGET.patch), *plane.swapaxes(0, 1)])
    expected = map_coordinates(values.astype(np.float64), at, order=1)
    np.testing.assert_allclose(sample_linear(jnp.asarray(values), field), expected, atol=2e-2)
    np.testing.assert_array_equal(sample_nearest(jnp.asarray(values), field), values[tuple(np.rint(at).astype(int))])


@pytest.mark.parametrize(("isotropic", "count"), [(False, 16), (True, 48)])
def test_symmetries_are_exact_and_all_there(isotropic, count):
    only = dataclasses.replace(NOTHING, symmetries=True)
    target = Target(patch=(4, 4, 4), widening="none", isotropic=isotropic)
    window = target.window(only)
    values = np.random.default_rng(0).permutation(np.prod(window)).reshape(window) % 251
    keys = jax.random.split(jax.random.key(0), 600)
    draw = functools.partial(warp_one, target=target, augmentation=only)
    _, images, _ = jax.jit(jax.vmap(draw, in_axes=(0, None, None, None)))(
        keys, values.astype(np.uint8), values.astype(np.int32), jnp.array([0.0, 255.0])
    )
    seen = {np.rint(255 * np.asarray(image)).astype(int).tobytes() for image in images}
    centre = values[tuple(slice((side - 4) // 2, (side - 4) // 2 + 4) for side in window)]
    exchanged = [(0, 1, 2), (0, 2, 1)]
    if isotropic:
        exchanged += [(1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    flips = [np.s_[:: 1 - 2 * a, :: 1 - 2 * b, :: 1 - 2 * c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    expected = {centre.transpose(axes)[flip].tobytes() for axes in exchanged for flip in flips}
    assert len(expected) == count
    assert seen == expected


def test_nothing_changes_nothing():
    values = np.random.default_rng(0).integers(0, 255, TARGET.window(NOTHING))
    batch = make_augment(TARGET, NOTHING, 0)(windows_of(values, 2))
    inner = tuple(slice(n, n + side) for n, side in zip(TARGET.margin, TARGET.patch, strict=True))
    np.testing.assert_allclose(batch.raw[1, ..., 0], values[inner] / 255, atol=1e-6)


def test_the_same_sample_is_bit_identical_and_another_is_not():
    values = np.random.default_rng(0).integers(0, 255, TARGET.window(STRONG))
    windows = windows_of(values, 4)
    augment = make_augment(TARGET, STRONG, 7)
    first, again = augment(windows), augment(Windows(*(np.roll(part, 1, 0) for part in windows)))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, np.roll(other, -1, 0))  # also in another place of the batch
    assert all(not np.array_equal(first.raw[0], row) for row in first.raw[1:])
    other_seed = make_augment(TARGET, STRONG, 8)(windows)
    assert not np.array_equal(first.raw, other_seed.raw)


def test_affinities_at_the_faces_are_true():
    """What lies beyond the patch is known: all valid, and as the labels around it say."""
    labels = np.zeros(TARGET.window(NOTHING), np.uint8)
    far = dataclasses.replace(TARGET, offsets=((-1, 0, 0), (0, -1, 0), (0, 0, -9)), widening="none")
    window = far.window(NOTHING)
    labels = np.ones(window, np.uint8)
    labels[:, :, : far.margin[2]] = 2  # another neuron up to the patch's left face
    batch = make_augment(far, NOTHING, 0)(windows_of(labels, 1))
    assert bool(batch.valid.all())
    expected = np.ones((*far.patch, 3), np.float32)
    expected[:, :, :9, 2] = 0
    np.testing.assert_array_equal(batch.affinities[0], expected)


def test_borders_at_the_faces_are_widened_by_what_lies_beyond():
    target = dataclasses.replace(TARGET, patch=(4, 6, 6), widening="faces", radius=2)
    more = 4
    shape = tuple(side + 2 * more for side in target.window(NOTHING))
    volume = np.kron(np.random.default_rng(0).integers(1, 4, (4, 4, 4)), np.ones((6, 6, 6), np.uint8)).astype(np.uint8)
    volume = volume[tuple(slice(side) for side in shape)]
    whole, _ = affinities_from_labels(np.asarray(widen_borders(jnp.asarray(volume, jnp.int32), "faces", 2)))
    window = volume[tuple(slice(more, side - more) for side in shape)]
    patch = tuple(slice(more + n, more + n + side) for n, side in zip(target.margin, target.patch, strict=True))
    found = make_augment(target, NOTHING, 0)(windows_of(window, 1)).affinities[0]
    np.testing.assert_array_equal(np.moveaxis(found, -1, 0), whole[(slice(None), *patch)])
    assert 0 < found.sum() < found.size


def test_losses_hit_what_they_should():
    image = jnp.full((8, 24, 24), 0.25).at[:, ::2].set(0.75)
    always = dataclasses.replace(
        Augmentation(), missing_section=1.0, missing_part=1.0, blurred_section=1.0, cut_out=1.0, noise=1.0
    )
    key = jax.random.key(0)

    def changed(of) -> np.ndarray:
        return np.asarray(of(key, image, always) != image)

    assert sorted(changed(lose_section).sum((1, 2)).tolist()) == [0] * 7 + [24 * 24]
    assert float(lose_section(key, image, always)[changed(lose_section)].max()) == 0
    part = sorted(changed(lose_part).sum((1, 2)).tolist())
    assert part[:7] == [0] * 7
    assert 0 < part[7] < 24 * 24
    blurred = blur_section(key, image, always)
    assert sorted(np.atleast_1d(changed(blur_section).any((1, 2)))) == [False] * 7 + [True]
    np.testing.assert_allclose(blurred.mean((1, 2)), 0.5, atol=0.02)
    box = np.argwhere(changed(cut_out))
    assert len(box) == np.prod(np.ptp(box, axis=0) + 1)
    assert abs(float((add_noise(key, image, always) - image).mean())) < 0.01
