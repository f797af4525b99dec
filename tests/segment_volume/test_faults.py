"""Whatever goes wrong: what is reported done stays, and once it is put right the same command ends with the same."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from emsam_jax.segmentation import append_edit, new_edit
from emsam_jax.segmentation.blockwise import segment_blockwise
from emsam_jax.volumes import create_volume, open_volume
from tests.blocks.processes import dask_cluster
from tests.programs import PATIENCE, environment
from tests.segment_volume.command import (
    RECIPE,
    command,
    draw_affinities,
    entries,
    labels,
    said,
    segment,
    start,
    wait_for,
)

pytestmark = pytest.mark.slow


def complete(folder: Path, out: str, *flags: str) -> None:
    """Runs again."""
    before = entries(folder, out)
    assert before
    again = segment(folder, out, *flags)
    assert again.returncode == 0, again.stderr
    after = entries(folder, out)
    assert {name: after[name] for name in before} == before
    np.testing.assert_array_equal(labels(folder, out), labels(folder, "undisturbed.zarr"))


def test_a_worker_and_the_scheduler_are_killed_at_work(folder: Path, tmp_path: Path):
    out = "scheduler.zarr"
    with dask_cluster(tmp_path, "", "") as cluster:
        run = start(folder, out, f"--scheduler={cluster.address}")
        wait_for(folder, out, 5, run)
        with Client(cluster.address, set_as_default=False) as client:
            workers: Any = client.run(os.getpid)
        os.kill(min(workers.values()), signal.SIGKILL)
        wait_for(folder, out, 60, run)  # that stopped nothing
        cluster.scheduler.kill()
        run.wait(timeout=PATIENCE)
    assert run.returncode == 75, said(folder, out)
    assert "The scheduler no longer answers: " in said(folder, out)
    assert "Traceback" not in said(folder, out)
    with dask_cluster(tmp_path, "", "") as cluster:
        complete(folder, out, f"--scheduler={cluster.address}")


def test_the_lock_is_deleted_under_a_run(folder: Path):
    """As by somebody who takes it for a dead one's, and begins a second run."""
    out = "unlocked.zarr"
    run = start(folder, out)
    wait_for(folder, out, 5, run)
    (folder / out / "ledger/running.json").unlink()
    complete(folder, out)
    assert run.wait(timeout=PATIENCE) == 1
    assert "running.json: expected this run's lease, found " in said(folder, out)
    assert "Traceback" not in said(folder, out)
    assert len({run_of(entry) for name, entry in entries(folder, out).items() if "fragments" in name}) == 2


def test_a_block_that_always_raises_is_named_and_the_others_are_done(folder: Path):
    affinities = draw_affinities()
    affinities[2, 20, 60, 60] = np.nan
    stored = create_volume(folder / "damaged.zarr", affinities.shape, "float32", (40, 4, 4))
    stored[...] = affinities
    flags = (f"--affinities={stored.url}",)
    failed = segment(folder, "raised.zarr", *flags)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert "9 blocks of fragments failed; the same command tries them again:" in failed.stderr  # 3 x 3 see it
    assert len(entries(folder, "raised.zarr")) == 48 - 9
    status = segment(folder, "raised.zarr", "--status")
    assert re.search(r"^fragments: 39 of 48 blocks done, 9 failed, .*\n  1-1-1: ", status.stdout)
    stored[...] = draw_affinities()
    complete(folder, "raised.zarr", *flags)


