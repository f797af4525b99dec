"""The suite itself: a worker that dies ends the run, and tests take their helpers from no other test."""

import ast
import os
import subprocess
import sys
from pathlib import Path

from tests.programs import PATIENCE, ROOT

FILES = sorted((ROOT / "tests").rglob("*.py"))


def test_a_worker_that_is_killed_ends_the_run_and_is_named(tmp_path: Path):
    """With the flags of `make test`; restarted, workers were seen to hang."""
    recipe = subprocess.run(["make", "-n", "test"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (flags,) = (line.split() for line in recipe.splitlines() if " -m pytest " in line)
    (tmp_path / "test_killer.py").write_text("import os\ndef test_killer():\n    os.kill(os.getpid(), 9)\n")
    for name in "abcd":
        (tmp_path / f"test_{name}.py").write_text("def test_one():\n    pass\n\n\ndef test_two():\n    pass\n")
    given = [flag for flag in flags if flag.startswith(("--dist", "--max-worker"))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist", "--numprocesses=2", *given, str(tmp_path)],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "crashed while running 'test_killer.py::test_killer'" in done.stdout
    assert "crashed and worker restarting disabled" in done.stdout


def test_files_stay_small_and_take_nothing_from_tests():
    for path in FILES:
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        modules = [node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
        assert not [module for module in modules if module.startswith("tests.") and ".test_" in module], path
