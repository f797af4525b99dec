"""What is done is known, after anything; what is damaged, stale or somebody else's is noticed."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.blocks import (
    DROPPED,
    Entry,
    Ledger,
    LockLostError,
    Plan,
    RunLock,
    drop_block,
    find_todo,
    is_intact,
    lock,
    plan_blocks,
    write_block,
)
from emsam_jax.blocks.stage import EMPTY
from emsam_jax.errors import UserError
from emsam_jax.volumes import Volume, create_volume

FACTS = {"model": "abc", "stride": (1, 2, 3), "step": 7}


@pytest.fixture
def plan(volume: Volume) -> Plan:
    return plan_blocks(volume.box, volume.box, (8, 8, 8), (8, 8, 8))


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return create_volume(tmp_path / "out.zarr", (8, 16, 24), "uint8", (1, 1, 1), chunk=(4, 4, 4), shard=(8, 8, 8))


@pytest.mark.parametrize("where", ["file", "memory"])
def test_entries_come_back(where: str, tmp_path: Path, plan: Plan):
    url = str(tmp_path / "ledger") if where == "file" else "memory://here"
    ledger, blocks = Ledger(url, "predict", FACTS), list(plan)
    ledger.record(blocks[4], "0123", 1.5)
    ledger.fail(blocks[2], ValueError("of no use"))
    if where == "memory":  # which each key-value store has for itself
        again = ledger
    else:
        again = Ledger(url, "predict", FACTS)
        assert Ledger(url, "merge", {"other": 1}).done() == set()
    entry = again.entry(blocks[4])
    assert entry is not None
    assert (entry.block, entry.checksum, entry.seconds, entry.run) == ((0, 1, 1), "0123", 1.5, ledger.run)
    assert again.entry(blocks[0]) is None
    assert again.done() == {(0, 1, 1)}
    assert again.status() == (1, 1)
    assert "ValueError: of no use" in (again.traceback_of(blocks[2]) or "")
    again.record(blocks[2], EMPTY, 0.1)
    assert again.status() == (2, 0)
    assert [block.index for block in find_todo(plan, again).blocks] == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 2)]


def test_another_identity_is_refused_with_the_fields_that_differ(tmp_path: Path):
    Ledger(str(tmp_path), "predict", FACTS)
    with pytest.raises(UserError) as caught:
        Ledger(str(tmp_path), "predict", {**FACTS, "step": 8, "mask": "m"})
    assert "step 7 there, 8 here; mask None there, 'm' here" in str(caught.value)
    assert "stride" not in str(caught.value)


def test_torn_data_missing_data_and_entries_that_lie_are_done_again(volume: Volume, plan: Plan, tmp_path: Path):
    blocks, rng = list(plan), np.random.default_rng(0)
    ledger = Ledger(str(tmp_path / "ledger"), "predict", FACTS)
    for block in blocks:
        values = np.zeros(block.box.shape, np.uint8)
        if block.index != (0, 0, 1):
            values[:] = rng.integers(1, 255, block.box.shape)
        ledger.record(block, write_block(volume, block.box, values), 0.0)
    sums = [entry.checksum for block in blocks if (entry := ledger.entry(block))]
    assert sums[1] == EMPTY
    assert len(set(sums)) == len(blocks)

    def intact(block: object, entry: Entry) -> bool:
        at = plan.at(entry.block)
        assert at == block
        return entry.checksum == DROPPED or is_intact(volume, at.box, entry.checksum)

    assert find_todo(plan, ledger, intact).blocks == []
    shards = {path.relative_to(volume.url).as_posix(): path for path in Path(volume.url).rglob("c/*/*/*")}
    assert "0/c/0/0/1" not in shards
    torn = shards["0/c/0/0/0"]
    torn.write_bytes(torn.read_bytes()[:-100])  # torn
    shards["0/c/0/1/0"].unlink()  # gone
    entry = tmp_path / "ledger" / "predict" / "done" / "0-1-1"
    entry.write_text(entry.read_text()[:20])  # torn as well
    other = tmp_path / "ledger" / "predict" / "done" / "0-1-2"
    other.write_text(json.dumps({**json.loads(other.read_text()), "identity": "of another run"}))
    drop_block(volume, blocks[2].box)  # for good
    ledger.record(blocks[2], DROPPED, 0.0)
    assert not (torn.parent / "2").exists()

    found = find_todo(plan, ledger, intact)
    assert [block.index for block in found.blocks] == [(0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 1, 2)]
    assert found.blocks == found.damaged
    assert ledger.done() == {(0, 0, 1), (0, 0, 2)}


def test_two_runs_on_one_output_are_refused_and_a_killed_one_holds_nothing(tmp_path: Path):
    code = f"import time; from emsam_jax.blocks import RunLock; RunLock({str(tmp_path)!r}).__enter__(); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not (tmp_path / "running.json").exists():
            assert other.poll() is None
            time.sleep(0.02)
        with pytest.raises(UserError, match=f"another run is writing here .process {other.pid} on"):
            RunLock(str(tmp_path)).__enter__()
    finally:
        other.kill()
        other.wait()
    with RunLock(str(tmp_path)):
        assert json.loads((tmp_path / "running.json").read_text())["pid"] == os.getpid()
        with pytest.raises(UserError, match="another run"):
            RunLock(str(tmp_path)).__enter__()
    assert not (tmp_path / "running.json").exists()

    lease = {"host": "elsewhere", "pid": 1, "since": "long ago"}
    (tmp_path / "running.json").write_text(json.dumps({**lease, "renewed": time.time() - 10}))
    with pytest.raises(UserError, match="process 1 on elsewhere, since long ago"):
        RunLock(str(tmp_path)).__enter__()
    (tmp_path / "running.json").write_text(json.dumps({**lease, "renewed": time.time() - 1000}))
    with RunLock(str(tmp_path)):
        pass


def test_a_run_whose_lock_is_gone_or_anothers_writes_nothing_more(tmp_path: Path, plan: Plan):
    blocks, lease = list(plan), tmp_path / "running.json"
    with RunLock(str(tmp_path)) as mine:
        ledger = Ledger(str(tmp_path), "predict", FACTS)
        ledger.record(blocks[0], "sum", 0.0)
        mine.check()
        lease.write_text('{"pid": null}')
        for write in (
            lambda: ledger.record(blocks[1], "sum", 0.0),
            lambda: ledger.fail(blocks[1], ValueError()),
            lambda: ledger.forget(blocks[0]),
            lambda: Ledger(str(tmp_path), "merge", FACTS),
        ):
            with pytest.raises(LockLostError, match=r"running\.json: expected this run's lease, found a damaged one"):
                write()
        with pytest.raises(LockLostError), ledger.keeping_failures(blocks[1]):
            ledger.record(blocks[1], "sum", 0.0)
        lease.unlink()
        with RunLock(str(tmp_path)), pytest.raises(LockLostError, match=f"found another run's .process {os.getpid()} "):
            ledger.record(blocks[1], "sum", 0.0)
        assert ledger.status() == (1, 0)
        lease.write_text("other")
    assert lease.exists()  # it was not this run's to delete


def test_a_lease_of_the_future_is_watched_and_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(lock, "_RENEW", 0.2)
    lease = {"host": "elsewhere", "pid": 1, "since": "tomorrow", "renewed": time.time() + 1e6}
    (tmp_path / "running.json").write_text(json.dumps(lease))
    with RunLock(str(tmp_path)):
        assert "running.json: dated in the future; watching for 0 s who renews it" in capsys.readouterr().err
    renew = threading.Timer(0.1, (tmp_path / "running.json").write_text, [json.dumps({**lease, "space": "other"})])
    (tmp_path / "running.json").write_text(json.dumps(lease))
    renew.start()
    with pytest.raises(UserError, match=r"running\.json: another run is writing here .process 1 on elsewhere"):
        RunLock(str(tmp_path)).__enter__()
    renew.join()


def test_what_killed_writers_left_does_no_harm(volume: Volume, plan: Plan, tmp_path: Path):
    """A file that they had begun, longer than what is written in their place."""
    ledger, block, values = Ledger(str(tmp_path / "ledger"), "predict", FACTS), plan.at((0, 0, 0)), np.ones((8, 8, 8))
    shard = Path(volume.url) / "0/c/0/0/0"
    for begun in (tmp_path / "ledger/predict/done/0-0-0", shard, tmp_path / "ledger/running.json"):
        begun.parent.mkdir(parents=True, exist_ok=True)
        begun.with_name(f"{begun.name}.__lock").write_bytes(b"x" * 5000)
    with RunLock(ledger.url):
        with pytest.raises(UserError, match="another run"):
            RunLock(ledger.url).__enter__()
        ledger.record(block, write_block(volume, block.box, values.astype(np.uint8)), 0.5)
    entry = ledger.entry(block)
    assert entry is not None
    assert is_intact(volume, block.box, entry.checksum)
    assert ledger.done() == {(0, 0, 0)}
