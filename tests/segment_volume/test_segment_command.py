"""segment.py as a user runs it, killed, stopped and run again."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.blocks import RunLock
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import make_fragments, segment_affinities
from emsam_jax.volumes import create_volume, open_volume
from tests.programs import PATIENCE, ROOT, environment
from tests.segment_volume.command import (
    RECIPE,
    draw_affinities,
    entries,
    labels,
    said,
    segment,
    start,
    wait_for,
)


def assert_status_is_complete(folder: Path, out: str) -> None:
    told = subprocess.run(
        [sys.executable, str(ROOT / "segment.py"), "--status", f"--out={folder / out}"],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    ).stdout.splitlines()
    counts = {"fragments": 48, "edges": 48, "graph": 1, "lookup": 1, "labels": 48, "pyramid-1": 3, "pyramid-2": 2}
    counts["queue"] = 1
    assert told == [f"{name}: {count} of {count} blocks done" for name, count in counts.items()]


def test_labels_are_those_of_the_whole_volume_given_the_fragments(folder: Path):
    """Fragments of blocks are other ones than the whole volume's; what is made of them is the same."""
    affinities = draw_affinities()
    pieces = open_volume(folder / "undisturbed.zarr/fragments")[...]
    table = np.load(folder / "undisturbed.zarr/pieces.npy")
    fragments = table["label"][np.searchsorted(table["fragment"], pieces)]
    assert (
        len(np.unique(pieces))
        > len(np.unique(fragments))
        >= len(np.unique(make_fragments(affinities, RECIPE.fragments)))
    )
    expected = segment_affinities(affinities, "waterz", RECIPE.threshold, fragments=fragments)
    found = labels(folder, "undisturbed.zarr")
    assert score_segmentation(found + np.uint64(1), expected + np.uint64(1))["voi"] == 0
    objects = np.load(folder / "undisturbed.zarr/objects.npy")
    assert dict(zip(objects["id"].tolist(), objects["voxels"].tolist(), strict=True)) == {
        int(i): int(n) for i, n in zip(*np.unique(found[found > 0], return_counts=True), strict=True)
    }


# Among edges; among fragments and labels.
@pytest.mark.parametrize("count", [60, *(pytest.param(count, marks=pytest.mark.slow) for count in (5, 101))])
def test_killed_with_all_its_processes_it_goes_on_and_ends_with_the_same(folder: Path, count: int):
    out = f"killed{count}.zarr"
    run = start(folder, out)
    wait_for(folder, out, count, run)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    before = entries(folder, out)
    again = segment(folder, out)
    assert again.returncode == 0, again.stderr
    assert " blocks are done" in again.stderr
    after = entries(folder, out)
    assert {name: after[name] for name in before} == before  # nothing reported done was done again
    np.testing.assert_array_equal(labels(folder, out), labels(folder, "undisturbed.zarr"))
    queues = [(folder / name / "queue.csv").read_bytes() for name in (out, "undisturbed.zarr")]
    assert queues[0] == queues[1]


@pytest.mark.slow
def test_precomputed_is_killed_and_ends_with_the_same(folder: Path):
    """Its levels, too, since both begin at the world's 0."""
    out, flag = "killed_precomputed", "--format=precomputed"
    run = start(folder, out, flag)
    wait_for(folder, out, 101, run)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    before = entries(folder, out)
    again = segment(folder, out, flag)
    assert again.returncode == 0, again.stderr
    after = entries(folder, out)
    assert {name: after[name] for name in before} == before
    assert len(open_volume(folder / out).levels) == 3
    for level in range(3):
        ours, other = (open_volume(folder / name, level=level) for name in (out, "undisturbed.zarr"))
        np.testing.assert_array_equal(ours[...], other[...])
        assert ours.voxel_size_zyx == other.voxel_size_zyx
    assert_status_is_complete(folder, out)


@pytest.mark.slow
def test_ctrl_c_ends_it_in_order(folder: Path):
    run = start(folder, "stopped.zarr")
    wait_for(folder, "stopped.zarr", 1, run)
    run.send_signal(signal.SIGINT)
    run.wait(timeout=PATIENCE)
    assert run.returncode == 75, said(folder, "stopped.zarr")
    assert "the same command resumes" in said(folder, "stopped.zarr")
    assert segment(folder, "stopped.zarr").returncode == 0
    np.testing.assert_array_equal(labels(folder, "stopped.zarr"), labels(folder, "undisturbed.zarr"))


def test_two_runs_at_once_on_one_output_are_refused(folder: Path):
    with RunLock(f"{folder / 'undisturbed.zarr'}/ledger"):
        other = segment(folder, "undisturbed.zarr")
    assert other.returncode == 1
    assert "another run is writing here" in other.stderr


