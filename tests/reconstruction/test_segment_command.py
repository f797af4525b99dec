"""segment.py as a user runs it, killed as machines kill it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.blocks import RunLock
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import FragmentParameters, Recipe, ideal_affinities, make_fragments, segment_affinities
from emsam_jax.volumes import create_volume, open_volume
from tests.segmentation.test_segment import draw_cells

ROOT = Path(__file__).parents[2]
SHAPE, BLOCK = (24, 64, 64), "8,16,16"  # 48 blocks
RECIPE = Recipe("waterz", 0.5, FragmentParameters("2d", seed_distance=3))


def draw_affinities() -> np.ndarray:
    ideal = np.clip(ideal_affinities(draw_cells(3, SHAPE, 30)), 0.02, 0.98)
    odds = np.log(ideal / (1 - ideal)) + np.random.default_rng(0).normal(0, 1, ideal.shape)
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Affinities, a recipe, and `undisturbed.zarr`, what an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("segment")
    affinities = draw_affinities()
    create_volume(folder / "affinities.zarr", affinities.shape, "float32", (40, 4, 4))[...] = affinities
    RECIPE.write(folder / "recipe.json")
    done = segment(folder, "undisturbed.zarr")
    assert done.returncode == 0, done.stderr
    assert "Labels: " in done.stdout
    return folder


def command(folder: Path, out: str, *flags: str) -> list[str]:
    given = {"affinities": folder / "affinities.zarr", "recipe": folder / "recipe.json", "out": folder / out}
    named = [f"--{name}={value}" for name, value in given.items()]
    return [sys.executable, str(ROOT / "segment.py"), *named, f"--block={BLOCK}", "--workers=2", *flags]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def segment(folder: Path, out: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, out, *flags), check=False, capture_output=True, text=True, env=environment(), timeout=120
    )


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    """In a process group of its own, so that all of it can be killed; what it says is in a file beside its output."""
    with (folder / f"{out}.log").open("wb") as said:
        return subprocess.Popen(
            command(folder, out), env=environment(), start_new_session=True, stdout=said, stderr=said
        )


def entries(folder: Path, out: str) -> dict[str, bytes]:
    """What is reported done, with its entry."""
    ledger = folder / out / "ledger"
    # While a run is at work, names with more in them come and go.
    return {str(p.relative_to(ledger)): p.read_bytes() for p in ledger.glob("*/done/*-*-*") if p.name[-1].isdigit()}


def wait_for(folder: Path, out: str, count: int, run: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while len(entries(folder, out)) < count:
        assert run.poll() is None, (folder / f"{out}.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def labels(folder: Path, out: str) -> np.ndarray:
    return open_volume(folder / out)[...]


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
    assert dict(zip(objects["id"].tolist(), objects["size"].tolist(), strict=True)) == {
        int(i): int(n) for i, n in zip(*np.unique(found[found > 0], return_counts=True), strict=True)
    }


@pytest.mark.parametrize("count", [5, 60, 101])  # among fragments, edges, labels
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


def test_ctrl_c_ends_it_in_order(folder: Path):
    run = start(folder, "stopped.zarr")
    wait_for(folder, "stopped.zarr", 1, run)
    run.send_signal(signal.SIGINT)
    run.wait(timeout=60)
    said = (folder / "stopped.zarr.log").read_text()
    assert run.returncode == 75, said
    assert "the same command goes on" in said
    assert segment(folder, "stopped.zarr").returncode == 0
    np.testing.assert_array_equal(labels(folder, "stopped.zarr"), labels(folder, "undisturbed.zarr"))


def test_two_runs_at_once_on_one_output_are_refused(folder: Path):
    with RunLock(f"{folder / 'undisturbed.zarr'}/ledger"):
        other = segment(folder, "undisturbed.zarr")
    assert other.returncode == 1
    assert "another run is writing here" in other.stderr


def test_a_torn_shard_and_an_entry_without_data_are_noticed(folder: Path):
    assert segment(folder, "torn.zarr").returncode == 0
    shards = sorted(path for path in (folder / "torn.zarr/0/c").rglob("*") if path.is_file())
    shards[0].write_bytes(shards[0].read_bytes()[:-7])
    shards[5].unlink()
    again = segment(folder, "torn.zarr")
    assert again.returncode == 0, again.stderr
    assert "2 of them damaged" in again.stderr
    np.testing.assert_array_equal(labels(folder, "torn.zarr"), labels(folder, "undisturbed.zarr"))


def test_another_threshold_is_refused_in_the_same_place_and_cheap_in_another(folder: Path):
    refused = segment(folder, "undisturbed.zarr", "--threshold=0.3")
    assert refused.returncode == 1
    assert "threshold 0.5 there, 0.3 here" in refused.stderr
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
    assert {name.split("/")[0] for name in entries(folder, "other.zarr")} == {"lookup", "labels"}
    facts = json.loads((folder / "other.zarr/ledger/lookup/identity.json").read_text())
    assert (facts["guard_size"], facts["guard_threshold"]) == (5000, 0.2)
    assert f"Found: {labels(folder, 'other.zarr').max()} objects" in cheap.stdout
    assert labels(folder, "other.zarr").max() > labels(folder, "undisturbed.zarr").max()


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
    told = subprocess.run(
        [sys.executable, str(ROOT / "segment.py"), "--status", f"--out={folder / 'undisturbed.zarr'}"],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    ).stdout.splitlines()
    counts = {"fragments": 48, "edges": 48, "graph": 1, "lookup": 1, "labels": 48}
    assert told == [f"{name}: {count} of {count} blocks done" for name, count in counts.items()]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "Expected one of --ckpt, --affinities and --graph, found none"),
        ("--affinities=a.zarr --ckpt=run", "found --ckpt and --affinities"),
        ("--affinities=a.zarr --threshold=2", "--threshold: expected a number between 0 and 1, found 2"),
        ("--affinities=nowhere.zarr", "nowhere.zarr"),
        ("--affinities=a.zarr --guard_size=9", "A guard wants a size from 1 voxel up, a threshold between 0 and 1"),
        (
            "--affinities=a.zarr --guard_size=9 --guard_threshold=0.2 --method=components",
            "A guard is for waterz",
        ),
        ("--affinities=a.zarr --method=mutex", "choose another recipe. --method overrides"),
    ],
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
