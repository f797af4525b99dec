"""What is prepared follows from the volume: choices, regions with a guard, sparse labels, and a file that loads."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from emsam_jax.config import SHORT_OFFSETS, Augmentation, Config, Selection, load_config
from emsam_jax.errors import UserError
from emsam_jax.prepare.assemble import assemble
from emsam_jax.prepare.choices import Basis, training_choices
from emsam_jax.prepare.device import Device, Timing, Weights
from emsam_jax.prepare.look import Asked, look_at
from emsam_jax.prepare.prepare import Request, prepare
from emsam_jax.prepare.regions import cut
from emsam_jax.prepare.rendering import as_python
from emsam_jax.training.sharding import make_mesh
from emsam_jax.training.stream import Stream
from emsam_jax.volumes import open_declared, parse_box
from tests.prepare.conftest import write_cremi, write_sections


def prepared(out: Path, *places: str, **asked) -> tuple[Config, str]:
    said: list[str] = []
    request = Request((places,), out, trial=False, **asked)
    prepare(request, say=said.append)
    return load_config(str(out)), "\n".join(said)


def gap(config: Config) -> tuple[int, ...]:
    """Between the regions for training and validation, and validation and test, along the axis that they follow."""
    boxes = [
        parse_box(declared.roi, open_declared(declared).raw.box)
        for declared in (*config.data.train, *config.data.validation, *config.data.test)
    ]
    return tuple(
        max(later - earlier for earlier, later in zip(one.stop, other.start, strict=True))
        for one, other in itertools.pairwise(boxes)
    )


def test_thick_sections(tissue, tmp_path):
    config, said = prepared(tmp_path / "mine.py", write_cremi(tmp_path / "sample.hdf", tissue(False)))
    assert "raw is volumes/raw, by its name" in said
    assert "labels are volumes/labels/neuron_ids, by their name" in said
    model, data = config.model, config.data
    assert (model.isotropic, model.offsets, model.encoder.size) == (False, SHORT_OFFSETS, "none")
    assert config.validation.fragments == "2d"
    assert data.patch[0] < data.patch[1] == data.patch[2]
    assert data.widening == "2d"
    assert set(gap(config)) == {data.patch[0] // 2}
    assert len(data.train) == len(data.validation) == len(data.test) == 1
    assert "emsam train --config=" in said
    assert (config.name, model.dtype) == ("mine", "float32")
    text = (tmp_path / "mine.py").read_text()
    assert "5 times as thick as wide" in text
    formatted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", "--isolated", tmp_path / "mine.py"], check=False
    )
    assert formatted.returncode == 0


def test_isotropic_voxels_and_json(tissue, tmp_path):
    volume = tissue(True)
    for name in ("raw", "labels"):
        np.save(tmp_path / f"{name}.npy", getattr(volume, name))
    places = [str(tmp_path / f"{name}.npy") for name in ("raw", "labels")]
    with pytest.raises(UserError, match="give --voxel_size"):
        prepared(tmp_path / "a.json", *places)
    config, _ = prepared(tmp_path / "a.json", *places, voxel_size_zyx=(10, 10, 10))
    assert config.model.isotropic
    assert len(config.model.offsets) == 9
    assert config.validation.fragments == "3d"
    assert (config.data.widening, config.model.filters) == ("none", True)
    assert len(set(config.data.patch)) == 1
    assert config.data.augmentation.slip == config.data.augmentation.section_contrast == 0
    assert set(gap(config)) == {12}  # 96 sections are few
    assert config.data.patch == (32, 32, 32)
    text = (tmp_path / "a.json").read_text()
    assert '"channels": [12, 24, 48, 96]' in text
    fields = json.loads(text)
    assert "seed" not in fields  # only what differs
    with pytest.raises(UserError, match="expected the name of a config"):
        prepared(tmp_path / "a.yaml", *places)
    with pytest.raises(UserError, match="--overwrite"):
        prepared(tmp_path / "a.json", *places, voxel_size_zyx=(10, 10, 10))


def sections_only(labels: np.ndarray, *painted: int) -> np.ndarray:
    sparse = np.zeros_like(labels)
    sparse[list(painted)] = labels[list(painted)]
    return sparse


def test_lone_sections_teach_the_plane_alone_and_their_neighbours_are_asked_for(tissue, tmp_path):
    volume = tissue(False)
    labels = sections_only(volume.labels, 5, 17, 29, 41, 53)
    config, said = prepared(tmp_path / "a.py", write_cremi(tmp_path / "sample.hdf", volume, labels))
    assert "sparse, 5 of 49 sections are painted" in said
    assert "Affinities along z are not learned" in said
    assert "1. the neighbours of painted sections, such as z 6, 18, 30, 42, 54" in said
    assert "taken as background in sections with neurons and as unlabelled in the others" in said
    specimen = open_declared(config.data.train[0])
    _, labelled = specimen.read_labels(specimen.region)
    there = np.flatnonzero(labelled.any((1, 2))) + specimen.region.start[0]
    assert set(there) <= {5, 17, 29, 41, 53}
    assert labelled[there[0] - specimen.region.start[0]].all()
    assert all(there <= shape for there, shape in zip(config.data.patch, specimen.region.shape, strict=True))
    assert config.data.selection == Selection(labelled=0.001, by_label=True)
    for declared in (*config.data.validation, *config.data.test):
        judged = open_declared(declared)
        assert judged.read_labels(judged.region)[1].any()


@pytest.mark.slow
def test_a_pair_of_sections_teaches_a_little_along_z(tissue, tmp_path):
    volume = tissue(False)
    labels = sections_only(volume.labels, 3, *range(8, 56, 4), 57)
    labels[9] = volume.labels[9]
    _, said = prepared(tmp_path / "a.py", write_cremi(tmp_path / "sample.hdf", volume, labels))
    assert "Affinities along z are learned from the few sections with a painted neighbour, 6.7% as often" in said
    assert "Affinities within the section (y, x) are learned from sections 3, 8, 9, 12, 16, 20 and" in said


@pytest.mark.slow
def test_strokes(tissue, tmp_path):
    """Lines within neurons: 0 is what nobody looked at, borders are missing, and few voxels in a patch are known."""
    volume = tissue(False)
    inner = np.zeros(volume.labels.shape, bool)
    inner[::4, 10::40, 4:-4] = True
    changes = np.zeros_like(inner)
    changes[..., 1:] = volume.labels[..., 1:] != volume.labels[..., :-1]
    for by in range(-3, 4):
        inner &= ~np.roll(changes, by, 2)
    labels = np.where(inner, volume.labels, 0).astype(volume.labels.dtype)
    path = write_cremi(tmp_path / "sample.hdf", volume, labels)
    config, said = prepared(tmp_path / "a.py", path)
    assert "(strokes)" in said
    assert "taken as unlabelled" in said
    assert "Borders are not learned" in said
    assert "1. strokes on both sides of membranes" in said
    assert 0 in config.data.train[0].rules.unlabelled
    assert config.data.selection == Selection(labelled=0.001, largest=1.0, by_label=True)
    config, said = prepared(tmp_path / "b.py", path, zero="background")
    assert 0 in config.data.train[0].rules.background
    assert "as --zero says" in said


@pytest.mark.slow
def test_membranes_that_are_background_are_told_from_what_nobody_painted(tissue, tmp_path):
    labels = tissue(False).labels.copy()
    for axis in (1, 2):
        labels[np.roll(tissue(False).labels, 1, axis) != tissue(False).labels] = 0
        labels[np.roll(tissue(False).labels, -1, axis) != tissue(False).labels] = 0
    config, said = prepared(tmp_path / "a.py", write_cremi(tmp_path / "sample.hdf", tissue(False), labels))
    assert "taken as background (membrane, extracellular space); else say --zero=unlabelled" in said
    assert config.data.widening == "none"
    assert 0 in config.data.train[0].rules.background
    asked: list[str] = []  # on a terminal
    look = look_at([str(tmp_path / "sample.hdf")], Asked(ask=lambda told: asked.append(told) or "unlabelled"))
    assert "taken as background" in asked[0]
    assert 0 in look.declared.rules.unlabelled


def test_raw_alone_is_declared_and_said_to_teach_nothing(tissue, tmp_path):
    raw = write_sections(tmp_path / "raw", tissue(False).raw, "png")
    config, said = prepared(tmp_path / "a.py", raw, voxel_size_zyx=(40, 8, 8))
    assert not config.data.train
    assert config.data.test[0].raw == raw
    assert "Without labels nothing can be trained." in said
    assert f"emsam segment --ckpt=RUN --raw={raw} --voxel_size=40,8,8 --out=neurons.zarr" in said


@pytest.mark.slow
def test_three_volumes_are_split_by_volume_and_two_by_region(tissue, tmp_path):
    places = tuple((write_cremi(tmp_path / f"{name}.hdf", tissue(False)),) for name in "abc")
    said: list[str] = []
    prepare(Request(places, tmp_path / "three.py", trial=False), say=said.append)
    data = load_config(str(tmp_path / "three.py")).data
    for volumes, name in ((data.train, "a"), (data.validation, "b"), (data.test, "c")):
        assert [volume.raw for volume in volumes] == [f"{tmp_path}/{name}.hdf/volumes/raw"]
        assert volumes[0].roi == "0:60,0:128,0:128"
    prepare(Request(places[:2], tmp_path / "two.json", trial=False), say=said.append)
    data = load_config(str(tmp_path / "two.json")).data
    assert [len(part) for part in (data.train, data.validation, data.test)] == [2, 2, 2]


def test_spans_hold_as_much_as_they_can_and_keep_their_distance():
    """Against trying all pairs of borders."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = rng.integers(0, 5, 30)
        counts[rng.random(30) < 0.4] = 0
        guard, shares = int(rng.integers(1, 5)), (0.6, 0.4)
        best = 0.0
        for stop in range(1, 30):
            least = min(counts[:stop].sum() / 0.6, counts[stop + guard :].sum() / 0.4)
            best = max(best, float(least))
        spans = cut(counts, guard, shares)
        assert (spans is None) == (best == 0)
        if spans is not None:
            (_, end), (start, _) = spans
            assert start - end >= guard
            least = min(counts[slice(*span)].sum() / share for span, share in zip(spans, shares, strict=True))
            assert least == pytest.approx(best)


