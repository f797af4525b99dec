"""Seconds and peak memory of converting a checkpoint of SAM2, as a process of its own.

python benchmarks/convert.py --size=large
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure
import torch
from absl import app, flags

from emsam_jax.model import SIZES
from emsam_jax.porting import parity

_SIZE = flags.DEFINE_enum("size", "large", list(SIZES), "Which model.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        torch.save({"model": parity.build_official(_SIZE.value, whole=True).state_dict()}, checkpoint)
        file_bytes = checkpoint.stat().st_size
        start = time.perf_counter()
        command = [sys.executable, "-m", "emsam_jax", "convert", f"--checkpoint={checkpoint}", f"--out={folder}/flax"]
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
    peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # Linux counts in KiB
    row = {
        "size": _SIZE.value,
        "checkpoint_bytes": file_bytes,
        "seconds": seconds,
        "peak_bytes": peak_bytes,
        "peak_over_checkpoint": peak_bytes / file_bytes,
    }
    print(
        f"{_SIZE.value}: {file_bytes / 1e6:.0f} MB converted in {seconds:.1f} s, "
        f"peak memory {peak_bytes / 1e6:.0f} MB, {row['peak_over_checkpoint']:.2f} times the checkpoint's size"
    )
    facts = {"machine": measure.machine(), "versions": measure.versions("jax", "orbax-checkpoint", "torch")}
    print(f"Results: {measure.write('convert', {**facts, **row}, _OUT.value)}")


if __name__ == "__main__":
    app.run(main)