def test_a_full_disk(folder: Path, tmp_path: Path):
    """In a namespace of its own, where anybody may mount a small disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    own = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    mount = f"mount -t tmpfs -o size=700k tmpfs {disk}"
    if not shutil.which("unshare") or subprocess.run([*own, mount], check=False, capture_output=True).returncode:
        pytest.skip("needs `unshare --map-root-user --mount` and to mount a tmpfs in it, which is not permitted here")
    run = " ".join(command(folder, "full.zarr", f"--out={disk}/full.zarr"))
    script = f"""
        {mount}
        {run} || echo "ended with $?"
        cp -r {disk}/full.zarr {folder}/before.zarr
        mount -o remount,size=20m {disk}
        {run}
        cp -r {disk}/full.zarr {folder}/full.zarr
    """
    done = subprocess.run(
        [*own, script], check=False, capture_output=True, text=True, env=environment(), timeout=2 * PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert "\nended with 1\n" in done.stdout
    assert re.search("RESOURCE_EXHAUSTED: |No space left on device", done.stderr), done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    before, after = entries(folder, "before.zarr"), entries(folder, "full.zarr")
    assert 0 < len(before) < len(after) == 3 * 48 + 3 + 5  # graph, lookup and queue; two coarser levels
    assert {name: after[name] for name in before} == before
    np.testing.assert_array_equal(labels(folder, "full.zarr"), labels(folder, "undisturbed.zarr"))


def test_a_worker_out_of_memory(tmp_path: Path):
    """Of two blocks, one of which is too large for it."""
    affinities = np.tile(draw_affinities(), (1, 1, 7, 5))
    stored = create_volume(tmp_path / "affinities.zarr", affinities.shape, "float32", (40, 4, 4))
    stored[...] = affinities
    RECIPE.write(tmp_path / "recipe.json")
    flags = ("--block=24,384,320", "--workers=1")
    failed = segment(tmp_path, "out.zarr", *flags, "--memory=240MiB")
    assert failed.returncode == 1
    assert "died 3 times while it did block 0-0-0 alone: it was out of memory" in failed.stderr
    assert "give each worker more memory or choose smaller blocks" in failed.stderr
    before = entries(tmp_path, "out.zarr")
    assert "fragments/done/0-1-0" in before
    again = segment(tmp_path, "out.zarr", *flags)
    assert again.returncode == 0, again.stderr
    assert entries(tmp_path, "out.zarr").items() >= before.items()
    volume = open_volume(stored.url, channel="all")
    expected = segment_blockwise(volume, tmp_path / "undisturbed.zarr", RECIPE, (24, 384, 320))
    np.testing.assert_array_equal(labels(tmp_path, "out.zarr"), expected[...])


def remove_data(out: Path) -> set[str]:
    """A torn shard, and one that is gone."""
    shards = sorted(path for path in (out / "0/c").rglob("*") if path.is_file())
    shards[0].write_bytes(shards[0].read_bytes()[:-7])
    shards[5].unlink()
    return {f"labels/done/{'-'.join(shards[n].parts[-3:])}" for n in (0, 5)}


def remove_entries(out: Path) -> set[str]:
    names = {"fragments/done/0-0-0", "edges/done/1-2-3", "graph/done/0-0-0", "labels/done/2-3-3"}
    for name in names:
        (out / "ledger" / name).unlink()
    return names


@pytest.mark.parametrize("remove", [remove_data, remove_entries])
def test_entries_without_data_and_data_without_entries(folder: Path, remove: Callable[[Path], set[str]]):
    out = f"{remove.__name__}.zarr"
    assert segment(folder, out).returncode == 0
    before, changed = entries(folder, out), remove(folder / out)
    again = segment(folder, out)
    assert again.returncode == 0, again.stderr
    assert ("2 of them damaged" in again.stderr) == (remove is remove_data)
    after = entries(folder, out)
    assert {name for name in before if run_of(before[name]) != run_of(after[name])} == changed
    np.testing.assert_array_equal(labels(folder, out), labels(folder, "undisturbed.zarr"))


def run_of(entry: bytes) -> str:
    return json.loads(entry)["run"]


def test_tables_of_all_blocks_need_no_worker(folder: Path, tmp_path: Path):
    out = folder / "tables.zarr"
    assert segment(folder, out.name).returncode == 0
    for stage in ("graph", "lookup"):
        (out / f"ledger/{stage}/done/0-0-0").unlink()
    with dask_cluster(tmp_path) as cluster:  # of none
        complete(folder, out.name, f"--scheduler={cluster.address}")
    (out / "ledger/graph/done/0-0-0").unlink()
    (out / "counts/1-2-3.npy").unlink()
    failed = segment(folder, out.name, "--nocheck")
    assert failed.returncode == 1
    assert "1 blocks of graph failed; the same command tries them again:" in failed.stderr
    assert "counts/1-2-3.npy: expected a table in numpy's format, found none" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert segment(folder, out.name).returncode == 0  # finds out what is missing, and why
    np.testing.assert_array_equal(labels(folder, out.name), labels(folder, "undisturbed.zarr"))


def test_a_run_with_edits_is_killed_at_any_moment_and_resumed(folder: Path):
    before = open_volume(str(folder / "undisturbed.zarr"))[...]
    clicks = [(np.argwhere(before == name)[0] + 0.5) * (40, 4, 4) for name in (1, 2)]
    path = folder / "edits.jsonl"
    append_edit(path, new_edit("join", clicks, "ada"))
    flags = (f"--edits={path}",)
    assert segment(folder, "edited.zarr", *flags).returncode == 0
    report = (folder / "edited.zarr/edits_report.csv").read_text()
    for count in (30, 98, 99, 120):  # in the fragments, before and after the lookup, in the labels
        run = start(folder, "killed.zarr", *flags)
        wait_for(folder, "killed.zarr", count, run)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    again = segment(folder, "killed.zarr", *flags)
    assert again.returncode == 0, again.stderr
    assert "Edits: 0 held already, 1 applied, 0 impossible." in again.stdout
    np.testing.assert_array_equal(labels(folder, "killed.zarr"), labels(folder, "edited.zarr"))
    assert (folder / "killed.zarr/edits_report.csv").read_text() == report
    append_edit(path, new_edit("done", clicks[:1], "ada"))
    other = segment(folder, "killed.zarr", *flags)
    assert other.returncode == 1
    assert "comes from another run, with edits " in other.stderr
