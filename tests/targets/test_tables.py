"""The tables of docs/accelerators.md are those of its script's results, and the script makes them."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT, environment

SCRIPT, PAGE = ROOT / "benchmarks/targets.py", ROOT / "docs/accelerators.md"


def test_the_page_has_the_results(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    tables = importlib.import_module("target_tables")

    rows = json.loads((SCRIPT.parent / "results/targets.json").read_text())["cases"]
    assert tables.with_tables(PAGE.read_text(), rows) == PAGE.read_text()
    assert rows.keys() <= tables.EVERY.keys()
    assert tables.with_tables(PAGE.read_text(), {}) != PAGE.read_text()


@pytest.mark.slow
def test_the_script_makes_each_kind_of_row(tmp_path: Path):
    """With this machine's device in place of the targets."""
    cases = ["demo@h200", "predict demo@h200", "collectives@8xh200"]
    for case in cases:
        command = [sys.executable, str(SCRIPT), "--here", f"--cases={case}", f"--out={tmp_path}"]
        subprocess.run(command, check=True, capture_output=True, env=environment())
    rows = json.loads((tmp_path / "targets.json").read_text())["cases"]
    assert list(rows) == cases
    step, prediction, sharded = rows.values()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", step["date"])
    assert step["fits"]
    assert step["moved"] > step["bytes"] / 100
    assert prediction["programs"]["decode"]["kernels"] > 10
    assert sharded["collectives"] == {}  # of one device
