"""What we write, as other tools read it."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emsam_jax.errors import UserError
from emsam_jax.volumes import Format, create_volume, is_isotropic, open_volume
from emsam_jax.volumes.ingest.conversion import ingest
from tests.volumes.conftest import OFFSET, VOXEL_SIZE

with warnings.catch_warnings():  # what its own dependencies say when imported
    warnings.simplefilter("ignore")
    import ome_zarr.io
    import ome_zarr.reader
    from cloudvolume import CloudVolume

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint64, np.float16, np.float32])
def test_zarr_python_reads_our_ome_zarr(dtype: type, tmp_path: Path, grey: np.ndarray):
    volume = create_volume(
        tmp_path / "a.zarr", grey.shape, dtype, VOXEL_SIZE, offset_zyx=OFFSET, chunk=(8, 32, 32), shard=(16, 64, 64)
    )
    volume[:] = grey
    array = zarr.open_group(tmp_path / "a.zarr", mode="r")["0"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(array[:], grey.astype(dtype))
    assert (array.chunks, array.shards) == ((8, 32, 32), (16, 64, 64))
    codecs = [type(codec).__name__ for codec in array.metadata.codecs[0].codecs]  # pyright: ignore
    assert codecs == ["BytesCodec", "BloscCodec", "Crc32cCodec"]


def test_ome_zarr_reads_our_metadata(tmp_path: Path, grey: np.ndarray):
    create_volume(tmp_path / "a.zarr", grey.shape, np.uint8, VOXEL_SIZE, offset_zyx=OFFSET)[:] = grey
    location = ome_zarr.io.parse_url(tmp_path / "a.zarr")
    assert location is not None
    (node,) = ome_zarr.reader.Reader(location)()
    np.testing.assert_array_equal(np.asarray(node.data[0]), grey)
    assert [axis["name"] for axis in node.metadata["axes"]] == ["z", "y", "x"]
    assert {axis["unit"] for axis in node.metadata["axes"]} == {"nanometer"}
    steps = node.metadata["coordinateTransformations"][0]
    assert steps == [
        {"type": "scale", "scale": list(VOXEL_SIZE)},
        {"type": "translation", "translation": list(OFFSET)},
    ]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint64])
def test_cloud_volume_reads_our_precomputed(dtype: type, tmp_path: Path, grey: np.ndarray, ids: np.ndarray):
    values = ids if dtype is np.uint64 else grey.astype(dtype)
    volume = create_volume(
        tmp_path / "a",
        grey.shape,
        dtype,
        VOXEL_SIZE,
        offset_zyx=OFFSET,
        format="precomputed",
        chunk=(8, 32, 32),
        shard=(16, 64, 64),
    )
    volume[:] = values
    read: Any = CloudVolume(f"file://{tmp_path}/a", progress=False)
    np.testing.assert_array_equal(np.asarray(read[:])[..., 0].transpose(), values)
    assert list(read.resolution) == [8, 4, 40]
    assert list(read.voxel_offset) == [2, 10, 10]
    scale = json.loads((tmp_path / "a/info").read_text())["scales"][0]
    assert scale["sharding"]["data_encoding"] == "gzip"
    assert scale["encoding"] == ("compressed_segmentation" if dtype is np.uint64 else "raw")
    assert len(list((tmp_path / "a" / scale["key"]).glob("*.shard"))) == 2 * 2 * 2


@pytest.mark.parametrize("format", ["ome-zarr", "ome-zarr-0.4", "precomputed"])
def test_affinities_carry_their_offsets(format: Format, tmp_path: Path, grey: np.ndarray):  # noqa: A002
    """To whom opens the image or its array, and through a conversion; coarser levels have none."""
    offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -9))
    create_volume(tmp_path / "a", (3, *grey.shape), np.uint8, VOXEL_SIZE, format=format, offsets=offsets)[1] = grey
    volume = open_volume(tmp_path / "a", channel="all")
    assert (volume.shape, volume.offsets) == ((3, *grey.shape), offsets)
    np.testing.assert_array_equal(volume[:], np.stack([0 * grey, grey, 0 * grey]))
    assert open_volume(tmp_path / "a", channel=1).offsets == ()
    if format.startswith("ome-zarr"):
        kept = zarr.open_array(tmp_path / "a/0", mode="r").attrs.asdict()
        assert open_volume(tmp_path / "a/0", channel="all").offsets == offsets
    else:
        kept = json.loads((tmp_path / "a/info").read_text())
    assert kept["affinity_offsets"] == [list(offset) for offset in offsets]
    long = create_volume(tmp_path / "long", (3, 1, 1, 300), np.uint8, VOXEL_SIZE, offsets=offsets)
    copy = ingest(long, str(tmp_path / "copy"), format=format, pyramid="mean")
    assert copy.offsets == offsets
    assert open_volume(tmp_path / "copy", channel="all", level=1).offsets == ()


@pytest.mark.parametrize(
    ("kept", "found"), [([[-1, 0, 0]], r"\[\[-1, 0, 0\]\]"), ([[0, 0, 0.5], [1, 2, 3]], r"\[\[0, 0, 0.5\]")]
)
def test_offsets_that_fit_no_channels_are_a_sentence(tmp_path: Path, kept: list, found: str):
    zarr.create_array(tmp_path / "a", shape=(2, 4, 4, 4), dtype="uint8", attributes={"affinity_offsets": kept})
    with pytest.raises(
        UserError, match=rf"zarr\.json: attributes.affinity_offsets: expected 2 offsets .* found {found}"
    ):
        open_volume(tmp_path / "a", channel="all")
    with pytest.raises(UserError, match=r"an offset for each channel of the shape \(2, 4, 4, 4\), found 1"):
        create_volume(tmp_path / "b", (2, 4, 4, 4), np.uint8, VOXEL_SIZE, offsets=((-1, 0, 0),))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((10, 10, 10), True), ((40, 8, 8), False), ((15.9, 8, 8), True), ((16, 8, 8), False)],
)
def test_voxels_are_isotropic_below_twice_as_thick(size: tuple, expected: bool):
    assert is_isotropic(size) == expected
    z, y, x = size
    assert is_isotropic((z, y / 1.5, x * 1.5)) == is_isotropic((z, y * 1.5, x / 1.5)) == expected


def test_chunks_are_near_cubes_and_compressed(tmp_path: Path):
    for size, expected in (((10, 10, 10), (64, 64, 64)), ((40, 4, 4), (16, 128, 128))):
        volume = create_volume(tmp_path / f"{size[0]}.zarr", (300, 600, 600), np.uint8, size)
        assert volume.store.chunk_layout.read_chunk.shape == expected
        assert volume.store.chunk_layout.write_chunk.shape == tuple(4 * side for side in expected)
    volume[:64, :512, :512] = np.uint8(7)
    assert sum(file.stat().st_size for file in tmp_path.rglob("c/*/*/*")) < 64 * 512 * 512 / 100
