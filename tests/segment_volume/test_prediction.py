"""segment.py with a model: predicted here or by workers, it is one run, and ends with the same."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from distributed import Client

from emsam_jax.blocks import DROPPED, read_facts
from emsam_jax.config import Config, DataConfig, DeclaredVolume, EncoderConfig, Intensity, ModelConfig, PredictConfig
from emsam_jax.errors import UserError
from emsam_jax.segment_volume import SegmentationRequest
from emsam_jax.segment_volume.prediction import bound_on_target
from emsam_jax.targets import parse_target
from emsam_jax.volumes import create_volume, open_volume
from tests.blocks.processes import dask_cluster, has_imported, kill_group, wait_until
from tests.programs import ROOT, environment
from tests.untrained import save_untrained

SIZE = (10.0, 10.0, 10.0)
RANGE = (17.0, 230.0)  # of raw values, as if found where the model was trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw volume of 12 blocks and a run that learned nothing."""
    folder = tmp_path_factory.mktemp("prediction")
    raw = np.random.default_rng(0).integers(0, 256, (8, 192, 256), dtype=np.uint8)
    create_volume(folder / "raw.zarr", raw.shape, "uint8", SIZE)[...] = raw
    trained = DeclaredVolume("raw", f"{folder}/raw.zarr", intensity=Intensity(1.0, 99.0, percentiles=True))
    config = Config(
        model=ModelConfig(encoder=EncoderConfig(size="none"), channels=(4, 8)),
        data=DataConfig(train=(trained,), patch=(8, 32, 32)),
        predict=PredictConfig(block=(8, 64, 64), stride=(1.0, 0.5, 0.5)),
    )
    save_untrained(folder / "run", config, SIZE, ranges=(RANGE,))
    return folder


def start(folder: Path, out: str, *flags: str) -> subprocess.Popen[str]:
    """Paths are relative: workers were started elsewhere."""
    given = ["--ckpt=run", "--raw=raw.zarr", f"--out={out}", "--method=waterz", "--workers=1", *flags]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "segment.py"), *given],
        env=environment(),
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def predicted(folder: Path, out: str) -> dict[str, bytes]:
    done = folder / out / "affinities/ledger/predict/done"
    return {path.name: path.read_bytes() for path in done.glob("?-?-?")}


def segment(folder: Path, out: str, *flags: str) -> None:
    run = start(folder, out, *flags)
    said = run.communicate()[1]
    assert run.returncode == 0, said


@pytest.fixture(scope="module")
def whole(folder: Path) -> str:
    """Of an undisturbed run."""
    segment(folder, "whole.zarr")
    assert len(predicted(folder, "whole.zarr")) == 12
    facts = read_facts(f"{folder}/whole.zarr/affinities/ledger", "predict")
    assert facts is not None
    assert tuple(facts["input_range"]) == RANGE
    return "whole.zarr"


def labels(folder: Path, out: str) -> np.ndarray:
    return open_volume(folder / out)[...]


def shards(volume: Path) -> list[Path]:
    return sorted(path for path in (volume / "0" / "c").rglob("*") if path.is_file())


def test_a_checkpoint_and_a_raw_volume_give_affinities_and_labels(folder: Path, whole: str):
    affinities = open_volume(folder / whole / "affinities", channel="all")
    assert affinities.shape == (3, 8, 192, 256)
    assert np.ptp(affinities[...]) > 0.01
    assert labels(folder, whole).max() > 10


@pytest.mark.slow
def test_begun_here_and_ended_by_workers(folder: Path, whole: str, tmp_path: Path):
    run = start(folder, "out.zarr")
    wait_until(lambda: len(predicted(folder, "out.zarr")) >= 1, run)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate()[1]
    assert run.returncode == 75, said
    assert "Stopped by Ctrl-C; the same command resumes." in said
    assert "Traceback" not in said
    here = predicted(folder, "out.zarr")
    assert len(here) < 8

    workers = ("--resources=GPU=1", "")
    with dask_cluster(tmp_path, *workers) as cluster, Client(cluster.address, set_as_default=False) as client:
        run = start(folder, "out.zarr", f"--scheduler={cluster.address}")
        wait_until(lambda: len(predicted(folder, "out.zarr")) >= len(here) + 1, run)
        knowing: Any = client.run(has_imported, "jax")
        assert sorted(knowing.values()) == [False, True]
        pids: Any = client.run(os.getpid)
        os.kill(next(pids[name] for name, knows in knowing.items() if knows), signal.SIGKILL)
        said = run.communicate()[1]
        assert run.returncode == 0, said
        knowing = client.run(has_imported, "jax")
        assert sorted(knowing.values()) == [False, True]
        assert said.count("12 of 12 blocks") == 1

    after = predicted(folder, "out.zarr")
    assert {name: after[name] for name in here} == here
    assert len({json.loads(entry)["run"] for entry in after.values()}) == 2
    found, expected = (open_volume(folder / out / "affinities", channel="all")[...] for out in ("out.zarr", whole))
    assert np.ptp(expected) > 0.01
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(labels(folder, "out.zarr"), labels(folder, whole))
    kill_group(run)


