"""segment.py as a user runs it, on affinities of 48 blocks."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from emsam_jax.segmentation import FragmentParameters, Recipe
from emsam_jax.volumes import open_volume
from tests.programs import PATIENCE, ROOT, environment
from tests.segmentation import cells

SHAPE, BLOCK = (36, 64, 64), "12,16,16"  # 48 blocks, and two coarser levels
RECIPE = Recipe("waterz", 0.5, FragmentParameters("2d", seed_distance=3))


def draw_affinities() -> np.ndarray:
    return cells.draw_affinities(cells.draw_cells(3, SHAPE, 30), noise=1.0)


def command(folder: Path, out: str, *flags: str) -> list[str]:
    given = {"affinities": folder / "affinities.zarr", "recipe": folder / "recipe.json", "out": folder / out}
    named = [f"--{name}={value}" for name, value in given.items()]
    return [sys.executable, str(ROOT / "segment.py"), *named, f"--block={BLOCK}", "--workers=2", *flags]


def segment(folder: Path, out: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, out, *flags), check=False, capture_output=True, text=True, env=environment(), timeout=PATIENCE
    )


def start(folder: Path, out: str, *flags: str) -> subprocess.Popen[bytes]:
    """In a process group of its own, so that all of it can be killed; what it says is in a file beside its output."""
    with (folder / f"{out}.log").open("wb") as said:
        return subprocess.Popen(
            command(folder, out, *flags), env=environment(), start_new_session=True, stdout=said, stderr=said
        )


def said(folder: Path, out: str) -> str:
    return (folder / f"{out}.log").read_text()


def entries(folder: Path, out: str) -> dict[str, bytes]:
    """What is reported done, with its entry."""
    ledger = folder / out / "ledger"
    # While a run is at work, names with more in them come and go.
    return {str(p.relative_to(ledger)): p.read_bytes() for p in ledger.glob("*/done/*-*-*") if p.name[-1].isdigit()}


def wait_for(folder: Path, out: str, count: int, run: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(entries(folder, out)) < count:
        assert run.poll() is None, said(folder, out)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def labels(folder: Path, out: str) -> np.ndarray:
    return open_volume(folder / out)[...]
