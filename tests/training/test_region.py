"""What lies outside a training volume's region of interest does not exist, whichever shipped config is trained."""

import dataclasses
import runpy
import typing
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

import emsam_jax.configs
from emsam_jax.config import Config, DeclaredVolume, Intensity, Selection, load_config
from emsam_jax.data import Batch, PatchSource
from emsam_jax.training.sharding import make_mesh
from emsam_jax.training.state import new_state
from emsam_jax.training.step import compile_train_step
from emsam_jax.training.stream import Stream, make_target
from emsam_jax.volumes import Box, Specimen, open_declared

FILES = sorted(Path(emsam_jax.configs.__path__[0]).glob("[!_]*.py"))
BEYOND = 40  # voxels of the volume on either side of the region


def shipped() -> list[Config]:
    """A config for each way of making batches; variants that differ elsewhere are one."""
    known = {}
    for file in FILES:
        variants = typing.get_args(runpy.run_path(str(file))["get_config"].__annotations__.get("variant"))
        for path in [f"{file}:{variant}" for variant in variants] or [str(file)]:
            config = load_config(path)
            known.setdefault((make_target(config), config.data.augmentation), config)
    return list(known.values())


def declare(folder: Path, config: Config, axis: int) -> tuple[DeclaredVolume, DeclaredVolume]:
    """Two volumes that are alike in their region, which is cut on both sides of an axis."""
    rng = np.random.default_rng(axis)
    patch = config.data.patch
    sides = [max(patch) if config.model.isotropic else side for side in patch]
    shape = [side + 2 * BEYOND * (at == axis) for at, side in enumerate(sides)]
    region = tuple(slice(BEYOND, BEYOND + side) if at == axis else slice(0, side) for at, side in enumerate(sides))
    raw = rng.integers(0, 256, shape).astype(np.uint8)
    blocks = rng.integers(1, 500, [side // 8 + 2 for side in shape])
    within = tuple(slice(3, 3 + side) for side in shape)  # so that objects reach across the region's borders
    labels = np.kron(blocks, np.ones((8, 8, 8), np.uint64))[within].astype(np.uint64)
    outside = np.ones(shape, bool)
    outside[region] = False
    for name, grey, ids in (
        ("one", raw, labels),
        ("other", np.where(outside, 255 - raw // 2, raw), np.where(outside, labels + np.uint64(2**40), labels)),
    ):
        np.save(folder / f"{name}_raw.npy", grey)
        np.save(folder / f"{name}_labels.npy", ids)
    one, other = (
        DeclaredVolume(
            name="a volume",
            raw=str(folder / f"{name}_raw.npy"),
            labels=str(folder / f"{name}_labels.npy"),
            raw_voxel_size_zyx=(8, 8, 8) if config.model.isotropic else (40, 8, 8),
            roi=",".join(f"{at.start}:{at.stop}" for at in region),
            intensity=Intensity(low=1.0, high=99.0, percentiles=True),
        )
        for name in ("one", "other")
    )
    return one, other


def training_on(volume: DeclaredVolume, config: Config, axis: int) -> Config:
    selection = Selection(by_object=axis == 1)
    data = dataclasses.replace(config.data, train=(volume,), weights=(), selection=selection, prefetch=0, threads=2)
    return dataclasses.replace(config, data=data, optim=dataclasses.replace(config.optim, batch=2))


def first_batch(config: Config) -> tuple[list[str], Batch]:
    stream = Stream(config)
    return stream.describe(), next(stream.batches(make_mesh(1, jax.devices()[:1]), 0))


def places(config: Config) -> Iterator[tuple[Specimen, Box]]:
    source = PatchSource(
        [open_declared(config.data.train[0])],
        make_target(config),
        config.data.augmentation,
        config.seed,
        selection=config.data.selection,
    )
    for index in range(config.optim.batch):
        specimen, field = source.locate(index)
        yield specimen, field.box()


@pytest.mark.parametrize("axis", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, marks=pytest.mark.slow if number else [], id=config.name)
        for number, config in enumerate(shipped())
    ],
)
def test_what_lies_outside_the_region_changes_no_bit_of_a_batch(tmp_path, config, axis):
    """Raw, affinities and mask, though the patches look beyond the region; by percentiles, and drawn by object."""
    one, other = (training_on(volume, config, axis) for volume in declare(tmp_path, config, axis))
    assert any(
        box.start[axis] < specimen.region.start[axis] or box.stop[axis] > specimen.region.stop[axis]
        for specimen, box in places(one)
    )
    (said, batch), (said_too, same) = first_batch(one), first_batch(other)
    assert said == said_too
    for values, values_too in zip(batch, same, strict=True):
        np.testing.assert_array_equal(values, values_too)
    assert not np.asarray(batch.valid).all()
    assert np.asarray(batch.valid).mean() > 0.2


@pytest.mark.slow
def test_nor_of_a_trained_step(tmp_path, make_config):
    small = make_config()
    mesh = make_mesh(1, jax.devices()[:1])
    step = compile_train_step(small, mesh, new_state(small, mesh)[0])
    after = []
    for volume in declare(tmp_path, small, 2):
        batch = first_batch(training_on(volume, small, 2))[1]
        after.append(jax.device_get(step(*new_state(small, mesh), batch)))
    jax.tree.map(np.testing.assert_array_equal, *after)
