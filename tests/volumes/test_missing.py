"""Chunks that other tools compress, chunks that are not there, sections that are not there."""

import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from emsam_jax.errors import UserError
from emsam_jax.evaluation import read_subject
from emsam_jax.volumes import Specimen, create_volume, open_volume
from emsam_jax.volumes.ingest.conversion import ingest
from emsam_jax.volumes.verify import check_present, quick_findings
from emsam_jax.volumes.verify.findings import missing_findings
from emsam_jax.volumes.verify.report import verify
from tests.volumes import writers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the peers that write


@pytest.mark.parametrize("codec", ["gzip", "br", "zstd"])
def test_chunks_as_cloud_volume_compresses_them(
    codec: str, tmp_path: Path, grey: np.ndarray, ids: np.ndarray, serve: Callable[[Path], str]
):
    for kind, encoding, values in (("image", "raw", grey), ("segmentation", "compressed_segmentation", ids)):
        writers.precomputed(tmp_path / kind, values, kind, encoding, compress=codec)
        for place in (str(tmp_path), serve(tmp_path)):
            np.testing.assert_array_equal(open_volume(f"{place}/{kind}/pre")[:], values)


def test_a_codec_that_is_not_installed_is_named(tmp_path: Path, grey: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / writers.precomputed(tmp_path, grey, "image", "raw", compress="br")
    monkeypatch.setitem(sys.modules, "brotli", None)  # as if it were not there
    with pytest.raises(UserError, match=r"\.br is compressed with brotli, which is not installed: pip install brot"):
        open_volume(path)[:]


def test_a_chunk_that_unpacks_to_more_than_a_chunk(tmp_path: Path, grey: np.ndarray):
    path = tmp_path / writers.precomputed(tmp_path, grey, "image", "raw", compress="gzip")
    next((path / "8_4_40").iterdir()).write_bytes(gzip.compress(bytes(1 << 24)))
    with pytest.raises(UserError, match="expected a whole chunk of at most 1081344 bytes"):
        open_volume(path)[:]


def sharded_precomputed(folder: Path, values: np.ndarray) -> str:
    options: Any = {"format": "precomputed", "chunk": (8, 16, 16), "shard": (8, 32, 32)}
    create_volume(folder / "sharded", values.shape, values.dtype, (40, 4, 8), **options)[:] = values
    return "sharded"


QUICK = [writers.zarr3_sharded, writers.n5, writers.precomputed_gzip]
OTHERS = [
    *(writers.zarr2, writers.zarr3, writers.zarr3_x_first, writers.ome_zarr_04),
    *(writers.precomputed_raw, sharded_precomputed),
]


@pytest.mark.parametrize(
    "write",
    [*QUICK, *(pytest.param(write, marks=pytest.mark.slow) for write in OTHERS)],
    ids=lambda write: write.__name__,
)
def test_missing_chunks_are_found(
    write: writers.Writer, tmp_path: Path, grey: np.ndarray, serve: Callable[[Path], str]
):
    path = tmp_path / write(tmp_path, grey + 1)
    assert missing_findings(open_volume(path)) == []
    level = next((path / name for name in ("s0", "0") if (path / name / ".zarray").exists()), path)
    metadata = (".zarray", ".zattrs", ".zgroup", "zarr.json", "attributes.json", "info")
    first, *others = sorted(file for file in level.rglob("*") if file.is_file() and file.name not in metadata)
    first.unlink()
    if others:
        (found,) = missing_findings(open_volume(path))
        assert found.severity == "warning"
        assert "missing and read as 0" in found.text
    for file in others:
        file.unlink()
    for place in (str(tmp_path), serve(tmp_path)):
        volume = open_volume(f"{place}/{path.relative_to(tmp_path)}")
        (found,) = missing_findings(volume)
        assert found.severity == "error"
        assert f"{volume.url}: none of its " in found.text
        assert found in quick_findings(Specimen(volume))


def test_the_share_of_missing_chunks_is_exact_where_there_are_few(tmp_path: Path, grey: np.ndarray):
    volume = create_volume(tmp_path / "a.zarr", (32, 64, 64), "uint8", (40, 4, 4), chunk=(8, 8, 8), shard=(8, 8, 8))
    volume[8:16, 8:16, :] = 7
    (found,) = missing_findings(open_volume(tmp_path / "a.zarr"))
    assert "248 of its 256 chunks are missing" in found.text
    box = open_volume(tmp_path / "a.zarr").box.middle((1, 1, 1))
    with pytest.raises(UserError, match="none of its 1 chunks is there"):
        check_present(open_volume(tmp_path / "a.zarr"), box)
    (tmp_path / "a.zarr/0/c/0/0/0").mkdir(parents=True)
    with pytest.raises(UserError, match="expected a file of the volume's voxels, found a folder"):
        missing_findings(open_volume(tmp_path / "a.zarr"))


def test_a_volume_declared_huge_is_not_begun(tmp_path: Path):
    volume = create_volume(tmp_path / "a.zarr", (10**5,) * 3, "uint8", (40, 4, 4))
    volume[:8, :8, :8] = 1
    huge = open_volume(tmp_path / "a.zarr")
    with pytest.raises(UserError, match=r"none of its .* of .* is there"):
        check_present(huge)
    findings, _ = verify(huge, huge)  # at once
    assert [finding.severity for finding in findings].count("error") >= 2
    with pytest.raises(UserError, match=r"Judging .* takes at least .* GiB, of which .* choose a smaller region"):
        read_subject(Specimen(huge, huge))


def test_hdf5_chunks_that_were_never_written(tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("none", (64, 64, 64), "u1", chunks=(16, 16, 16))
        file.create_dataset("some", (64, 64, 64), "u1", chunks=(16, 16, 16))[:16] = 1
        file.create_dataset("late", (64, 64, 64), "u1")
    for name, severity in (("none", "error"), ("some", "warning"), ("late", "error")):
        assert [found.severity for found in missing_findings(open_volume(tmp_path / f"a.h5/{name}"))] == [severity]


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_gaps_among_numbered_sections(suffix: str, tmp_path: Path, grey: np.ndarray):
    (tmp_path / "em").mkdir()
    for z in range(12):
        name = tmp_path / f"em/run2_s{10 * z:03}.{suffix}"
        tifffile.imwrite(name, grey[z]) if suffix == "tif" else Image.fromarray(grey[z]).save(name)
    np.testing.assert_array_equal(open_volume(tmp_path / "em")[:], grey[:12])
    (tmp_path / f"em/run2_s050.{suffix}").unlink()
    with pytest.raises(
        UserError, match=rf"1 of 12 sections are missing .*\(z 5\); the first after run2_s040\.{suffix}"
    ):
        open_volume(tmp_path / "em")
    volume = open_volume(tmp_path / "em", allow_gaps=True, voxel_size_zyx=(40, 4, 4))
    assert not volume[5].any()
    np.testing.assert_array_equal(np.delete(volume[:], 5, 0), np.delete(grey[:12], 5, 0))
    (told,) = missing_findings(volume)
    assert "1 of 12 sections are missing by the numbers of the files (z 5): they are read as 0" in told.text
    np.testing.assert_array_equal(ingest(volume, str(tmp_path / "whole"))[:], volume[:])


def test_numbers_that_count_no_sections(tmp_path: Path, grey: np.ndarray):
    """Times of day: more numbers would be missing than there are."""
    for z, moment in enumerate((90001, 90137, 90212, 90348)):
        tifffile.imwrite(tmp_path / f"em_{moment}.tif", grey[z])
    np.testing.assert_array_equal(open_volume(tmp_path)[:], grey[:4])


def test_pictures_of_16_bits_and_single_files(tmp_path: Path, grey: np.ndarray, serve: Callable[[Path], str]):
    deep = grey[0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "a.png")
    for place in (str(tmp_path), serve(tmp_path)):
        np.testing.assert_array_equal(open_volume(f"{place}/a.png")[:], deep[None])
    Image.fromarray(grey[0]).save(tmp_path / "b.jpg", quality=100, subsampling=0)
    assert np.abs(open_volume(tmp_path / "b.jpg")[0].astype(int) - grey[0]).max() < 8
    Image.fromarray(np.stack([grey[0]] * 3, -1)).save(tmp_path / "c.png")
    with pytest.raises(UserError, match=r"c\.png: expected a grey section, found the mode RGB"):
        open_volume(tmp_path / "c.png")
