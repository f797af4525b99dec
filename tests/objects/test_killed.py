"""`emsam objects` as a user runs it: killed at any moment, by workers, and with mistakes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.objects import make_objects, plan_objects
from emsam_jax.volumes import create_volume
from tests.objects import tissue_of_shapes as tissue
from tests.objects.tissue_of_shapes import shapes_in
from tests.programs import PATIENCE, environment

pytestmark = pytest.mark.slow
BLOCK = "40,50,60"  # 50 blocks, then 3 groups of 16 objects


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> str:
    """Copies of the shapes side by side: 48 objects, three groups."""
    place = tmp_path_factory.mktemp("labels") / "labels.zarr"
    shapes = tissue.draw_shapes()
    volume = create_volume(place, (40, 240, 600), np.uint64, tissue.SIZE, offset_zyx=tissue.OFFSET)
    copies = np.arange(12, dtype=np.uint64).reshape(1, 2, 6).repeat(40, 0).repeat(120, 1).repeat(100, 2)
    volume[...] = np.where(np.tile(shapes, (1, 2, 6)) > 0, np.tile(shapes, (1, 2, 6)) + copies * np.uint64(100), 0)
    return str(place)


def command(labels: str, out: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "emsam_jax", "objects", f"--labels={labels}", f"--out={out}", *flags]


def done(out: Path) -> int:
    return len([entry for entry in out.glob("ledger/*/done/*") if entry.name[-1].isdigit()])


def test_killed_and_resumed(labels: str, tmp_path: Path):
    make_objects(plan_objects(labels, str(tmp_path / "undisturbed")))
    out = tmp_path / "out"
    call = command(labels, out, "--workers=1", f"--block={BLOCK}")
    for count in (20, 49, 51, 52):
        with (tmp_path / "log").open("wb") as log:
            run = subprocess.Popen(call, env=environment(), start_new_session=True, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while done(out) < count and run.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert run.poll() is None, (tmp_path / "log").read_text()
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        assert not (out / "objects.csv").exists()
    again = subprocess.run(call, env=environment(), check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert again.returncode == 0, again.stderr
    assert "pieces: 50 of 50 blocks are done" in again.stderr
    assert shapes_in(out) == shapes_in(tmp_path / "undisturbed")


def test_workers_make_the_same(labels: str, tmp_path: Path):
    make_objects(plan_objects(labels, str(tmp_path / "here")))
    out = tmp_path / "there"
    call = command(labels, out, "--workers=2", f"--block={BLOCK}", "--ids=3,103", "--mesh_format=ply", "--parquet")
    run = subprocess.run(call, env=environment(), check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 0, run.stderr
    assert "Objects: 48" in run.stdout
    assert shapes_in(out) == shapes_in(tmp_path / "here")
    assert sorted(path.name for path in (out / "ply").iterdir()) == ["103.ply", "3.ply"]


def test_a_mistake_is_one_sentence(tmp_path: Path):
    run = subprocess.run(
        command(str(tmp_path / "absent.zarr"), tmp_path / "out"),
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert run.returncode == 1
    assert run.stderr == f"objects: {tmp_path}/absent.zarr: there is no such file or folder.\n"
