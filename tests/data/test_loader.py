"""Patches and batches: pure functions of seed and index, whatever the process, the thread and the starting step."""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorstore as ts
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from emsam_jax.config import NOTHING, Augmentation, LabelRules, Selection, Voxels
from emsam_jax.data import PatchSource, Share, Target, as_int32, batches, make_augment
from emsam_jax.data.loader import read_samples
from emsam_jax.data.warp import draw_field, sample_linear, turns
from emsam_jax.errors import UserError
from emsam_jax.volumes import Box, Specimen, Volume, read_mirrored
from tests.programs import PATIENCE, environment

PATCH = (4, 16, 16)


def specimen(raw: np.ndarray, labels: np.ndarray, **options) -> Specimen:
    return Specimen(*(Volume(ts.array(values), name) for name, values in (("raw", raw), ("labels", labels))), **options)


def random_specimen(**options) -> Specimen:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(1, 200, (10, 8, 8)), np.ones((2, 8, 8), int)).astype(np.uint64)
    return specimen(rng.integers(0, 255, labels.shape).astype(np.uint8), labels, **options)


def source_of(*volumes: Specimen, patch: Voxels = PATCH, seed: int = 0, **options) -> PatchSource:
    """Patches as they lie in the volume."""
    return PatchSource(volumes or [random_specimen()], Target(patch), NOTHING, seed, **options)


@pytest.mark.parametrize("turn", turns(isotropic=True)[::7], ids=str)
def test_a_volume_is_mirrored_and_unlabelled_beyond_its_region(turn):
    """Against numpy's padding of the region, for a patch that reaches beyond it on all sides, as it is and flipped."""
    whole = random_specimen(roi="3:12,10:31,7:40")
    place = Box((-5, -20, -17), (16, 61, 55))
    sides = dict(zip(turn.axes, place.shape, strict=True))
    target = Target((sides[0], sides[1], sides[2]), ((-2, 0, 0),), widening="none", isotropic=True)
    field = draw_field(np.random.default_rng(0), NOTHING, target, turn, place).crop((2, 0, 0), target.patch)
    wide = [(a - start, stop - b) for start, stop, a, b in zip(*place, *whole.region, strict=True)]
    raw = np.pad(whole.raw[whole.region.slices], wide, mode="reflect")
    seen = sample_linear(functools.partial(read_mirrored, whole), field)
    turned = np.flip(np.moveaxis(raw, turn.axis, 0), tuple(at for at, flip in enumerate(turn.flips) if flip < 0))
    np.testing.assert_array_equal(seen, turned.swapaxes(1, 2) if turn.transposed else turned)


@pytest.mark.parametrize("roi", ["3:7,8:24,5:21", "0:4,0:16,48:64"])
def test_affinities_across_the_border_of_the_region_are_invalid(roi):
    """A patch as large as its region: nothing is drawn, and labels beyond would say what the affinities are."""
    target = Target(PATCH, ((-1, 0, 0), (0, -1, 0), (0, 0, -3), (0, 2, 0)))
    source = PatchSource([random_specimen(roi=roi)], target, NOTHING, seed=0)
    batch = make_augment(target, NOTHING, 0)(next(read_samples(Share(source, 1, 0, 1))))
    expected = np.ones((*PATCH, 4), bool)
    expected[0, :, :, 0] = expected[:, 0, :, 1] = expected[:, :, :3, 2] = expected[:, -2:, :, 3] = False
    np.testing.assert_array_equal(batch.valid[0], expected)
    assert not np.asarray(batch.affinities)[~np.asarray(batch.valid)].any()
    z, y, x = source.specimens[0].region.slices
    np.testing.assert_array_equal(batch.raw[0, ..., 0], source.specimens[0].raw[z, y, x] / np.float32(255))


def test_an_exchange_that_the_region_cannot_hold_is_not_drawn():
    flat = random_specimen(roi="3:9,0:64,0:64")
    only = dataclasses.replace(NOTHING, symmetries=True)
    source = PatchSource([flat], Target((4, 16, 12), isotropic=True, widening="none"), only, seed=0)
    axes = [source.locate(index)[1].axis for index in range(20)]
    assert set(axes) == {0}
    cube = PatchSource([random_specimen()], source.target, only, seed=0)
    assert {cube.locate(index)[1].axis for index in range(20)} == {0, 1, 2}
    for index in range(20):
        z, y, x = cube.locate(index)[1].crop((1, 1, 1), (4, 16, 12)).box().start
        assert min(z, y, x) >= 0


def test_samples_differ_by_number_and_seed_alone():
    for index in (0, 1, 10**6):
        for one, again in zip(source_of()[index], source_of()[index], strict=True):
            np.testing.assert_array_equal(one, again)
    assert not np.array_equal(source_of()[0].raw, source_of()[1].raw)
    assert not np.array_equal(source_of()[0].raw, source_of(seed=4)[0].raw)


def inner(source: PatchSource, index: int) -> np.ndarray:
    """Labels of the patch without its margin."""
    at = zip(source.target.margin.before, source.target.patch, strict=True)
    return np.asarray(source[index].labels)[tuple(slice(first, first + side) for first, side in at)]


def test_volumes_are_chosen_by_weight():
    flat = [
        specimen(np.full((8, 40, 40), grey, np.uint8), np.indices((8, 40, 40)).sum(0).astype(np.uint32) + 1)
        for grey in (10, 20)
    ]
    source = source_of(*flat, weights=(3, 1))
    share = np.mean([source.locate(i)[0] is flat[0] for i in range(400)])
    assert share == pytest.approx(0.75, abs=0.07)


