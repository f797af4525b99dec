"""Files and servers that were made to hang, to fill the memory, or to read what is not theirs."""

import http.server
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from emsam_jax.errors import UserError
from emsam_jax.storage import RemoteFile, bounded, set_cache_limit
from emsam_jax.volumes import create_volume, open_volume
from tests.volumes import writers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the peers that write


def refused(path: str | Path, match: str, **options: Any) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=match):
        open_volume(path, **options)[:1, :1, :1]
    assert time.monotonic() - start < 10


def npy(path: Path, header: str) -> Path:
    text = header.ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    return path


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000), }", "found a file that ends"),
        (f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**70}, 3, 3), }}", "found a file that ends|damaged"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (-3, 3, 3), }", "found a file that ends|damaged"),
        ("__import__('os').system('touch attacked')", "damaged"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (3, 3, 3), }", "expected an array of real numbers"),
        ("{'descr': '<U4', 'fortran_order': False, 'shape': (3, 3, 3), }", "expected an array of real numbers"),
        ("{'descr': '<c8', 'fortran_order': False, 'shape': (3, 3, 3), }", "expected an array of real numbers"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (), }", "found a file that ends"),
    ],
)
def test_npy_headers(header: str, match: str, tmp_path: Path):
    refused(npy(tmp_path / "a.npy", header), match)
    assert not Path("attacked").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.npy")
    refused(tmp_path / "a.npy", "found a pipe, socket or device")


@pytest.mark.parametrize("path", [b"em\xff.npy".decode(errors="surrogateescape"), "em\0.npy"])
def test_paths_that_are_none(path: str):
    refused(path, "expected a path")


def test_a_cache_below_0():
    with pytest.raises(UserError, match="Expected a cache of 0 bytes or more, found -1"):
        set_cache_limit(-1)


def change(path: Path, *names: str, to: Any) -> None:
    whole = json.loads(path.read_text())
    inner = whole
    for name in names[:-1]:
        inner = inner[name]
    inner[names[-1]] = to
    path.write_text(json.dumps(whole))


def test_chunks_of_a_million_a_side(tmp_path: Path):
    create_volume(tmp_path / "a.zarr", (64, 64, 64), "uint8", (4, 4, 4))[...] = 1
    change(tmp_path / "a.zarr/0/zarr.json", "codecs", to=[{"name": "bytes"}])
    change(tmp_path / "a.zarr/0/zarr.json", "chunk_grid", "configuration", "chunk_shape", to=[10**6] * 3)
    refused(tmp_path / "a.zarr", "expected chunks of at most 2 GiB")


@pytest.mark.parametrize("size", [0, -4, float("nan"), float("inf"), [4, 4], "words", [4, "words", 4], 10**400])
@pytest.mark.parametrize("write", [writers.zarr2, writers.n5, writers.cremi], ids=lambda write: write.__name__)
def test_voxel_sizes_that_are_none(write: writers.Writer, size: Any, tmp_path: Path, grey: np.ndarray):
    path = tmp_path / write(tmp_path, grey)
    wrong = [size] * 3 if isinstance(size, int | float) else size
    if write is writers.cremi:
        if isinstance(wrong, list) and (isinstance(wrong[1], str) or wrong[0] == 10**400):
            pytest.skip("HDF5 holds no such list")
        with h5py.File(tmp_path / "cremi.hdf", "r+") as file:
            file["volumes/raw"].attrs["resolution"] = wrong
    elif write is writers.n5:
        change(path / "attributes.json", "pixelResolution", "dimensions", to=wrong)
        if str(size) in ("nan", "inf") or size == 10**400:
            refused(path, "expected a volume, found a damaged one")  # TensorStore's JSON has no such numbers
            return
    else:
        change(path / ".zattrs", "resolution", to=wrong)
    refused(path, "voxel_size_zyx")
    np.testing.assert_array_equal(open_volume(path, voxel_size_zyx=(40, 4, 8))[:], grey)
    refused(path, "expected three numbers", voxel_size_zyx=(40, float("nan"), 8))


def test_hdf5_that_is_no_volume(tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["loop"] = h5py.SoftLink("/loop")
        file["null"] = h5py.Empty("f4")
        file["compound"] = np.zeros((3, 3, 3), [("a", "f4"), ("b", "i4")])
        file["complex"] = np.zeros((3, 3, 3), np.complex64)
        file["text"] = np.full((3, 3, 3), b"words")
    for name in ("loop", "null", "compound", "complex", "text", "absent"):
        refused(tmp_path / f"a.h5/{name}", r"a\.h5.*expected")


def test_a_tiff_whose_strip_has_a_terabyte(tmp_path: Path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8), compression="zlib", bigtiff=True)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        tags = file.pages.first.tags
        tags["StripByteCounts"].overwrite([10**12])
    refused(tmp_path / "a.tif", "ends before its last voxel")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages.first.tags[name].overwrite(10**6)
    refused(tmp_path / "a.tif", "expected strips or tiles of at most 2 GiB")


def test_a_tiff_whose_pages_go_round(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 64, 64), np.uint8), metadata=None, photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        last, first = file.pages[2].aspage(), file.pages.first
    data = bytearray((tmp_path / "a.tif").read_bytes())
    next_at = last.offset + 2 + 12 * len(last.tags)
    data[next_at : next_at + 4] = first.offset.to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(data)
    refused(tmp_path / "a.tif", "expected a TIFF file, found a damaged one: .*circular")
    assert not caplog.records, "the sentence stands alone"


