"""Conversion as a user runs it: bounded in memory, and resuming after it was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.volumes import Box, Layout, Volume, create_volume, open_volume, plan_layout, read_coarsened
from emsam_jax.volumes.ingest.conversion import ingest
from emsam_jax.volumes.ingest.level import refuse_too_large
from emsam_jax.volumes.pyramid import Method
from tests.volumes import writers
from tests.volumes.conftest import OFFSET, VOXEL_SIZE


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "emsam_jax.volumes.ingest", *map(str, arguments)]


@pytest.mark.parametrize("format", ["ome-zarr", "ome-zarr-0.4", "precomputed"])
@pytest.mark.parametrize("write", [writers.cremi, writers.n5, writers.zarr2])
def test_converts_with_sizes_and_offsets(write: writers.Writer, format: str, tmp_path: Path, grey: np.ndarray):  # noqa: A002
    source = open_volume(tmp_path / write(tmp_path, grey))
    volume = ingest(source, str(tmp_path / "out"), format=format, chunk=(8, 16, 16), shard=(8, 32, 48))
    np.testing.assert_array_equal(volume[:], grey)
    assert volume.voxel_size_zyx == VOXEL_SIZE
    assert volume.offset_zyx == OFFSET
    assert volume.store.chunk_layout.read_chunk.shape == (8, 16, 16)


@pytest.mark.parametrize(
    ("sent", "more"), [(signal.SIGKILL, ()), (signal.SIGINT, ()), (signal.SIGKILL, ("--overwrite",))]
)
def test_goes_on_after_it_was_stopped(sent: signal.Signals, more: tuple[str, ...], tmp_path: Path):
    """In the middle; the volume can't be opened, or is still the old one. The second run writes only what is left."""
    values = np.random.default_rng(0).integers(0, 256, (128, 256, 256), dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = values
    out, begun = tmp_path / "b.zarr", tmp_path / ".b.zarr.unfinished" if more else None
    if more:
        create_volume(out, (1, 1, 1), np.uint8, (1, 1, 1))[...] = 7
    flags = ("--voxel_size=10,10,10", "--chunk=16,32,32", "--shard=16,32,32", *more)
    run, shards, data = command(tmp_path / "a.h5/raw", out, *flags), 8 * 8 * 8, (begun or out) / "0/c"

    process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True)
    while sum(len(files) for _, _, files in os.walk(data)) < shards // 8:
        assert process.poll() is None, "finished before it could be stopped"
        time.sleep(0.01)
    process.send_signal(sent)
    said = process.communicate()[1]
    if sent == signal.SIGINT:
        assert process.returncode == 75
        assert said.endswith("ingest: Stopped by Ctrl-C; the same command resumes.\n")

    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    assert shards // 8 <= len(before) < shards
    if more:
        assert open_volume(out)[...] == 7
    else:
        with pytest.raises(UserError, match="is unfinished: its conversion was stopped"):
            open_volume(out)
    done = subprocess.run([*run], capture_output=True, text=True, check=True)
    np.testing.assert_array_equal(open_volume(out)[:], values)
    assert not (out / "unfinished.json").exists()
    placed = {out / path.relative_to(begun or out): time for path, time in before.items()}
    kept = sum(path.stat().st_mtime_ns == time for path, time in placed.items() if path.exists())
    assert kept >= len(before) - 4  # those that were under way may be written again
    assert f"{shards}/{shards}" in done.stderr  # progress
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.zarr"]


