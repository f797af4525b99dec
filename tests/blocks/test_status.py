"""How far a run is, as its ledger tells."""

import dataclasses
import datetime
import json
from pathlib import Path

from emsam_jax.blocks import Entry, Ledger, describe_status, plan_blocks
from emsam_jax.blocks.stage import EMPTY
from emsam_jax.blocks.todo import read_status
from emsam_jax.volumes import box_of

WHOLE = box_of((8, 20, 100))
PLAN = plan_blocks(WHOLE, WHOLE, (8, 1, 1), (1, 1, 1))  # 2000 blocks
BEGAN = datetime.datetime(2026, 1, 2, 3, 0, tzinfo=datetime.UTC)


def write_entries(folder: Path, blocks: range, run: str, began: datetime.datetime, seconds: float) -> None:
    """Each of them so long after the one before it."""
    identity, done = Ledger(str(folder), "made", {}).identity, folder / "made/done"
    done.mkdir(exist_ok=True)
    for n, index in enumerate(list(PLAN.indices())[blocks.start : blocks.stop]):
        at = (began + datetime.timedelta(seconds=seconds * n)).isoformat(timespec="milliseconds")
        entry = Entry("made", index, identity, EMPTY, seconds, run, at)
        (done / PLAN.at(index).name).write_text(json.dumps(dataclasses.asdict(entry)))


def test_pace_is_that_of_the_run_at_work_and_says_what_is_left(tmp_path: Path):
    write_entries(tmp_path, range(200), "before", BEGAN - datetime.timedelta(days=3), 10.0)
    write_entries(tmp_path, range(200, 1000), "now", BEGAN, 0.5)
    (status,) = read_status(str(tmp_path), {"made": PLAN})
    assert (status.done, status.total) == (1000, 2000)
    assert status.pace is not None
    assert 1.7 < status.pace.blocks_a_second < 2.3  # a sample of the entries
    said = describe_status(str(tmp_path), {"made": PLAN})
    assert said.startswith("made: 1000 of 2000 blocks done, ")
    assert " blocks/s, " in said
    minutes = int(said.split(" left at that pace")[0].rpartition(", ")[2].split(":")[0])
    assert minutes in (7, 8, 9)  # 1000 blocks at 2 a second
    assert "last done 2026-01-02 03:06:" in said


def test_what_has_not_begun_or_is_over_says_only_that(tmp_path: Path):
    write_entries(tmp_path, range(2000), "now", BEGAN, 0.5)
    plans = {"made": PLAN, "later": PLAN}
    assert describe_status(str(tmp_path), plans) == "made: 2000 of 2000 blocks done\nlater: 0 of 2000 blocks done"