@pytest.mark.slow
def test_affinities_that_have_served_are_deleted(folder: Path):
    out, flags = "dropped.zarr", ("--nokeep_affinities", "--block=8,64,64")
    segment(folder, out, flags[1])
    expected, affinities = labels(folder, out), shards(folder / out / "affinities")
    entry = folder / out / "affinities/ledger/predict/done/0-0-0"  # as if killed at the first
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "checksum": DROPPED}))
    affinities[0].unlink()

    segment(folder, out, *flags)
    assert len(affinities) > 1
    assert not shards(folder / out / "affinities")
    before = predicted(folder, out)
    shards(folder / out)[3].unlink()
    segment(folder, out, *flags)
    assert predicted(folder, out) == before
    np.testing.assert_array_equal(labels(folder, out), expected)

    given = [f"--graph={folder / out}", f"--out={folder / 'finer.zarr'}", "--threshold=0.45", "--workers=1"]
    subprocess.run([sys.executable, str(ROOT / "segment.py"), *given], check=True, env=environment())
    assert labels(folder, "finer.zarr").max() > expected.max()

    shards(folder / out / "fragments")[3].unlink()
    damaged = start(folder, out, *flags)
    said = damaged.communicate()[1]
    assert damaged.returncode == 1
    assert "expected all of fragments, because the affinities were deleted" in said
    assert "found 1 of 12 blocks damaged or missing; choose another output" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_what_a_target_takes_is_told_and_nothing_written(folder: Path, capsys: pytest.CaptureFixture[str]):
    """By this machine's compiler in place of the target's."""
    raw = DeclaredVolume(raw=f"{folder}/raw.zarr")
    request = SegmentationRequest(out=f"{folder}/planned.zarr", ckpt=f"{folder}/run", raw=raw)
    bound = bound_on_target(request, parse_target("rtx4090"), jax.devices()[:1])
    assert bound
    assert {called.name: called.calls for called in bound.programs}["finish"] == 12
    said = capsys.readouterr().out
    assert "8 x 192 x 256 voxels (z, y, x) in blocks of 8 x 64 x 64, 12 in all" in said
    assert "Time is a bound, not a forecast" in said
    assert not (folder / "planned.zarr").exists()


@pytest.mark.slow
def test_the_command_asks_a_targets_own_compiler(folder: Path):
    if not importlib.util.find_spec("jax_plugins"):
        pytest.skip("jax_plugins is not installed: pip install 'emsam-jax[gpu]'")
    everything = environment(PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]))
    everything.pop("JAX_PLATFORMS")  # as a user has it: jax looks for devices
    flags = ["--dry_run", "--target=h200", "--ckpt=run", "--raw=raw.zarr", "--out=planned.zarr"]
    command = [sys.executable, str(ROOT / "segment.py"), *flags]
    done = subprocess.run(command, env=everything, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Prediction on 1 x h200" in done.stdout
    assert "cudnn" in done.stdout


@pytest.mark.slow
def test_a_target_is_for_a_model_and_a_dry_run(folder: Path):
    with pytest.raises(UserError, match="--target tells what prediction takes: expected --ckpt"):
        bound_on_target(SegmentationRequest(out="out", affinities="affinities"), parse_target("h200"))
    request = SegmentationRequest(out="out", ckpt="run", raw=DeclaredVolume(raw=f"{folder}/raw.zarr"))
    with pytest.raises(UserError, match="expected one slice, found 2"):
        bound_on_target(request, parse_target("2xv5e:2x4"))
    process = start(folder, "planned.zarr", "--target=h200")
    said = process.communicate()[1]
    assert process.returncode == 1
    assert "give --dry_run too" in said
