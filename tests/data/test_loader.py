"""Patches and batches: pure functions of seed and index, whatever the process, the thread and the starting step."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorstore as ts
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from emsam_jax.data import (
    Augmentation,
    PatchSource,
    Selection,
    Share,
    Target,
    batches,
    make_augment,
    read_windows,
)
from emsam_jax.data.patches import as_int32
from emsam_jax.volumes import LabelRules, Specimen, Volume, VolumeError

PATCH = (4, 16, 16)


def specimen(raw: np.ndarray, labels: np.ndarray, **options) -> Specimen:
    return Specimen(*(Volume(ts.array(values), name) for name, values in (("raw", raw), ("labels", labels))), **options)


def random_specimen(seed: int = 0) -> Specimen:
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(1, 200, (10, 8, 8)), np.ones((2, 8, 8), int)).astype(np.uint64)
    return specimen(rng.integers(0, 255, labels.shape).astype(np.uint8), labels)


def test_a_sample_is_what_the_volume_holds_around_its_place():
    whole = random_specimen()
    assert whole.labels is not None
    source = PatchSource([whole], PATCH, (6, 30, 30), seed=3)
    raw, labels = whole.raw[:, :, :], whole.labels[:, :, :].astype(np.int32)
    padded = np.pad(raw, [(6, 6), (30, 30), (30, 30)])
    known = np.pad(labels, [(6, 6), (30, 30), (30, 30)], constant_values=-1)

    def fits(padded: np.ndarray, window: np.ndarray, at: np.ndarray) -> bool:
        z, y, x = at
        return np.array_equal(padded[z - 1 : z + 5, y - 7 : y + 23, x - 7 : x + 23], window)

    for index in (0, 1, 10**6):
        windows = source[index]
        for one, again in zip(windows, source[index], strict=True):
            np.testing.assert_array_equal(one, again)
        # Its place is found again by its content; what lies outside is unlabelled, and black.
        z, y, x = next(
            at for at in np.argwhere(padded == windows.raw[1, 7, 7]) if fits(padded, np.asarray(windows.raw), at)
        )
        at = np.s_[z - 1 : z + 5, y - 7 : y + 23, x - 7 : x + 23]
        np.testing.assert_array_equal(windows.labels, known[at])
    assert not np.array_equal(source[0].raw, source[1].raw)
    assert not np.array_equal(source[0].raw, PatchSource([whole], PATCH, (6, 30, 30), seed=4)[0].raw)


def test_volumes_are_chosen_by_weight():
    flat = [
        specimen(np.full((8, 40, 40), grey, np.uint8), np.indices((8, 40, 40)).sum(0).astype(np.uint32) + 1)
        for grey in (10, 20)
    ]
    source = PatchSource(flat, PATCH, PATCH, seed=0, weights=(3, 1))
    share = np.mean([source[i].raw[0, 0, 0] == 10 for i in range(400)])
    assert share == pytest.approx(0.75, abs=0.07)


def test_patches_without_labels_or_with_one_object_are_passed_over():
    labels = np.tile(np.arange(1, 61, dtype=np.uint32)[None, None, :], (8, 60, 1))
    labels[:, :, 20:40] = 7  # one object
    labels[:, 30:] = 99  # unlabelled
    source = PatchSource(
        [specimen(np.zeros(labels.shape, np.uint8), labels, rules=LabelRules(unlabelled=(99,)))],
        PATCH,
        PATCH,
        seed=0,
        selection=Selection(labelled=0.9, largest=0.5),
    )
    for index in range(60):
        seen = source[index].labels
        assert (seen == -1).mean() <= 0.1
        assert (seen == 7).mean() <= 0.7  # seen in every fourth column, so a little above a half may pass
    unlabelled = LabelRules(unlabelled=(99,))
    nothing = specimen(np.zeros(labels.shape, np.uint8), np.full_like(labels, 99), rules=unlabelled)
    source = PatchSource([nothing], PATCH, PATCH, seed=0, selection=Selection(labelled=0.9))
    with pytest.raises(VolumeError, match=r"None of 200 places .* with 90% of it labelled"):
        source[0]


def test_drawn_by_object_a_thin_one_is_seen_as_often():
    labels = np.ones((8, 64, 64), np.uint32)
    labels[:, :, 32:] = 2
    labels[3:5, 50, 2:60] = 3  # 0.4% of the volume
    volume = specimen(np.zeros(labels.shape, np.uint8), labels)
    share = {}
    for by_object in (False, True):
        source = PatchSource(
            [volume], (2, 4, 4), (2, 4, 4), seed=0, selection=Selection(largest=1.0, by_object=by_object)
        )
        share[by_object] = np.mean([(source[i].labels == 3).any() for i in range(150)])
    assert share[False] < 0.1
    assert share[True] == pytest.approx(1 / 3, abs=0.12)


def test_a_patch_larger_than_the_volume():
    with pytest.raises(VolumeError, match=r"raw: expected at least a patch of \(40, 16, 16\) .* found \(20, 64, 64\)"):
        PatchSource([random_specimen()], (40, 16, 16), (40, 16, 16), seed=0)


def test_ids_beyond_32_bits_stay_apart():
    ids = np.array([0, 2**40, 2**40 + 2**32, 2**63, 5], np.uint64).reshape(1, 1, 5)
    labelled = np.array([1, 1, 1, 1, 0], bool).reshape(1, 1, 5)
    np.testing.assert_array_equal(as_int32(ids, labelled)[0, 0], [0, 2, 3, 4, -1])


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_follow_from_any_step_and_processes_share_them(processes):
    source = PatchSource([random_specimen()], PATCH, PATCH, seed=1)
    straight = read_windows(Share(source, 4, 0, 1))
    whole = [next(straight) for _ in range(5)]
    for step in (0, 3):
        shares = [read_windows(Share(source, 4, p, processes), step, threads=3) for p in range(processes)]
        for expected in whole[step:]:
            parts = [next(share) for share in shares]
            for seen, there in zip(zip(*parts, strict=True), expected, strict=True):
                np.testing.assert_array_equal(np.concatenate(seen), there)


def test_an_error_while_reading_ends_the_iteration():
    class Broken(PatchSource):
        def __getitem__(self, index):
            if index == 5:
                raise VolumeError("a chunk is truncated")
            return super().__getitem__(index)

    windows = read_windows(Share(Broken([random_specimen()], PATCH, PATCH, seed=1), 4, 0, 1))
    next(windows)
    with pytest.raises(VolumeError, match="a chunk is truncated"):
        next(windows)


def some_batches(step: int, count: int) -> list:
    """Global batches from a step on, over all devices of all processes."""
    target = Target(patch=PATCH)
    augmentation = Augmentation(rotate=1.0, elastic=1.0)
    source = PatchSource([random_specimen()], PATCH, target.window(augmentation), seed=1)
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    share = Share(source, 8, jax.process_index(), jax.process_count())
    running = batches(share, make_augment(target, augmentation, 1), sharding, step)
    return [next(running) for _ in range(count)]


def test_two_processes_make_the_batches_of_one(tmp_path):
    """Each writes the rows on its own devices; a run from step 1 on too."""
    expected = some_batches(0, 3)
    assert expected[0].raw.sharding.spec == PartitionSpec("data")
    for one, other in zip(expected[1], some_batches(1, 1)[0], strict=True):
        np.testing.assert_array_equal(one, other)

    port = 20000 + os.getpid() % 20000
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(process), str(port), str(tmp_path)], env={**os.environ, **flags}
        )
        for process in range(2)
    ]
    assert [worker.wait(timeout=200) for worker in workers] == [0, 0]
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
