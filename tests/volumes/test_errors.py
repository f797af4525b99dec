"""What users get wrong, each answered by one sentence that names it."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from emsam_jax.config import DeclaredVolume
from emsam_jax.errors import UserError
from emsam_jax.volumes import Format, Specimen, box_of, create_volume, open_declared, open_volume, parse_box
from tests.volumes import writers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the peers that write


def test_missing_file(tmp_path: Path):
    (tmp_path / "empty.h5").touch()
    with pytest.raises(UserError, match=r"/empty\.h5: expected one of .* whose first bytes are none of theirs\."):
        open_volume(tmp_path / "empty.h5/labels")
    with pytest.raises(UserError, match=r"nothing\.zarr: there is no such file or folder\."):
        open_volume(tmp_path / "nothing.zarr")


def test_missing_file_over_http(tmp_path: Path, serve: Callable[[Path], str]):
    with pytest.raises(UserError, match=r"nothing\.zarr: found nothing there that is one of zarr, OME-Zarr"):
        open_volume(serve(tmp_path) + "/nothing.zarr")


def test_server_without_byte_ranges(tmp_path: Path, grey: np.ndarray, serve: Callable[..., str]):
    path = writers.cremi(tmp_path, grey)
    with pytest.raises(UserError, match=r"cremi\.hdf cannot be read: .*was ignored by server"):
        open_volume(f"{serve(tmp_path, ranges=False)}/{path}")


def test_unreachable_host():
    with pytest.raises(UserError, match=r"^http://127\.0\.0\.1:9/a/unfinished\.json cannot be read: .*connect"):
        open_volume("http://127.0.0.1:9/a")


def test_unknown_scheme():
    with pytest.raises(UserError, match=r"a URL that starts with file, gs, s3, http.*found ftp://"):
        open_volume("ftp://host/em")


@pytest.mark.parametrize("write", [writers.cremi, writers.zarr2])
def test_wrong_dataset_name_lists_what_there_is(write: writers.Writer, tmp_path: Path, grey: np.ndarray):
    path = write(tmp_path, grey).replace("raw", "rwa")
    with pytest.raises(UserError, match=r"rwa.* It has: .*raw"):
        open_volume(tmp_path / path)


def test_file_of_another_kind(tmp_path: Path):
    (tmp_path / "a.zarr").write_text("not a volume")
    with pytest.raises(UserError, match="found a file whose first bytes are none of theirs"):
        open_volume(tmp_path / "a.zarr")


def test_level_that_is_not_there(tmp_path: Path, grey: np.ndarray):
    with pytest.raises(UserError, match=r"has the levels 0 to 1; found level=2"):
        open_volume(tmp_path / writers.ome_zarr_05(tmp_path, grey), level=2)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


@pytest.mark.parametrize(
    ("write", "file"),
    [
        (writers.zarr2, "a.zarr/volumes/raw/0.0.0"),
        (writers.zarr3, "b.zarr/c/0/0/0"),
        (writers.zarr3_sharded, "b.zarr/c/0/0/0"),
        (writers.n5, "c.n5/raw/0/0/0"),
        (writers.cremi, "cremi.hdf"),
        (writers.npy_c, "c.npy"),
        (writers.imagej, "i.tif"),
        (writers.tiff_sections, "sections/em_1.tif"),
    ],
)
def test_truncated_chunk(write: writers.Writer, file: str, tmp_path: Path, grey: np.ndarray):
    path = tmp_path / write(tmp_path, grey)
    cut(tmp_path / file)
    with pytest.raises(UserError) as caught:
        open_volume(path)[:]
    assert str(path).split("/volumes")[0] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_checksums_find_a_flipped_bit(tmp_path: Path, grey: np.ndarray):
    create_volume(tmp_path / "a.zarr", grey.shape, np.uint8, (40, 4, 8))[:] = grey
    file = tmp_path / "a.zarr/0/c/0/0/0"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.zarr: voxels 0:20,0:70,0:90 cannot be read: .*(checksum|CRC)"):
        open_volume(tmp_path / "a.zarr")[:]


def test_section_of_another_size(tmp_path: Path, grey: np.ndarray):
    path = tmp_path / writers.tiff_sections(tmp_path, grey)
    tifffile.imwrite(path / "em_7.tif", grey[7, :50])
    with pytest.raises(
        UserError, match=r"em_7\.tif: expected a section like the first one, \(70, 90\) uint8; found \(50"
    ):
        open_volume(path)[:]


def test_empty_volume(tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", shape=(0, 10, 10), dtype=np.uint8)
    with pytest.raises(UserError, match=r"is empty: its shape \(z, y, x\) is \(0, 10, 10\)"):
        open_volume(tmp_path / "a.h5/raw")


def volume_of(tmp_path: Path, name: str, values: np.ndarray):
    np.save(tmp_path / name, values)
    return open_volume(tmp_path / f"{name}.npy", voxel_size_zyx=(40, 4, 8))


def test_swapped_shapes_of_raw_and_labels(tmp_path: Path, grey: np.ndarray, ids: np.ndarray):
    raw, labels = volume_of(tmp_path, "raw", grey), volume_of(tmp_path, "ids", ids.transpose())
    with pytest.raises(
        UserError, match=r"expected the shape \(20, 70, 90\).*found \(90, 70, 20\): its axes are swapped"
    ):
        Specimen(raw, labels)


def test_declared_without_raw():
    with pytest.raises(UserError, match="Volume 'a': expected a path or URL as `raw`, found nothing"):
        open_declared(DeclaredVolume(name="a"))


def test_float_labels(tmp_path: Path, grey: np.ndarray):
    raw, labels = volume_of(tmp_path, "raw", grey), volume_of(tmp_path, "ids", grey.astype(np.float32))
    with pytest.raises(UserError, match="expected labels of whole numbers, found float32"):
        Specimen(raw, labels)


def test_nan_in_raw(tmp_path: Path, grey: np.ndarray):
    values = grey.astype(np.float32)
    values[3, 4, 5] = np.nan
    with pytest.raises(UserError, match="expected numbers, found NaN within 0:20,0:70,0:90"):
        Specimen(volume_of(tmp_path, "raw", values)).read_raw(box_of(values.shape))


def test_volumes_that_do_not_meet(tmp_path: Path, grey: np.ndarray, ids: np.ndarray):
    np.save(tmp_path / "ids.npy", ids)
    far = open_volume(tmp_path / "ids.npy", voxel_size_zyx=(40, 4, 8), offset_zyx=(4000, 0, 0))
    with pytest.raises(UserError, match=r"lies at 4000 to 4800.*at 0 to 800.*share no voxel; correct the offset"):
        Specimen(volume_of(tmp_path, "raw", grey), far)


@pytest.mark.parametrize("index", [np.s_[0:21], np.s_[-1:], np.s_[:, 3:999], np.s_[20], np.s_[0, 0, 0, 0]])
def test_indices_beyond_the_volume(index: object, tmp_path: Path, grey: np.ndarray):
    with pytest.raises(UserError, match="expected"):
        _ = volume_of(tmp_path, "raw", grey)[index]


@pytest.mark.parametrize("roi", ["0:5", "0:5,0:5,0:500", "a:b,:,:", "5:5,:,:"])
def test_region_of_interest(roi: str, grey: np.ndarray):
    with pytest.raises(UserError, match=r"expected z0:z1,y0:y1,x0:x1 within 0:20,0:70,0:90; found"):
        parse_box(roi, box_of(grey.shape))


@pytest.mark.parametrize("format", ["ome-zarr", "precomputed"])
def test_nothing_is_overwritten_unasked(format: Format, tmp_path: Path, grey: np.ndarray):  # noqa: A002
    create_volume(tmp_path / "a", grey.shape, np.uint8, (40, 4, 8), format=format)[:] = grey
    with pytest.raises(UserError, match="there is a volume already"):
        create_volume(tmp_path / "a", (4, 5, 6), np.uint8, (40, 4, 8), format=format)
    np.testing.assert_array_equal(open_volume(tmp_path / "a")[:], grey)
    create_volume(tmp_path / "a", (4, 5, 6), np.uint16, (40, 4, 8), format=format, overwrite=True)
    assert open_volume(tmp_path / "a").shape == (4, 5, 6)


def test_precomputed_wants_whole_voxels(tmp_path: Path):
    with pytest.raises(UserError, match="precomputed wants an offset of whole voxels"):
        create_volume(tmp_path / "a", (4, 5, 6), np.uint8, (40, 4, 8), offset_zyx=(0, 2, 0), format="precomputed")