def test_patches_without_labels_or_with_one_object_are_passed_over():
    labels = np.tile(np.arange(1, 61, dtype=np.uint32)[None, None, :], (8, 60, 1))
    labels[:, :, 20:40] = 7  # one object
    labels[:, 30:] = 99  # unlabelled
    source = source_of(
        specimen(np.zeros(labels.shape, np.uint8), labels, rules=LabelRules(unlabelled=(99,))),
        selection=Selection(labelled=0.9, largest=0.5),
    )
    for index in range(60):
        seen = inner(source, index)
        assert (seen == -1).mean() <= 0.1
        assert (seen == 7).mean() <= 0.7  # seen in every fourth column, so a little above a half may pass
    unlabelled = LabelRules(unlabelled=(99,))
    nothing = specimen(np.zeros(labels.shape, np.uint8), np.full_like(labels, 99), rules=unlabelled)
    source = source_of(nothing, selection=Selection(labelled=0.9))
    with pytest.raises(UserError, match=r"None of 200 places .* with 90% of it labelled"):
        source[0]


def test_drawn_by_object_a_thin_one_is_seen_as_often():
    labels = np.ones((8, 64, 64), np.uint32)
    labels[:, :, 32:] = 2
    labels[3:5, 50, 2:60] = 3  # 0.4% of the volume
    volume = specimen(np.zeros(labels.shape, np.uint8), labels)
    share = {}
    for by_object in (False, True):
        source = source_of(volume, patch=(2, 4, 4), selection=Selection(largest=1.0, by_object=by_object))
        share[by_object] = np.mean([(inner(source, i) == 3).any() for i in range(150)])
    assert share[False] < 0.1
    assert share[True] == pytest.approx(1 / 3, abs=0.12)


def test_a_patch_larger_than_the_volume():
    with pytest.raises(UserError, match=r"raw: expected at least a patch of \(40, 16, 16\) .* found \(20, 64, 64\)"):
        source_of(patch=(40, 16, 16))


def test_ids_beyond_32_bits_stay_apart():
    ids = np.array([0, 2**40, 2**40 + 2**32, 2**63, 5], np.uint64).reshape(1, 1, 5)
    labelled = np.array([1, 1, 1, 1, 0], bool).reshape(1, 1, 5)
    np.testing.assert_array_equal(as_int32(ids, labelled)[0, 0], [0, 2, 3, 4, -1])


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_follow_from_any_step_and_processes_share_them(processes):
    source = source_of(seed=1)
    straight = read_samples(Share(source, 4, 0, 1))
    whole = [next(straight) for _ in range(5)]
    for step in (0, 3):
        shares = [read_samples(Share(source, 4, p, processes), step, threads=3) for p in range(processes)]
        for expected in whole[step:]:
            parts = [next(share) for share in shares]
            for seen, there in zip(zip(*parts, strict=True), expected, strict=True):
                np.testing.assert_array_equal(np.concatenate(seen), there)


def test_an_error_while_reading_ends_the_iteration():
    class Broken(PatchSource):
        def __getitem__(self, index):
            if index == 5:
                raise UserError("a chunk is truncated")
            return super().__getitem__(index)

    samples = read_samples(Share(Broken([random_specimen()], Target(PATCH), NOTHING, seed=1), 4, 0, 1))
    next(samples)
    with pytest.raises(UserError, match="a chunk is truncated"):
        next(samples)


def some_batches(step: int, count: int) -> list:
    """Global batches from a step on, over all devices of all processes."""
    target = Target(patch=PATCH)
    augmentation = Augmentation(rotate=1.0, elastic=1.0)
    source = PatchSource([random_specimen()], target, augmentation, seed=1)
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    share = Share(source, 8, jax.process_index(), jax.process_count())
    running = batches(share, make_augment(target, augmentation, 1), sharding, step)
    return [next(running) for _ in range(count)]


@pytest.mark.slow
def test_two_processes_make_the_batches_of_one(tmp_path):
    """Each writes the rows on its own devices; a run from step 1 on too."""
    expected = some_batches(0, 3)
    assert expected[0].raw.sharding.spec == PartitionSpec("data")
    for one, other in zip(expected[1], some_batches(1, 1)[0], strict=True):
        np.testing.assert_array_equal(one, other)

    port = 20000 + os.getpid() % 20000
    program = environment(XLA_FLAGS="--xla_force_host_platform_device_count=4")
    workers = [
        subprocess.Popen([sys.executable, __file__, str(process), str(port), str(tmp_path)], env=program)
        for process in range(2)
    ]
    assert [worker.wait(timeout=PATIENCE) for worker in workers] == [0, 0]
    halves = [np.load(tmp_path / f"{process}.npz") for process in range(2)]
    for step, batch in enumerate(expected[1:]):
        for name in batch._fields:
            seen, there = np.concatenate([half[f"{name}{step}"] for half in halves]), getattr(batch, name)
            # Rows are compiled for other devices: greys may differ in the last bit, truth may not.
            np.testing.assert_allclose(seen, there, atol=1e-5 if name == "raw" else 0)


if __name__ == "__main__":
    number, port, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=number)
    rows = {}
    for step, batch in enumerate(some_batches(1, 2)):
        for name, values in batch._asdict().items():
            shards = sorted(values.addressable_shards, key=lambda shard: shard.index[0].start)
            rows[f"{name}{step}"] = np.concatenate([np.asarray(shard.data) for shard in shards])
    np.savez(folder / f"{number}.npz", **rows)
