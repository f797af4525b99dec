"""Sparse truth: what is drawn of it, and what is learned from it. Against every voxel counted."""

import itertools
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts

from emsam_jax.config import (
    NOTHING,
    Config,
    DataConfig,
    DeclaredVolume,
    LabelRules,
    LossConfig,
    Selection,
    Widening,
)
from emsam_jax.data import PatchSource, Share, Target, make_augment
from emsam_jax.data.label_index import LabelIndex
from emsam_jax.data.loader import read_samples
from emsam_jax.errors import UserError
from emsam_jax.model import Maps
from emsam_jax.training.losses import loss_of_maps, mean_share, shares_of
from emsam_jax.training.stream import Stream
from emsam_jax.volumes import Specimen, Volume, create_volume, open_declared, open_volume
from emsam_jax.volumes.verify.findings import missing_findings

SPARSE = LabelRules(unlabelled=(0,))
AROUND = Selection(labelled=0.001, largest=1.0, by_label=True)


def specimen(labels: np.ndarray, raw_shape: tuple[int, int, int] | None = None, **options) -> Specimen:
    raw = np.zeros(raw_shape or labels.shape, np.uint8)
    size = (10.0, 10.0, 10.0)
    return Specimen(
        Volume(ts.array(raw), "raw", voxel_size_zyx=size),
        Volume(ts.array(labels), "labels", voxel_size_zyx=size, **options),
        rules=SPARSE,
    )


