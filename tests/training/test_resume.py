"""A run that is killed while it saves, and one that is asked to stop, end as if nothing had happened."""

import json
import signal

import numpy as np
import pytest

from emsam_jax.model import read_arrays

STEPS = 24
OVERRIDES = [
    *(f"--config.optim.steps={STEPS}", "--config.checkpoint.every=3", "--config.checkpoint.keep=2"),
    "--config.validation.every=0",
]


def arrays_of(workdir, step: int = STEPS) -> dict[str, np.ndarray]:
    folder = workdir / "checkpoints" / str(step)
    items = {item: read_arrays(folder / item) for item in ("params", "ema", "optimizer")}
    return {f"{item} {name}": value for item, values in items.items() for name, value in values.items()}


def test_killed_and_stopped_runs_end_as_an_uninterrupted_one(start_run, rows_of, tmp_path):
    whole = start_run(tmp_path / "whole", *OVERRIDES)
    code, out, err = whole.end()
    assert code == 0, err
    assert "starting from scratch" in out

    killed = start_run(tmp_path / "broken", *OVERRIDES)
    killed.kill_while_saving(6)
    folders = [folder.name for folder in (killed.workdir / "checkpoints").iterdir()]
    saved = max(int(name) for name in folders if name.isdigit())
    assert any("tmp" in name for name in folders)

    metrics = killed.workdir / "metrics.jsonl"
    left = metrics.stat().st_ino
    stopped = start_run(tmp_path / "broken", *OVERRIDES)
    stopped.wait_for(lambda: metrics.stat().st_ino != left)  # written anew, without rows of steps that were lost
    stopped.wait_for(lambda: any(row["step"] > saved + 1 for row in rows_of(stopped.workdir)))
    stopped.process.send_signal(signal.SIGTERM)
    code, out, err = stopped.end()
    assert code == 75, err
    assert f"resuming after step {saved}" in out
    last = rows_of(stopped.workdir)[-1]["step"]
    assert saved < last < STEPS
    assert (stopped.workdir / "checkpoints" / str(last)).exists()
    assert f"step {last} is saved" in out

    code, out, err = start_run(tmp_path / "broken", *OVERRIDES).end()
    assert code == 0, err
    assert f"resuming after step {last}" in out
    assert rows_of(tmp_path / "broken") == rows_of(tmp_path / "whole")
    assert [row["step"] for row in rows_of(tmp_path / "whole")] == list(range(1, STEPS + 1))
    expected, found = arrays_of(tmp_path / "whole"), arrays_of(tmp_path / "broken")
    assert expected.keys() == found.keys()
    assert {name for name, value in expected.items() if value.tobytes() != found[name].tobytes()} == set()
    facts = json.loads((tmp_path / "broken/checkpoints" / str(STEPS) / "facts/metadata").read_text())
    assert facts["samples"] == 2 * STEPS
    steps = sorted(int(folder.name) for folder in (tmp_path / "broken/checkpoints").iterdir())
    assert steps == [STEPS - 3, STEPS]


@pytest.mark.slow
def test_a_stop_at_the_last_step_leaves_its_validation_to_the_next_start(start_run, rows_of, tmp_path):
    """And a second run in the same workdir is refused while the first one lives."""
    workdir = tmp_path / "short"
    overrides = ("--config.optim.steps=1", "--config.validation.every=1")
    run = start_run(workdir, *overrides)
    run.wait_for((workdir / "metrics.jsonl").exists)  # the only step is compiled from here on
    run.process.send_signal(signal.SIGSTOP)
    code, _, err = start_run(workdir, *overrides).end()
    assert code == 1
    assert f"train: {workdir}/running.json: another run is writing here (process {run.process.pid}" in err
    assert "Traceback" not in err
    for number in (signal.SIGTERM, signal.SIGCONT):
        run.process.send_signal(number)
    code, out, err = run.end()
    assert code == 75, err
    assert "Asked to stop: step 1 is saved." in out
    assert not (workdir / "checkpoints/1/postprocess.json").exists()

    code, out, err = start_run(workdir, *overrides).end()
    assert code == 0, err
    assert "Traceback" not in err
    assert (workdir / "checkpoints/1/postprocess.json").exists()
    assert [row["step"] for row in rows_of(workdir) if "validation_voi" in row] == [1]

    code, out, err = start_run(workdir, "--config.optim.steps=2").end()
    assert code == 0, err
    assert "2 steps where 1 were asked for: the cosine is that of 2 steps from here on" in out
    assert (workdir / "checkpoints/2").exists()


@pytest.mark.slow
def test_losses_that_are_no_numbers_end_the_run(start_run, tmp_path):
    """The second step's rate carries the parameters beyond all numbers; the first one's is 0."""
    run = start_run(
        tmp_path / "bad",
        *(
            f"--config.{one}"
            for one in ("optim.peak_lr=1e38", "optim.bad_steps=3", "optim.steps=9", "checkpoint.every=1")
        ),
    )
    code, _, err = run.end()
    assert code == 1
    assert "train: Steps 3 to 5 had a NaN or infinite loss or gradient" in err
    assert f"the last good checkpoint is {run.workdir}/checkpoints/2. Lower config.optim.peak_lr" in err
    assert "Traceback" not in err


def test_mistakes_are_one_sentence(start_run, tmp_path):
    run = start_run(tmp_path / "wrong", "--config.optim.batch=3", "--config.optim.accumulate=2")
    code, _, err = run.end()
    assert code == 1
    assert err.strip() == (
        "train: config.optim.batch must be a multiple of the number of devices times config.optim.accumulate, 2; "
        "found 3. The nearest that fits is 4."
    )
