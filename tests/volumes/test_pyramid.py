"""Levels as other tools read them, with the ids and the places that a brute force finds."""

import dataclasses
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emsam_jax.volumes import (
    Format,
    Layout,
    Volume,
    box_of,
    create_array,
    create_volume,
    open_volume,
    plan_layout,
    plan_levels,
    read_coarsened,
    shard_within,
    write_image_metadata,
)
from emsam_jax.volumes.pyramid import coarsen, factor_of

with warnings.catch_warnings():  # what its own dependencies say when imported
    warnings.simplefilter("ignore")
    import ome_zarr.io
    import ome_zarr.reader
    from cloudvolume import CloudVolume

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SHAPE, OFFSET = (7, 45, 90), (80.0, 12.0, 20.0)  # at 40, 4, 4 nm: voxels 2, 3, 5 of the world, two of them odd


def draw_ids(shape: tuple[int, int, int]) -> np.ndarray:
    """Balls of ids beyond 32 bits, in a background of 0."""
    rng = np.random.default_rng(3)
    seeds = rng.integers(0, shape, (60, 3)) * (10, 1, 1)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * (10, 1, 1)
    apart = np.linalg.norm(places[..., None, :] - seeds, axis=-1)
    ids = rng.choice(2**40, len(seeds), replace=False).astype(np.uint64)
    return np.where(apart.min(-1) < 14, ids[apart.argmin(-1)], 0).astype(np.uint64)


def candidates(ids: np.ndarray, first: tuple[int, ...], factor: tuple[int, ...]) -> dict[tuple[int, ...], set[int]]:
    """By the coarse voxel, counted from the world's 0: the ids that are in most of its voxels."""
    found: dict[tuple[int, ...], list[int]] = {}
    for place in np.ndindex(ids.shape):
        coarse = tuple((at + own) // by for at, own, by in zip(first, place, factor, strict=True))
        found.setdefault(coarse, []).append(int(ids[place]))
    return {at: {one for one in own if own.count(one) == max(map(own.count, own))} for at, own in found.items()}


def write_pyramid(url: Path, format: Format) -> list[Layout]:  # noqa: A002
    """Five levels, the coarse ones made at once."""
    finest = plan_layout(url, SHAPE, np.uint64, (40, 4, 4), offset_zyx=OFFSET, format=format, chunk=(4, 16, 16))
    levels = [finest]
    create_array(finest)[...] = draw_ids(SHAPE)
    for _ in range(4):
        fine, coarse = levels[-1], coarsen(levels[-1])
        volume = create_array(coarse)
        volume[...] = read_coarsened(create_array(fine, resume=True), coarse, volume.box, "mode")
        levels.append(coarse)
    write_image_metadata(*levels)
    return levels


def opened(levels: list[Layout]) -> list[Volume]:
    return [open_volume(level.url, level=level.level) for level in levels]


@pytest.fixture(scope="module", params=["ome-zarr", "precomputed"])
def levels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Layout]:
    return write_pyramid(tmp_path_factory.mktemp(request.param) / "ids", request.param)


def test_voxels_are_the_most_frequent_ids_of_those_they_cover(levels: list[Layout]):
    """On the grid of the world for precomputed, of the volume's first voxel for OME-Zarr."""

    def first(volume: Volume) -> tuple[int, ...]:
        if levels[0].format == "ome-zarr":
            return (0, 0, 0)
        return tuple(int(at / size) for at, size in zip(volume.offset_zyx, volume.voxel_size_zyx, strict=True))

    volumes = opened(levels)
    assert len(np.unique(volumes[0][...])) > 20
    for fine, coarse in itertools.pairwise(volumes):
        by = tuple(round(own / size) for own, size in zip(coarse.voxel_size_zyx, fine.voxel_size_zyx, strict=True))
        expected, values = candidates(fine[...], first(fine), by), coarse[...]
        found = {tuple(np.add(first(coarse), at).tolist()): int(values[at]) for at in np.ndindex(values.shape)}
        assert found.keys() == expected.keys()
        assert {at: one for at, one in found.items() if one not in expected[at]} == {}


def test_objects_stay_where_they_are(levels: list[Layout]):
    """Centres of objects of at least 30 coarse voxels, in nm, to within half a coarse voxel."""

    def centre(volume: Volume, one: int) -> np.ndarray:
        return (np.argwhere(volume[...] == one).mean(0) + 0.5) * volume.voxel_size_zyx + volume.offset_zyx

    finest, *coarser = opened(levels[:3])
    compared = 0
    for coarse in coarser:
        ids, counts = np.unique(coarse[...], return_counts=True)
        for one in ids[(counts >= 30) & (ids > 0)].tolist():
            assert (abs(centre(coarse, one) - centre(finest, one)) < np.divide(coarse.voxel_size_zyx, 2)).all()
            compared += 1
    assert compared > 20


def test_boxes_are_read_as_the_whole(levels: list[Layout]):
    """Whatever the chunks, and where a box begins."""
    fine, whole = create_array(levels[1], resume=True), create_array(levels[2], resume=True)[...]
    for chunk in ((3, 5, 7), (64, 64, 64)):
        coarse = dataclasses.replace(levels[2], chunk=chunk)
        for box in box_of(coarse.shape).tiles((2, 7, 12)):
            np.testing.assert_array_equal(read_coarsened(fine, coarse, box, "mode"), whole[box.slices])