class InTurn(np.random.Generator):
    """Gives all numbers in their order."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))
        self.given = itertools.count()

    def integers(self, below: int) -> int:  # type: ignore[reportIncompatibleMethodOverride]
        number = next(self.given)
        assert number < below
        return number


def test_each_labelled_voxel_is_drawn_alike():
    labels = np.zeros((70, 140, 150), np.uint16)
    labels[33, 100:140:8, ::7] = 300  # of a lone section
    labels[25:40, 127:129, 7] = 2  # a stroke across blocks
    index, generator = LabelIndex(specimen(labels)), InTurn()
    assert index.voxels == (labels > 0).sum()
    drawn = [tuple(index.draw(generator).tolist()) for _ in range(index.voxels)]
    assert sorted(drawn) == [tuple(place) for place in np.argwhere(labels).tolist()]
    with pytest.raises(UserError, match="expected labels in the region of interest, found no voxel"):
        LabelIndex(specimen(np.zeros((4, 4, 4), np.uint8)))


def test_a_painted_crop_smaller_than_a_patch_is_seen_with_the_raw_around_it():
    """Anywhere in the patch's middle half; sample i is the same whoever reads it, and in which order."""
    crop = np.arange(1, 13, dtype=np.uint8).reshape(1, 3, 4)
    made = specimen(crop, (24, 64, 64), offset_zyx=(120.0, 300.0, 310.0))
    sources = [PatchSource([made], Target((8, 16, 16)), NOTHING, 3, selection=AROUND) for _ in range(2)]
    found = set()
    for index in range(40):
        place = sources[0].locate(index)[1].crop((1, 2, 2), (8, 16, 16)).box()
        assert all(start >= 0 for start in place.start)
        at = [12 - place.start[0], 30 - place.start[1], 31 - place.start[2]]
        assert all(side // 4 - own < i < 3 * side // 4 for i, side, own in zip(at, (8, 16, 16), (1, 3, 4), strict=True))
        found.add(at[0])
    assert found == {2, 3, 4, 5}
    for index in (39, 0):
        for one, same in zip(sources[0][index], sources[1][index], strict=True):
            np.testing.assert_array_equal(one, same)
    with pytest.raises(UserError, match=r"found \(1, 3, 4\) in the region .*data.selection.by_label"):
        PatchSource([made], Target((8, 16, 16)), NOTHING, 3)


def test_a_volume_of_terabytes_is_indexed_by_what_was_written(tmp_path: Path):
    """A terabyte of ids, of which some forty thousand voxels are painted in two places."""
    sides = (1024, 16384, 16384)
    raw, labels = (
        create_volume(tmp_path / name, sides, np.uint32, (8, 8, 8), shard=(256, 256, 256), chunk=(64, 64, 64))
        for name in ("raw", "labels")
    )
    labels[900, 6920:7120, 8970:9170], labels[100:104, 16380:, 16200:] = 1, 2
    declared = DeclaredVolume(raw=raw.url, labels=labels.url, rules=SPARSE)
    start = time.perf_counter()
    source = PatchSource([open_declared(declared)], Target((16, 64, 64)), NOTHING, 0, selection=AROUND)
    samples = [source[index] for index in range(10)]
    assert time.perf_counter() - start < 60  # to read all would take most of an hour
    assert source.labelled[0].voxels == 200 * 200 + 4 * 4 * 184
    assert {int(np.max(sample.labels)) for sample in samples} == {1, 2}
    stored = open_volume(declared.labels)
    assert missing_findings(stored) != []
    assert missing_findings(stored, sparse=True) == []


@pytest.mark.parametrize("widening", ["2d", "faces", "3d"])
def test_a_lone_section_teaches_in_plane_and_two_neighbours_teach_z(widening: Widening):
    """Against the definition, voxel by voxel: what is unlabelled is neither border nor partner."""
    rng = np.random.default_rng(0)
    labels = np.zeros((9, 24, 24), np.uint8)
    labels[2] = np.kron(rng.integers(1, 5, (4, 4)), np.ones((6, 6), np.uint8))  # a lone section
    labels[6:8, 9:15] = np.kron(rng.integers(1, 5, (1, 4)), np.ones((6, 6), np.uint8))  # a stroke in two sections
    target = Target((9, 24, 24), widening=widening)
    source = PatchSource([specimen(labels)], target, NOTHING, 0, selection=AROUND)
    batch = make_augment(target, NOTHING, 0)(next(read_samples(Share(source, 1, 0, 1))))

    reach = {"2d": (0, 1, 1), "faces": (1, 1, 1), "3d": (1, 1, 1)}[widening]
    near = [
        step
        for step in itertools.product(*(range(-n, n + 1) for n in reach))
        if widening != "faces" or sum(map(abs, step)) == 1
    ]
    at = {tuple(place): int(labels[tuple(place)]) for place in np.argwhere(labels).tolist()}

    def moved(place, step):
        return tuple(a + b for a, b in zip(place, step, strict=True))

    inner = {place for place, own in at.items() if all(at.get(moved(place, step), own) == own for step in near)}
    truth, valid = np.zeros((2, *labels.shape, 3))
    for channel, step in enumerate(target.offsets):
        for place, own in at.items():
            if moved(place, step) in at:
                valid[(*place, channel)] = 1
                truth[(*place, channel)] = {place, moved(place, step)} <= inner and own == at[moved(place, step)]
    np.testing.assert_array_equal(batch.valid[0], valid)
    np.testing.assert_array_equal(batch.affinities[0], truth)
    assert valid[2].sum((0, 1)).tolist() == [0, 23 * 24, 23 * 24]
    assert valid[6:8, ..., 0].sum() == 6 * 24

    # The balance of the classes and the loss are those of known affinities alone.
    counts = np.stack([valid.sum((0, 1, 2)), truth.sum((0, 1, 2))])[None].astype(int)
    np.testing.assert_allclose(mean_share(shares_of(counts)), truth.sum((0, 1, 2)) / valid.sum((0, 1, 2)))
    logits = jnp.asarray(rng.normal(0, 3, (2, *batch.valid.shape)))
    logits = jnp.where(batch.valid, logits[:1], logits)
    one, other = (loss_of_maps(Maps(None, said), batch, LossConfig(dice=0.5))[0] for said in logits)
    assert one == other


def test_another_stroke_is_another_volume_to_a_run_that_resumes(tmp_path: Path):
    labels = np.zeros((20, 50, 50), np.uint8)
    labels[9, 20:30, 20:30] = 1
    found = []
    for name, place in (("one", (9, 25, 25)), ("same", (9, 25, 25)), ("other", (3, 1, 47))):
        labels[place] = 1
        np.save(tmp_path / f"{name}.npy", labels)
        declared = DeclaredVolume(
            name="a volume", raw=str(tmp_path / "one.npy"), labels=str(tmp_path / f"{name}.npy"), rules=SPARSE
        )
        data = DataConfig(train=(declared,), patch=(4, 32, 32), selection=AROUND)
        stream = Stream(Config(data=data))
        found.append(stream.fingerprints())
        voxels = 100 + (name == "other")
        assert any(f"{voxels} voxels are labelled, 0.002 of all" in line for line in stream.describe())
    assert found[0] == found[1] != found[2]