@pytest.mark.slow
def test_lone_sections_of_isotropic_voxels_teach_all_axes_and_patches_are_drawn_from_them(tissue, tmp_path):
    volume = tissue(True)
    labels = sections_only(volume.labels, 4, 20, 36, 52, 68, 84)
    config, said = prepared(tmp_path / "a.py", write_cremi(tmp_path / "sample.hdf", volume, labels))
    assert "Affinities along z are learned from the same: symmetries turn isotropic voxels' sections." in said
    assert "the neighbours of painted sections" not in said
    batch = next(Stream(config).batches(make_mesh(1, jax.devices()[:1]), 0))
    known = np.asarray(batch.valid)[..., :3].mean((0, 1, 2, 3))
    assert (known > 0).sum() >= 2  # of one patch, which is turned one way
    assert known.max() < 0.2


def test_on_eight_gpus_with_sam2s_weights(tmp_path):
    """What a device that is not at hand is given; a step is said to take half a second."""
    ids = np.kron(np.arange(1, 513).reshape(8, 8, 8), np.ones((8, 32, 32), np.int64))
    raw = np.random.default_rng(0).integers(0, 4000, ids.shape).astype(np.uint16)
    for name, values in (("raw", raw), ("labels", ids)):
        np.save(tmp_path / f"{name}.npy", values)
    places = [str(tmp_path / f"{name}.npy") for name in ("raw", "labels")]
    look = look_at(places, Asked((30, 6, 6)))
    basis = Basis((look,), Device("gpu", "H200", 8, 140 << 30, 64), Weights("weights/b+", "base_plus"))
    found = assemble("mine", basis, 24.0, lambda config: Timing(config.data.patch, 32, 0.5, 10 << 30))
    config = found.config
    assert (config.model.encoder.size, config.model.encoder.frozen) == ("base_plus", True)
    assert (config.model.dtype, config.data.patch) == ("bfloat16", (16, 224, 224))
    assert (config.optim.batch, config.optim.steps) == (32, 150_000)  # 85% of a day
    assert (config.optim.peak_lr, config.optim.ema, config.optim.warmup) == (1e-3, 0.999, 1000)
    assert config.data.augmentation == Augmentation()
    assert config.data.train[0].intensity.percentiles  # 4000 of 65535
    assert 'size="base_plus", weights="weights/b+"' in as_python("A header.", "mine", found.choices, found.used)


def test_an_hour_on_a_cpu_is_trained_as_the_measured_config_is(tmp_path: Path):
    np.save(tmp_path / "raw.npy", np.random.default_rng(0).integers(0, 255, (64, 96, 96), np.uint8))
    np.save(tmp_path / "labels.npy", np.ones((64, 96, 96), np.uint32))
    look = look_at([str(tmp_path / f"{name}.npy") for name in ("raw", "labels")], Asked((10, 10, 10)))
    basis = Basis((look,), Device("cpu", "CPU", 1, 8 << 30, 1), None)
    chosen = {setting.field: setting.value for setting in training_choices(basis, 800, 1, "")}["optim"]
    measured = load_config("fib25").optim
    assert chosen == {name: getattr(measured, name) for name in chosen}
    assert str(Timing((64, 64, 64), 1, 12.3, 0)).startswith("about 10 s a step")
