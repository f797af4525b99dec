"""Two processes, joined by jax.distributed, train as one does."""

import signal
import socket

import numpy as np
import pytest

from emsam_jax.model import read_arrays

STEPS = 16
OVERRIDES = [f"--config.optim.steps={STEPS}", "--config.checkpoint.every=100", "--config.model.channels=(16,32)"]


def together(start_run, workdir, *arguments: str):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    joined = ["--distributed", f"--coordinator=localhost:{port}", "--processes=2", *OVERRIDES, *arguments]
    return [start_run(workdir, *joined, f"--process={number}") for number in range(2)]


@pytest.mark.slow
def test_two_processes_are_as_one(start_run, rows_of, tmp_path):
    """One of them is asked to stop, both save and stop, and both resume."""
    first, second = together(start_run, tmp_path / "two", "--config.fsdp=2")
    metrics = tmp_path / "two/metrics.jsonl"
    first.wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2)
    second.process.send_signal(signal.SIGTERM)
    ends = [run.end() for run in (first, second)]
    assert [code for code, _, _ in ends] == [75, 75], ends
    last = rows_of(tmp_path / "two")[-1]["step"]
    assert 2 < last < STEPS
    assert [folder.name for folder in (tmp_path / "two/checkpoints").iterdir()] == [str(last)]
    assert "small ->" in ends[0][1]
    assert "small ->" not in ends[1][1]

    ends = [run.end() for run in together(start_run, tmp_path / "two", "--config.fsdp=2")]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert f"resuming after step {last}" in ends[0][1]

    code, _, err = start_run(tmp_path / "one", *OVERRIDES).end()
    assert code == 0, err
    one, two = (rows_of(tmp_path / name) for name in ("one", "two"))
    assert [row["step"] for row in two] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([row["loss"] for row in two], [row["loss"] for row in one], rtol=1e-5)
    for item in ("params", "ema"):
        found, expected = (read_arrays(tmp_path / name / f"checkpoints/{STEPS}" / item) for name in ("two", "one"))
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