def test_another_threshold_is_refused_in_the_same_place_and_cheap_in_another(folder: Path):
    refused = segment(folder, "undisturbed.zarr", "--threshold=0.3")
    assert refused.returncode == 1
    assert "threshold 0.5 there, 0.3 here" in refused.stderr
    assert f"As --graph={folder / 'undisturbed.zarr'} its fragments and edges serve another output" in refused.stderr
    assert "Traceback" not in refused.stderr
    flags = [f"--out={folder / 'other.zarr'}", f"--graph={folder / 'undisturbed.zarr'}", "--threshold=0.3"]
    flags += ["--guard_size=5000", "--guard_threshold=0.2"]
    cheap = subprocess.run(
        [sys.executable, str(ROOT / "segment.py"), *flags],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert cheap.returncode == 0, cheap.stderr
    assert {name.split("/")[0] for name in entries(folder, "other.zarr")} == {
        *("lookup", "labels", "pyramid-1", "pyramid-2", "queue")
    }
    facts = json.loads((folder / "other.zarr/ledger/lookup/identity.json").read_text())
    assert (facts["guard_size"], facts["guard_threshold"]) == (5000, 0.2)
    assert f"Found: {labels(folder, 'other.zarr').max()} objects" in cheap.stdout
    assert cheap.stdout.startswith(
        "Recipe: waterz with mean, 2d fragments (boundary 0.5, seed distance 3), threshold 0.3; "
        f"from {folder}/undisturbed.zarr/postprocess.json, but threshold from --threshold.\n"
    )
    assert labels(folder, "other.zarr").max() > labels(folder, "undisturbed.zarr").max()


@pytest.mark.slow
def test_a_changed_input_is_refused(folder: Path):
    changed = folder / "changed.zarr"
    affinities = draw_affinities()
    create_volume(changed, affinities.shape, "float32", (40, 4, 4))[...] = affinities
    flags = (f"--affinities={changed}",)
    assert segment(folder, "stale.zarr", *flags).returncode == 0
    shutil.rmtree(changed)
    create_volume(changed, affinities.shape, "float32", (40, 4, 4))[...] = 1 - affinities
    stale = segment(folder, "stale.zarr", *flags)
    assert stale.returncode == 1
    assert "comes from another run, with content" in stale.stderr


def test_status_tells_how_far_a_run_is(folder: Path):
    assert_status_is_complete(folder, "undisturbed.zarr")


MISTAKES = [
    ("", "Expected one of --ckpt, --affinities and --graph, found none"),
    ("--affinities=a.zarr --ckpt=run", "found --ckpt and --affinities"),
    ("--affinities=a.zarr --threshold=2", "--threshold: expected a number between 0 and 1, found 2"),
    ("--affinities=nowhere.zarr", "nowhere.zarr"),
    ("--affinities=a.zarr --recipe=nowhere.json", "nowhere.json: expected a post-processing recipe"),
    ("--affinities=a.zarr --block=0,5,5", "--block: expected numbers above 0, found 0,5,5"),
    ("--affinities=a.zarr --workers=-2", "--workers: expected 1 or more"),
    ("--graph=a.zarr --mask=m.zarr", "expected no --mask, found one"),
    ("--affinities=a.zarr --guard_size=9", "A guard wants a size from 1 voxel up, a threshold between 0 and 1"),
    (
        "--affinities=a.zarr --guard_size=9 --guard_threshold=0.2 --method=components",
        "A guard is for waterz",
    ),
    ("--affinities=a.zarr --method=mutex", "choose another recipe. --method overrides"),
]


@pytest.mark.parametrize(
    ("flags", "message"), [*MISTAKES[:3], *(pytest.param(*each, marks=pytest.mark.slow) for each in MISTAKES[3:])]
)
def test_mistakes_are_answered_by_a_sentence(flags: str, message: str, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "segment.py"), f"--out={tmp_path / 'out.zarr'}", *flags.split()],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_volume_declared_huge_is_refused_before_it_takes_memory(tmp_path: Path):
    """10^15 voxels, of which no chunk is there."""
    create_volume(tmp_path / "huge.zarr", (3, 10**5, 10**5, 10**5), "float16", (8, 8, 8))
    limited = f"ulimit -v {12 << 20}; exec {sys.executable} {ROOT / 'segment.py'}"
    done = subprocess.run(
        ["sh", "-c", f"{limited} --affinities={tmp_path}/huge.zarr --out={tmp_path}/out.zarr --block=32,32,32"],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "huge.zarr: none of its " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.zarr").exists()