def test_a_bomb_of_xml(tmp_path: Path):
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "a" * 10}">' for i in range(12))
    text = f'<?xml version="1.0"?><!DOCTYPE OME [{entities}]><OME xmlns="http://www.openmicroscopy.org/">&a11;</OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((3, 64, 64), np.uint8), description=text, metadata=None)
    refused(tmp_path / "a.ome.tif", "declares entities of XML")


@pytest.fixture
def answer(listen: Callable[..., str]) -> Callable[..., str]:
    """A web server that answers everything in one way; gives its URL."""

    def start(respond: Callable[[http.server.BaseHTTPRequestHandler], None]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                respond(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return listen(Handler)

    return start


def test_a_server_that_sends_without_end(answer: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    def send(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(b" " * (1 << 20))
        except OSError:
            pass

    monkeypatch.setattr(bounded, "LIMIT", 8 << 20)
    refused(answer(send) + "/em.zarr", "expected metadata of at most 8 MiB, found more")


def test_a_server_that_says_nothing(answer: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bounded, "PATIENCE", 0.5)
    refused(answer(lambda _: time.sleep(30)) + "/em.zarr", r"cannot be read: no answer in 0\.5 seconds")


def test_a_server_that_dribbles(answer: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    """Each byte in time, the last one never."""

    def send(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(b" ")
                time.sleep(0.05)
        except OSError:
            pass

    monkeypatch.setattr(bounded, "IN_ALL", 0.5)
    refused(answer(send) + "/em.zarr", r"cannot be read: the server took more than 0\.5 seconds")


def test_a_file_over_http_costs_one_request_to_open_and_no_more_than_the_range_to_read(answer: Callable[..., str]):
    """The server breaks one connection, and from 200,000 on it sends without end."""
    contents, asked = np.random.default_rng(0).bytes(300_000), []

    def send(request: http.server.BaseHTTPRequestHandler) -> None:
        first, last = map(int, request.headers["Range"].removeprefix("bytes=").split("-"))
        asked.append(first)
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {first}-{last}/{len(contents)}")
        if first < 200_000:
            request.send_header("Content-Length", str(last + 1 - first))
        request.end_headers()
        part = contents[first : last + 1]
        try:
            request.wfile.write(part[:-1] if len(asked) == 2 else part)
            while first >= 200_000:
                request.wfile.write(b" " * (1 << 20))
        except OSError:
            pass

    file = RemoteFile(answer(send) + "/em.h5")
    assert file.seek(0, os.SEEK_END) == len(contents)
    assert file.pread(10, 1000) == contents[10:1010]
    assert len(asked) == 1
    assert file.pread(100_000, 70_000) == contents[100_000:170_000]
    assert asked == [0, 100_000, 100_000]
    with pytest.raises(OSError, match="a byte range was ignored by server"):
        file.pread(200_000, 10)


@pytest.mark.parametrize(
    "kvstore",
    [
        "file:///etc/",
        {"driver": "file", "path": "/etc/"},
        {"driver": "zip", "base": "file:///etc/a.zip"},
        {"driver": "ocdbt", "base": "http://127.0.0.1:1/", "manifest": "file:///etc/"},
        "http://127.0.0.1:1/a.zip|zip:",
    ],
)
def test_a_specification_from_elsewhere_names_no_file_of_here(
    kvstore: Any, tmp_path: Path, serve: Callable[[Path], str]
):
    (tmp_path / "a.json").write_text(json.dumps({"driver": "zarr", "kvstore": kvstore}))
    refused(serve(tmp_path) + "/a.json", "expected a specification of remote places only")


def test_a_specification_from_elsewhere(tmp_path: Path, grey: np.ndarray, serve: Callable[[Path], str]):
    url = serve(tmp_path)
    writers.zarr3(tmp_path, grey)
    (tmp_path / "a.json").write_text(json.dumps({"driver": "zarr3", "kvstore": f"{url}/b.zarr/"}))
    np.testing.assert_array_equal(open_volume(f"{url}/a.json")[:], grey)


def test_an_hdf5_file_that_is_being_read_can_be_opened_by_others(tmp_path: Path, grey: np.ndarray):
    path = tmp_path / writers.cremi(tmp_path, grey)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume[:5], grey[:5])
    for mode in ("r", "r+"):
        with h5py.File(tmp_path / "cremi.hdf", mode) as file:
            assert "volumes" in file
    write = "import h5py, sys; h5py.File(sys.argv[1], 'r+').attrs['a'] = 1"
    subprocess.run([sys.executable, "-c", write, str(tmp_path / "cremi.hdf")], check=True)
    np.testing.assert_array_equal(volume[5:], grey[5:])


def test_numpy_takes_a_volume(tmp_path: Path, grey: np.ndarray):
    volume = open_volume(tmp_path / writers.zarr2(tmp_path, grey))
    np.testing.assert_array_equal(np.asarray(volume), grey)
    assert np.asarray(volume, np.float32).dtype == np.float32


@pytest.mark.parametrize("flags", ["--shape=0,4,4", "--shape=4,4", "--shape=a,b,c", "--voxel_size=nan,8,8"])
def test_a_synthetic_volume_of_no_shape(flags: str, tmp_path: Path):
    command = [sys.executable, "-m", "emsam_jax.volumes.synthetic", f"--out={tmp_path}", flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.match(r"synthetic: .*[Ee]xpected", done.stderr)
    assert done.stderr.count("\n") == 1