@pytest.mark.parametrize("format", ["ome-zarr", "ome-zarr-0.4"])
def test_ome_zarr_reads_all_levels(format: Format, tmp_path: Path):  # noqa: A002
    volumes = opened(write_pyramid(tmp_path / "a.zarr", format))
    location = ome_zarr.io.parse_url(tmp_path / "a.zarr")
    assert location is not None
    (node,) = ome_zarr.reader.Reader(location)()
    for volume, data in zip(volumes, node.data, strict=True):
        np.testing.assert_array_equal(np.asarray(data), volume[...])
    scales, shifts = (
        [steps[i][kind] for steps in node.metadata["coordinateTransformations"]]
        for i, kind in enumerate(("scale", "translation"))
    )
    assert scales == [[40, 4, 4], [40, 8, 8], [40, 16, 16], [40, 32, 32], [80, 64, 64]]
    # Centres of the first voxels, as seen from the centre of the finest one's.
    assert shifts == [[80, 12, 20], [80, 14, 22], [80, 18, 26], [80, 26, 34], [100, 42, 50]]
    assert [volume.offset_zyx for volume in volumes] == [OFFSET] * 5


def test_cloud_volume_reads_the_finest_level_of_ome_zarr_0_4(tmp_path: Path):
    """Of the others it takes the chunks to be of the finest one's shape; it places the first voxel at 0."""
    (volume, *_) = opened(write_pyramid(tmp_path / "a.zarr", "ome-zarr-0.4"))
    read: Any = CloudVolume(f"zarr://file://{tmp_path}/a.zarr", progress=False, fill_missing=True)
    np.testing.assert_array_equal(np.asarray(read[:])[..., 0].transpose(), volume[...])
    assert (list(read.resolution), str(read.dtype)) == ([4, 4, 40], "uint64")


def test_cloud_volume_reads_all_levels(tmp_path: Path):
    volumes = opened(write_pyramid(tmp_path / "a", "precomputed"))
    read: Any = [CloudVolume(f"file://{tmp_path}/a", mip=level, progress=False) for level in range(5)]
    for volume, mip in zip(volumes, read, strict=True):
        np.testing.assert_array_equal(np.asarray(mip[:])[..., 0].transpose(), volume[...])
    assert [list(mip.resolution) for mip in read] == [[4, 4, 40], [8, 8, 40], [16, 16, 40], [32, 32, 40], [64, 64, 80]]
    assert [list(mip.voxel_offset) for mip in read] == [[5, 3, 2], [2, 1, 2], [1, 0, 2], [0, 0, 2], [0, 0, 1]]
    assert read[0].layer_type == "segmentation"
    assert len(read[0].available_mips) == 5


@pytest.mark.parametrize(
    ("shape", "voxel_size", "factors"),
    [
        ((125, 1250, 1250), (40, 4, 4), [(1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2)]),
        ((520, 520, 520), (8, 8, 8), [(2, 2, 2), (2, 2, 2), (2, 2, 2)]),
        ((300, 300, 300), (30, 8, 8), [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]),
        ((16, 128, 600), (40, 4, 8), [(1, 2, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2)]),
        ((1, 600, 600), (8, 8, 8), [(1, 2, 2), (1, 2, 2), (1, 2, 2)]),
        ((32, 256, 256), (40, 4, 4), []),
    ],
)
def test_voxels_become_cubes_until_a_level_is_small(
    shape: tuple[int, int, int], voxel_size: tuple[int, int, int], factors: list[tuple[int, int, int]], tmp_path: Path
):
    levels = plan_levels(plan_layout(tmp_path, shape, np.uint64, voxel_size))
    assert [factor_of(level) for level in levels[:-1]] == factors
    assert [level.level for level in levels] == list(range(len(levels)))


@pytest.mark.parametrize(
    ("region", "block", "chunk", "expected"),
    [
        ((300, 300, 300), (256, 256, 256), (64, 64, 64), (256, 256, 256)),
        ((300, 300, 300), (192, 192, 192), (64, 64, 64), (64, 64, 64)),
        ((300, 300, 300), (64, 128, 256), (64, 64, 64), (64, 128, 128)),
        ((64, 600, 600), (16, 256, 256), (16, 128, 128), (16, 256, 256)),
        ((16, 600, 600), (16, 256, 256), (16, 128, 128), (16, 256, 256)),
        ((40, 600, 600), (48, 512, 512), (16, 128, 128), (48, 512, 512)),
    ],
)
def test_a_block_of_precomputed_is_whole_shards(
    region: tuple[int, int, int],
    block: tuple[int, int, int],
    chunk: tuple[int, int, int],
    expected: tuple[int, int, int],
    tmp_path: Path,
):
    """As TensorStore cuts them: a shard is a run along a Morton curve, which is a box only for some shapes."""
    shard = shard_within(block, chunk, region, "precomputed")
    volume = create_volume(tmp_path / "a", region, np.uint64, (8, 8, 8), format="precomputed", chunk=chunk, shard=shard)
    assert volume.store.chunk_layout.write_chunk.shape == expected
    assert all(own >= side or own % part == 0 for own, part, side in zip(block, expected, region, strict=True))