@pytest.mark.parametrize("format", ["ome-zarr", "ome-zarr-0.4", "precomputed"])
def test_coarser_levels_are_means_and_are_gone_on_with(
    format: str,  # noqa: A002
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    grey = np.random.default_rng(0).integers(0, 255, (3, 9, 1301), dtype=np.uint8)
    create_volume(tmp_path / "a.zarr", grey.shape, np.uint8, (40, 4, 4), offset_zyx=(40, 12, 20))[...] = grey
    source, out = open_volume(tmp_path / "a.zarr"), str(tmp_path / "out")

    def failing(volume: Volume, coarse: Layout, box: Box, method: Method) -> np.ndarray:
        if box.start != (0, 0, 0):
            raise RuntimeError("in the middle of level 1")
        return read_coarsened(volume, coarse, box, method)

    with monkeypatch.context() as patch:
        patch.setattr("emsam_jax.volumes.ingest.conversion.read_coarsened", failing)
        with pytest.raises(RuntimeError, match="in the middle"):
            ingest(source, out, format=format, pyramid="mean")
    with pytest.raises(UserError, match="whose pyramid is mean, not None"):
        ingest(source, out, format=format)
    for overwrite in (False, True):  # over a whole one, too
        volume = ingest(source, out, format=format, pyramid="mean", overwrite=overwrite)
        assert volume.levels == ((40, 4, 4), (40, 8, 8), (40, 16, 16), (40, 32, 32), (80, 64, 64))
        first = (0, 3, 5) if format == "precomputed" else (0, 0, 0)
        coarse, fine = open_volume(out, level=1)[...], volume[...]
        assert coarse.shape[-1] > 512  # two shards
        assert ((tmp_path / "out/1/0/0/0").is_file()) == (format == "ome-zarr-0.4")
        # Columns and rows beyond the border count for nothing.
        padded = np.pad(fine.astype(float), [(0, 0), (first[1] % 2, 1), (first[2] % 2, 2)], constant_values=np.nan)
        z, y, x = coarse.shape
        cells = padded[:, : 2 * y, : 2 * x].reshape(z, y, 2, x, 2)
        assert abs(np.nanmean(cells, axis=(2, 4)) - coarse).max() <= 0.5


def test_an_unfinished_conversion_of_something_else_is_left_alone(tmp_path: Path, grey: np.ndarray):
    first, other = (open_volume(tmp_path / write(tmp_path, grey)) for write in (writers.cremi, writers.n5))
    out = tmp_path / "b.zarr"
    ingest(first, str(out))
    (out / "unfinished.json").write_text("{")  # its content says nothing
    with pytest.raises(UserError, match=r"holds an unfinished conversion whose source is .*cremi.*, not .*c\.n5"):
        ingest(other, str(out))
    np.testing.assert_array_equal(ingest(first, str(out))[:], grey)


def test_shards_lost_between_are_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Deleted, cut short, or another's; stopped or finished."""
    values = np.random.default_rng(0).integers(1, 256, (8, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    source, out = open_volume(tmp_path / "a.npy", voxel_size_zyx=(1, 1, 1)), tmp_path / "b.zarr"
    sizes: dict[str, Any] = {"chunk": (8, 8, 8), "shard": (8, 8, 8)}
    ingest(source, str(out), **sizes)
    shards = out / "0/c/0"
    for unfinished in (True, False):
        (shards / "0/0").unlink()
        (shards / "1/1").write_bytes((shards / "1/2").read_bytes())
        (shards / "2/2").write_bytes((shards / "2/2").read_bytes()[:-9])
        (shards / "3/3_0123abcd.__lock").write_bytes(b"torn")
        (shards / "3/notes.__lock").write_bytes(b"mine")
        if unfinished:
            (out / "unfinished.json").touch()
        np.testing.assert_array_equal(ingest(source, str(out), **sizes)[:], values)
        assert "3 shards are damaged or missing" in capsys.readouterr().err
        assert [path.name for path in out.rglob("*__lock")] == ["notes.__lock"]
    ingest(source, str(out), **sizes)
    assert capsys.readouterr().err == f"{out}: all 16 shards are done already.\n"


def test_a_source_that_changed_is_noticed(tmp_path: Path):
    values = np.random.default_rng(0).integers(1, 256, (8, 32, 32), dtype=np.uint8)

    def write(changed: np.ndarray) -> Volume:
        np.save(tmp_path / "a.npy", changed)
        return open_volume(tmp_path / "a.npy", voxel_size_zyx=(1, 1, 1))

    source, out = write(values), str(tmp_path / "b.zarr")
    read = source.read

    def replaced(box: Box, outside: int | float = 0) -> np.ndarray:
        if box.start[2] == 16:
            write(values[::-1])
        return read(box, outside)

    source.read = replaced  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match=r"expected the files that the conversion began with .* stays unfinished"):
        ingest(source, out, chunk=(8, 8, 8), shard=(8, 8, 8))
    with pytest.raises(UserError, match="is unfinished"):
        open_volume(f"{out}/0")
    for changed in (values[::-1], values + (np.arange(32) == 0)):  # everywhere, and where no sample is taken
        with pytest.raises(UserError, match=r"unfinished conversion whose source_files is 1, of .* or --overwrite"):
            ingest(write(changed), out, chunk=(8, 8, 8), shard=(8, 8, 8))
    copied = ingest(write(values), out, chunk=(8, 8, 8), shard=(8, 8, 8), overwrite=True)
    np.testing.assert_array_equal(copied[:], values)


@pytest.mark.slow
def test_two_at_once(tmp_path: Path):
    """One is refused while the other writes, which is whole in the end."""
    values = np.random.default_rng(0).integers(0, 256, (64, 256, 256), dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    run = command(tmp_path / "a.npy", tmp_path / "b.zarr", "--voxel_size=9,9,9", "--chunk=8,16,16", "--shard=8,16,16")
    both = [subprocess.Popen(run, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    for process, text in zip(both, said, strict=True):  # the later one may come after the first has ended
        assert process.returncode == 0 or "another run" in text
    assert 0 in [process.returncode for process in both]
    np.testing.assert_array_equal(open_volume(tmp_path / "b.zarr")[:], values)


def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path: Path):
    create_volume(tmp_path / "a.zarr", (10**5, 10**5, 10**5), np.uint8, (8, 8, 8))
    source = open_volume(tmp_path / "a.zarr")
    with pytest.raises(
        UserError, match=r"for the record of its blocks|for its disk even if they were compressed 100 times"
    ):
        ingest(source, str(tmp_path / "b.zarr"))
    with pytest.raises(UserError, match=r"of memory, .* are free; choose smaller ones by --shard"):
        refuse_too_large(plan_layout("memory://b", source.shape, np.uint8, (8, 8, 8), shard=(51200, 51200, 51200)))
    assert not (tmp_path / "b.zarr").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nothing.h5/raw", "b.zarr"), "there is no such file or folder"),
        (("c.npy", "b.zarr"), "does not know its voxel size; give it as --voxel_size=z,y,x in nm"),
        (("c.npy", "b.zarr", "--voxel_size=4,4"), "flag --voxel_size=4,4: expected three numbers z,y,x"),
        (("c.npy", "c.npy/b.zarr", "--voxel_size=4,4,4"), "c.npy"),
    ],
)
def test_errors_are_sentences(arguments: tuple[str, ...], sentence: str, tmp_path: Path, grey: np.ndarray):
    writers.npy_c(tmp_path, grey)
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


# A process of its own: only there does the peak belong to the conversion alone.
CONVERT = """
import sys
from emsam_jax.storage import set_cache_limit
from emsam_jax.volumes import create_volume, open_volume
from emsam_jax.volumes.ingest.conversion import ingest

def peak():
    # Not ru_maxrss: it begins at what the parent had when it started this process.
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024

set_cache_limit(16 << 20)
source = open_volume(sys.argv[1], voxel_size_zyx=(10, 10, 10))
source[:8]
before = peak()
ingest(source, sys.argv[2], chunk=(32, 64, 64), shard=(32, 256, 256))
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path):
    """192 MiB through shards of 2 MiB and a cache of 16."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("raw", (192, 1024, 1024), np.uint8, chunks=(8, 128, 128))
        values = np.random.default_rng(0).integers(0, 256, (16, 1024, 1024), dtype=np.uint8)
        for z in range(0, 192, 16):
            dataset[z : z + 16] = values
    run = [sys.executable, "-c", CONVERT, str(tmp_path / "a.h5/raw"), str(tmp_path / "b.zarr")]
    assert int(subprocess.run(run, capture_output=True, check=True).stdout) < 16 + 80  # MiB
