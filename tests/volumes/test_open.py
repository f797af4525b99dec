"""Volumes that other tools wrote, read voxel for voxel, with z, y, x and nm right, from disk and over HTTP."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

from emsam_jax.errors import UserError
from emsam_jax.storage import folder_spec
from emsam_jax.volumes import open_volume
from tests.volumes import writers
from tests.volumes.conftest import OFFSET, VOXEL_SIZE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the peers that write


# A web server does not list folders, and a specification names its own place.
NOT_OVER_HTTP = (writers.tiff_sections, writers.spec)


@pytest.mark.parametrize("write", writers.WRITERS, ids=lambda write: write.__name__)
def test_reads_what_others_write(write: writers.Writer, tmp_path: Path, grey: np.ndarray, ids: np.ndarray):
    check_reads(write, tmp_path, ids if write is writers.precomputed_compressed else grey, str(tmp_path))


@pytest.mark.parametrize(
    "write", [w for w in writers.WRITERS if w not in NOT_OVER_HTTP], ids=lambda write: write.__name__
)
def test_reads_over_http(write: writers.Writer, tmp_path: Path, grey: np.ndarray, serve: Callable[[Path], str]):
    values = grey.astype(np.uint64) if write is writers.precomputed_compressed else grey
    check_reads(write, tmp_path, values, serve(tmp_path))


def check_reads(write: writers.Writer, folder: Path, values: np.ndarray, place: str):
    volume = open_volume(f"{place}/{write(folder, values)}")
    has_size, has_offset = writers.WRITERS[write]

    assert volume.shape == values.shape
    assert volume.dtype.isnative
    np.testing.assert_array_equal(volume[:], values)
    np.testing.assert_array_equal(volume[3:17, 11:60, 40:41], values[3:17, 11:60, 40:41])
    assert volume.voxel_size_known == has_size
    np.testing.assert_allclose(volume.voxel_size_zyx, VOXEL_SIZE if has_size else (1, 1, 1))
    np.testing.assert_allclose(volume.offset_zyx, OFFSET if has_offset else (0, 0, 0))


@pytest.mark.parametrize("write", [writers.ome_zarr_04, writers.ome_zarr_05, writers.n5_pyramid])
def test_coarser_level_has_its_voxel_size_and_the_same_corner(write: writers.Writer, tmp_path: Path, grey: np.ndarray):
    volume = open_volume(tmp_path / write(tmp_path, grey), level=1)
    np.testing.assert_array_equal(volume[:], grey[:, ::2, ::2])
    np.testing.assert_allclose(volume.voxel_size_zyx, (40, 8, 16))
    np.testing.assert_allclose(volume.offset_zyx, OFFSET)
    np.testing.assert_allclose(volume.levels, [(40, 4, 8), (40, 8, 16)])


@pytest.mark.parametrize("write", [writers.ome_zarr_04, writers.ome_zarr_05])
def test_an_array_of_an_image_knows_what_its_group_says(write: writers.Writer, tmp_path: Path, grey: np.ndarray):
    volume = open_volume(tmp_path / write(tmp_path, grey) / ("1" if (tmp_path / "o.zarr/1").exists() else "s1"))
    assert volume.shape == grey[:, ::2, ::2].shape
    np.testing.assert_allclose(volume.voxel_size_zyx, (40, 8, 16))


def test_content_decides_not_the_suffix(tmp_path: Path, grey: np.ndarray):
    (tmp_path / writers.cremi(tmp_path, grey)).parents[1].rename(tmp_path / "cremi.tif")
    (tmp_path / writers.zarr2(tmp_path, grey)).parents[1].rename(tmp_path / "z.n5")
    np.testing.assert_array_equal(open_volume(tmp_path / "cremi.tif/volumes/raw")[:], grey)
    np.testing.assert_array_equal(open_volume(tmp_path / "z.n5/volumes/raw")[:], grey)


def test_paths_as_users_type_them(tmp_path: Path, grey: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    writers.zarr2(tmp_path, grey)
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "runs")
    for path in ("../a.zarr/volumes/raw/", f"file://{tmp_path}/a.zarr/volumes/raw"):
        np.testing.assert_array_equal(open_volume(path)[:], grey)


def test_specification_as_text_or_mapping(tmp_path: Path, grey: np.ndarray):
    """A transform with labelled axes: the labels decide, and a cut-out starts where it was cut."""
    writers.zarr3(tmp_path, grey)
    spec = {
        "driver": "zarr3",
        "kvstore": f"file://{tmp_path}/b.zarr/",
        "transform": {
            "input_inclusive_min": [10, 5, 0],
            "input_exclusive_max": [30, 60, 15],
            "input_labels": ["x", "y", "z"],
            "output": [{"input_dimension": 2}, {"input_dimension": 1}, {"input_dimension": 0}],
        },
    }
    for given in (spec, json.dumps(spec)):
        np.testing.assert_array_equal(open_volume(given)[:], grey[:15, 5:60, 10:30])


def test_channels_are_chosen_or_come_first(tmp_path: Path, grey: np.ndarray):
    np.save(tmp_path / "c.npy", np.stack([grey, 255 - grey]))
    with pytest.raises(UserError, match="expected one channel, found 2; choose one"):
        open_volume(tmp_path / "c.npy")
    np.testing.assert_array_equal(open_volume(tmp_path / "c.npy", channel=1)[:], 255 - grey)
    np.testing.assert_array_equal(
        open_volume(tmp_path / "c.npy", channel="all")[:, 3:5], np.stack([grey, 255 - grey])[:, 3:5]
    )


def test_overrides_replace_what_the_file_says(tmp_path: Path, grey: np.ndarray):
    path = tmp_path / writers.cremi(tmp_path, grey)
    volume = open_volume(path, voxel_size_zyx=(30, 6, 6), offset_zyx=(1, 2, 3))
    assert volume.voxel_size_zyx == (30, 6, 6)
    assert volume.offset_zyx == (1, 2, 3)


def test_axis_order_agrees_with_tensorstore_own_labels(tmp_path: Path, grey: np.ndarray):
    path = tmp_path / writers.precomputed_raw(tmp_path, grey)
    store = ts.open({"driver": "neuroglancer_precomputed", "kvstore": f"file://{path}/"}).result()
    assert store.domain.labels == ("x", "y", "z", "channel")
    np.testing.assert_array_equal(store[..., 0].read().result(), open_volume(path)[:].transpose())


@pytest.mark.parametrize(
    ("url", "spec"),
    [
        ("gs://bucket/em/raw", {"driver": "gcs", "bucket": "bucket", "path": "em/raw/"}),
        ("s3://bucket/em/raw", {"driver": "s3", "bucket": "bucket", "path": "em/raw/"}),
        ("https://host/em/raw", {"driver": "http", "base_url": "https://host", "path": "/em/raw/"}),
        ("/em/raw", {"driver": "file", "path": "/em/raw/"}),
    ],
)
def test_places_become_tensorstore_key_value_stores(url: str, spec: dict):
    assert folder_spec(url) == spec
