"""Signals end what is under way, wherever it is."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emsam_jax.blocks import Ledger, find_todo, run_in_turn, stopping_on_signals
from emsam_jax.errors import StoppedError
from tests.blocks.run_stage import Files, plan_of


@contextlib.contextmanager
def signalled(number: int, message: str) -> Iterator[None]:
    """Half a second after it began, and it ends within two more."""
    timer = threading.Timer(0.5, os.kill, (os.getpid(), number))
    began, before = time.monotonic(), signal.getsignal(number)
    timer.start()
    with pytest.raises(StoppedError, match=message), stopping_on_signals():
        yield
    assert time.monotonic() - began < 2.5
    assert signal.getsignal(number) is before


def test_while_what_is_done_is_checked(tmp_path: Path):
    plan = plan_of(100)
    ledger = Ledger(str(tmp_path), "files", {})
    for block in plan:
        ledger.record(block, "sum", 0.0)

    def intact(*_: object) -> bool:
        time.sleep(0.5)
        return True

    with signalled(signal.SIGTERM, "Stopped by SIGTERM; the same command resumes"):
        find_todo(plan, ledger, intact)
    assert len(ledger.done()) == 100


def test_while_the_process_that_was_called_does_a_block(tmp_path: Path):
    for name in ("begun", "data"):
        (tmp_path / name).mkdir()
    with signalled(signal.SIGINT, "Stopped by Ctrl-C"):
        run_in_turn(Files(str(tmp_path), seconds=60), plan_of(1), f"{tmp_path}/ledger", progress=False)
    ledger = Ledger.existing(f"{tmp_path}/ledger", "files")
    assert ledger is not None
    assert ledger.status() == (0, 0)
    report = run_in_turn(Files(str(tmp_path)), plan_of(1), f"{tmp_path}/ledger", progress=False)
    assert (report.done, report.failed) == (1, [])
