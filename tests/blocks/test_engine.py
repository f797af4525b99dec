"""Whatever dies, what is done is not done again, and the next run ends with what an undisturbed one ends with."""

import contextlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from emsam_jax.blocks import Ledger, describe_status, group
from emsam_jax.blocks.dask import cluster
from emsam_jax.errors import UserError
from tests.blocks import run_stage
from tests.blocks.processes import dask_cluster, wait_until
from tests.programs import PATIENCE, ROOT, environment

BLOCKS = 20


class Report(NamedTuple):
    done: int
    skipped: int
    failed: dict[str, str]
    left: int
    said: str
    exit_code: int


def start(folder: Path, **settings: Any) -> subprocess.Popen:
    """In a session of its own, as in a terminal of its own."""
    (folder / "begun").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, run_stage.__file__, str(folder), json.dumps({"blocks": BLOCKS, **settings})]
    return subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> Report:
    try:
        out, said = process.communicate(timeout=PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert out, said
    done, skipped, failed, _, left = json.loads(out.splitlines()[-1])
    return Report(done, skipped, dict(failed), left, said, process.returncode)


def begun(folder: Path) -> Counter[str]:
    """How often each block was."""
    return Counter(path.name.split(".")[0] for path in (folder / "begun").iterdir())


def recorded(folder: Path) -> set[str]:
    names = (path.name for path in (folder / "ledger/files/done").glob("*"))
    return {name for name in names if re.fullmatch(r"\d+-\d+-\d+", name)}  # others are locks of TensorStore's


def check_whole(folder: Path) -> None:
    """As an undisturbed run, worked out by hand, would have left it."""
    plan = run_stage.plan_of(BLOCKS)
    there = {path.name: path.read_text() for path in (folder / "data").iterdir()}
    assert there == {block.name: run_stage.content_of(block) for block in plan}
    assert recorded(folder) == set(there)
    said = describe_status(f"{folder}/ledger", {"files": plan})
    assert said == f"files: {BLOCKS} of {BLOCKS} blocks done"


@pytest.mark.parametrize("workers", [1, 2])
def test_every_block_is_done_once_by_any_number_of_workers(workers: int, tmp_path: Path):
    report = finish(start(tmp_path, workers=workers))
    assert (report.exit_code, report.done, report.skipped, report.failed) == (0, BLOCKS, 0, {}), report.said
    check_whole(tmp_path)
    assert set(begun(tmp_path).values()) == {1}
    assert "distributed" not in report.said  # Dask's log and its warnings


@pytest.mark.parametrize("deaths", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_blocks_that_raise_or_kill_their_worker_are_named_and_the_others_done(
    deaths: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whether Dask itself repeats what its workers died of, or at once hands it back."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", str(deaths))
    trouble = {"0-0-3": "raises", "0-0-5": "exits", "0-0-7": "killed once"}
    report = finish(start(tmp_path, trouble=trouble))
    assert (report.exit_code, report.done, report.left) == (1, BLOCKS - 2, 0), report.said
    assert report.failed["0-0-3"] == "RuntimeError: block 0-0-3 is no good"
    assert "died 3 times while it did block 0-0-5 alone" in report.failed["0-0-5"]
    times = begun(tmp_path)
    assert times.pop("0-0-5") == 1 + 3  # in its group, and alone
    assert times.pop("0-0-7") == 2
    assert times.pop("0-0-3") <= 3  # its first report may have been lost with a worker
    assert set(times.values()) == {1}

    ledger = Ledger.existing(f"{tmp_path}/ledger", "files")
    assert ledger is not None
    kept = ledger.traceback_of(run_stage.plan_of(BLOCKS).at((0, 0, 3)))
    assert kept is not None
    assert 'raise RuntimeError(f"block {block.name} is no good")' in kept
    status = describe_status(f"{tmp_path}/ledger", {"files": run_stage.plan_of(BLOCKS), "later": run_stage.plan_of(7)})
    assert f"files: {BLOCKS - 2} of {BLOCKS} blocks done, 2 failed" in status
    assert "\n  0-0-3: RuntimeError: block 0-0-3 is no good\n" in status
    assert status.endswith("later: 0 of 7 blocks done")

    before = begun(tmp_path)
    again = finish(start(tmp_path))
    assert (again.exit_code, again.done, again.skipped) == (0, 2, BLOCKS - 2), again.said
    assert f"files: {BLOCKS - 2} of {BLOCKS} blocks are done; 2 are left." in again.said
    assert begun(tmp_path) - before == {"0-0-3": 1, "0-0-5": 1}
    check_whole(tmp_path)


@pytest.mark.slow
def test_a_worker_out_of_memory_is_heard_of_and_its_block_named(tmp_path: Path):
    report = finish(start(tmp_path, workers=1, memory="400 MiB", trouble={"0-0-5": "eats"}))
    assert (report.exit_code, report.done, report.left) == (1, BLOCKS - 1, 0), report.said
    assert "out of memory" in report.failed["0-0-5"]
    assert begun(tmp_path)["0-0-5"] == 1 + 3
    assert "exceeded 95% memory budget" in report.said


@pytest.mark.slow
def test_workers_that_are_killed_while_they_start_are_replaced(tmp_path: Path):
    run, killed = start(tmp_path), set[int]()

    def kill_newborn() -> bool:
        threads = Path(f"/proc/{run.pid}/task").glob("*/children")
        for pid in [int(pid) for thread in threads for pid in thread.read_text().split()]:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if len(killed) < 3 and b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        return len(killed) == 3

    wait_until(kill_newborn, run)
    report = finish(run)
    assert (report.exit_code, report.done) == (0, BLOCKS), report.said
    check_whole(tmp_path)


def test_a_group_is_handed_back_in_time_and_tells_who_was_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("data", "begun"):
        (tmp_path / name).mkdir()
    plan = run_stage.plan_of(BLOCKS)
    stage = run_stage.Files(str(tmp_path), trouble=(("0-0-1", "raises"),))
    work = group.Work(stage, plan, f"{tmp_path}/ledger", stage.identity(), "this run", retries=3)
    pickled, indices = pickle.dumps(work), tuple(plan.indices())
    first = group.run_group(pickled, "first", indices[:3])
    assert (first.done, first.voxels, [name for name, _ in first.failed], first.left) == (2, 128, ["0-0-1"], ())
    monkeypatch.setattr(group, "_ENOUGH", 0.0)
    second = group.run_group(pickled, "second", indices[3:8])
    assert (second.done, second.failed, second.left) == (1, (), indices[4:8])

    again = group.run_group(pickled, "first", indices[:8])  # as if its worker had died
    assert (again.done, again.failed, again.suspects, again.left) == (3, (), (indices[1], indices[4]), indices[5:8])
    assert group.run_alone(pickled, indices[4]).done == group.run_alone(pickled, indices[4]).done == 1
    assert set(begun(tmp_path).values()) == {1}
    alone = [group.run_alone(pickled, indices[1]).failed[0][1] for _ in range(5)]  # its reports were lost
    assert set(alone) == {"RuntimeError: block 0-0-1 is no good"}


def complete(folder: Path, before: set[str]) -> None:
    """Runs again; what was recorded before stays as it is."""
    assert 0 < len(before) < BLOCKS
    times = begun(folder)
    report = finish(start(folder))
    assert (report.exit_code, report.skipped, report.done) == (0, len(before), BLOCKS - len(before)), report.said
    assert not (begun(folder) - times).keys() & before
    check_whole(folder)


def test_after_everything_was_killed_the_rest_is_done(tmp_path: Path):
    process = start(tmp_path, seconds=0.1)
    wait_until(lambda: len(recorded(tmp_path)) > 4, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    complete(tmp_path, recorded(tmp_path))


@pytest.mark.parametrize("sent", ["Ctrl-C", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_a_signal_ends_the_run_after_what_is_at_hand(sent: str, tmp_path: Path):
    process = start(tmp_path, seconds=0.2)
    wait_until(lambda: len(recorded(tmp_path)) > 1, process)
    if sent == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all
    else:
        process.terminate()
    report = finish(process)
    done = recorded(tmp_path)
    assert (report.exit_code, report.done, report.left) == (1, len(done), BLOCKS - len(done)), report.said
    assert f"Stopped by {sent}: {report.left} of {BLOCKS} blocks of files are left; the same command resumes." in (
        report.said
    )
    assert "Traceback" not in report.said
    assert begun(tmp_path).keys() == done
    complete(tmp_path, done)


@pytest.mark.slow
def test_a_lost_scheduler_ends_the_run_with_a_sentence(tmp_path: Path):
    folder = tmp_path / "run"
    with dask_cluster(tmp_path, "") as cluster:
        run = start(folder, scheduler=cluster.address, seconds=0.1)
        wait_until(lambda: len(recorded(folder)) > 4, run)
        cluster.scheduler.kill()
        report = finish(run)
    assert report.exit_code == 1
    assert "The scheduler no longer answers: " in report.said
    assert "Traceback" not in report.said
    complete(folder, recorded(folder))


def test_mistakes_are_answered_by_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://here"):
        with pytest.raises(UserError, match=f"{address}: expected the address"), cluster.open_cluster(address):
            pass
    with pytest.raises(UserError, match=r"4GiB, or auto, .*; found 'lots'"), cluster.open_cluster(memory="lots"):
        pass


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Path):
    command = [sys.executable, ROOT / "benchmarks" / "engine.py", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True, env=environment())
    results = json.loads((tmp_path / "engine-cpu.json").read_text())
    assert results["blocks"]["groups"] == 200
    assert min(results["blocks_a_second"].values()) > 0
    assert 0 < results["scheduler_and_client_bytes"]["before"] <= results["scheduler_and_client_bytes"]["peak"]


def test_the_dashboard_shows_what_is_done():
    with cluster.open_cluster(workers=1, dashboard="127.0.0.1:0") as client:
        page = urllib.request.urlopen(str(client.dashboard_link)).read().decode()
    assert "Dask" in page
    assert "needs bokeh" not in page


@pytest.mark.slow
def test_a_workers_memory_is_the_same_for_27_times_the_volume(tmp_path: Path):
    command = [sys.executable, ROOT / "benchmarks" / "worker_memory.py", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True, env=environment())
    results = json.loads((tmp_path / "worker_memory-cpu.json").read_text())
    assert np.prod(results["shape"]["large"]) == 27 * np.prod(results["shape"]["small"])
    assert results["ratio"]["worker"] < 1.1, results["peak_bytes"]
