"""Augmentation: raw and labels stay together, ids stay ids, seeds decide everything, symmetries are exact."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsam_jax.config import NOTHING, Augmentation, Voxels
from emsam_jax.data import Target, affinities_from_labels, make_augment, widen_borders
from emsam_jax.data.affinities import Margin
from emsam_jax.data.augment import add_noise, blur_section, cut_out, lose_part, lose_section
from emsam_jax.data.patches import Samples
from emsam_jax.data.warp import Turn, WarpField, draw_field, sample_linear, sample_nearest, turns
from emsam_jax.volumes import Box

UNEVEN = Target((6, 32, 24), ((-1, 0, 0), (0, -2, 0), (0, 0, -3), (0, 1, 2)), widening="none")
PATCH = UNEVEN.patch
STRONG = Augmentation(rotate=1.0, scale=1.0, elastic=1.0, slip=1.0, jump=1.0, misalign_voxels=5)
TARGET = Target(patch=(6, 32, 32))


def place_of(turn: Turn, start: Voxels = (40, 40, 40), patch: Voxels = PATCH) -> Box:
    z, y, x = turn.shape(patch)
    return Box((0, 0, 0), (z, y, x)).shifted(start)


def strong_field(seed: int, turn: Turn) -> WarpField:
    return draw_field(np.random.default_rng(seed), STRONG, UNEVEN, turn, place_of(turn))


def reading(values: np.ndarray):
    return lambda box: values[box.slices]


def samples_of(labels: np.ndarray, target: Target, n: int) -> Samples:
    """The same patch so many times; raw as bright as labels are high."""
    inner = tuple(slice(a, a + side) for a, side in zip(target.margin.before, target.patch, strict=True))
    many = np.broadcast_to(labels, (n, *labels.shape)).astype(np.int32)
    return Samples((many[:, *inner] / 255).astype(np.float32), many, np.arange(n, dtype=np.uint32))


def with_margin(target: Target) -> Voxels:
    z, y, x = (sum(sides) for sides in zip(*target.margin, target.patch, strict=True))
    return z, y, x


@pytest.mark.parametrize("turn", [Turn(), Turn(2, True, (-1, 1, -1))], ids=str)
def test_a_warped_checkerboard_agrees_in_raw_and_labels(turn):
    """Each section has squares of its own, and sections are those of the turn's axis."""
    board = np.moveaxis((np.indices((90, 100, 100)) // [[[[1]]], [[[9]]], [[[9]]]]).sum(0) % 2 * 200, 0, turn.axis)
    seen = reading(board.astype(np.uint8))
    for seed in range(3):
        field = strong_field(seed, turn)
        labels = sample_nearest(seen, field)
        image = sample_linear(seen, field.crop(UNEVEN.margin.before, PATCH))
        assert set(np.unique(labels)) == {0, 200}  # no id is invented
        assert not np.array_equal(image, np.round(image))  # it did interpolate
        inner = tuple(slice(a, a + side) for a, side in zip(UNEVEN.margin.before, PATCH, strict=True))
        np.testing.assert_array_equal(image > 100, labels[inner] == 200)


@pytest.mark.parametrize("turn", turns(isotropic=True)[::5], ids=str)
def test_the_field_is_sampled_as_by_scipy_and_no_more_is_read(turn):
    from scipy.ndimage import map_coordinates

    values = np.random.default_rng(0).integers(0, 255, (90, 90, 90)).astype(np.uint8)
    field = strong_field(turn.axis, turn)
    plane = (field.plane[None] + field.shifts[:, :, None, None]).swapaxes(0, 1)
    at = np.insert(plane, turn.axis, field.sections[:, None, None], axis=0)
    read = []

    def noting(box: Box) -> np.ndarray:
        read.append(box)
        return values[box.slices]

    np.testing.assert_allclose(sample_linear(noting, field), map_coordinates(values * 1.0, at, order=1), atol=1e-4)
    np.testing.assert_array_equal(sample_nearest(noting, field), values[tuple(np.rint(at).astype(int))])
    for low, high, start, stop in zip(at.min((1, 2, 3)), at.max((1, 2, 3)), *read[0], strict=True):
        # A slip or a jump may widen the box a little where the farthest voxel of the plane is not displaced.
        assert np.floor(low) - 10 <= start <= low
        assert high <= stop - 1 <= np.ceil(high) + 10


@pytest.mark.parametrize(("isotropic", "count"), [(False, 16), (True, 48)])
def test_symmetries_are_exact_and_all_there(isotropic, count):
    """Also of a patch whose sides differ: its place is turned with it."""
    values = np.random.default_rng(0).permutation(20**3).reshape(20, 20, 20)
    exchanged = [(0, 1, 2), (0, 2, 1)]
    if isotropic:
        exchanged += [(1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    flips = [np.s_[:: 1 - 2 * a, :: 1 - 2 * b, :: 1 - 2 * c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    target, seen = Target((2, 4, 5), ((-1, 0, 0),), widening="none"), set()
    for turn in turns(isotropic):
        place = place_of(turn, (3, 5, 7), (2, 4, 5))
        field = draw_field(np.random.default_rng(0), NOTHING, target, turn, place).crop((1, 0, 0), (2, 4, 5))
        labels = sample_nearest(reading(values), field)
        np.testing.assert_array_equal(sample_linear(reading(values), field), labels)
        cut = values[place.slices]
        known = [
            (axes, at)
            for axes in exchanged
            for at, flip in enumerate(flips)
            if np.array_equal(cut.transpose(axes)[flip], labels)
        ]
        seen.update(known)
    assert len(seen) == len(turns(isotropic)) == count


def test_nothing_changes_nothing():
    labels = np.random.default_rng(0).integers(0, 255, with_margin(TARGET))
    samples = samples_of(labels, TARGET, 2)
    batch = make_augment(TARGET, NOTHING, 0)(samples)
    np.testing.assert_array_equal(batch.raw[..., 0], samples.raw)


def test_the_same_sample_is_bit_identical_and_another_is_not():
    samples = samples_of(np.random.default_rng(0).integers(0, 255, with_margin(TARGET)), TARGET, 4)
    augment = make_augment(TARGET, STRONG, 7)
    first, again = augment(samples), augment(Samples(*(np.roll(part, 1, 0) for part in samples)))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, np.roll(other, -1, 0))  # also in another place of the batch
    assert all(not np.array_equal(first.raw[0], row) for row in first.raw[1:])
    assert not np.array_equal(first.raw, make_augment(TARGET, STRONG, 8)(samples).raw)


def test_affinities_at_the_faces_are_true():
    """What lies beyond the patch is known: all valid, and as the labels around it say, on either side."""
    far = dataclasses.replace(TARGET, offsets=((-1, 0, 0), (0, 4, 0), (0, 0, -9)), widening="none")
    assert far.margin == Margin((1, 0, 9), (0, 4, 0))
    labels = np.ones(with_margin(far), np.uint8)
    labels[:, :, :9], labels[:, -4:] = 2, 3  # other neurons up to the patch's left and lower face
    batch = make_augment(far, NOTHING, 0)(samples_of(labels, far, 1))
    assert bool(batch.valid.all())
    expected = np.ones((*far.patch, 3), np.float32)
    expected[:, :, :9, 2] = expected[:, -4:, :, 1] = 0
    np.testing.assert_array_equal(batch.affinities[0], expected)


@pytest.mark.parametrize("widening", ["2d", "faces"])
def test_borders_at_the_faces_are_widened_by_what_lies_beyond(widening):
    """The margin is all that it takes: the patch has the affinities of the volume that it is cut from."""
    target = dataclasses.replace(TARGET, patch=(4, 6, 6), widening=widening, radius=2)
    before, more = target.margin.before, 4
    volume = np.kron(np.random.default_rng(0).integers(1, 4, (4, 4, 4)), np.ones((6, 6, 6), np.uint8))
    whole, _ = affinities_from_labels(np.asarray(widen_borders(jnp.asarray(volume, jnp.int32), widening, 2)))
    seen = volume[tuple(slice(more, more + side) for side in with_margin(target))]
    patch = tuple(slice(more + n, more + n + side) for n, side in zip(before, target.patch, strict=True))
    found = np.asarray(make_augment(target, NOTHING, 0)(samples_of(seen, target, 1)).affinities[0])
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
