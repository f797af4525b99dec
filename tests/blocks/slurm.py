"""A stand-in for Slurm on one machine: what is submitted begins at once, as a process group of its own."""

import os
import sys
from pathlib import Path

from tests.programs import environment

_PROGRAMS = {
    "sbatch": """
        cp "$1" "$QUEUE/$$.begun"
        setsid sh "$QUEUE/$$.begun" >"$QUEUE/$$.log" 2>&1 &
        cp "$QUEUE/$$.begun" "$QUEUE/$!.sh"
        echo "Submitted batch job $!"
    """,
    "scancel": 'for job in "$@"; do touch "$QUEUE/$job.cancelled"; kill -- "-$job"; done',
    "python": f'exec "{sys.executable}" "$@"',
    "emsam": f'exec "{sys.executable}" -m emsam_jax "$@"',
}


def environment_with_slurm(folder: Path) -> dict[str, str]:
    """In `folder/queue` is, for each job, its script JOB.sh and, once it was ended by scancel, JOB.cancelled."""
    programs, queue = folder / "bin", folder / "queue"
    queue.mkdir(exist_ok=True)
    programs.mkdir(exist_ok=True)
    for name, script in _PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}")
        (programs / name).chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return environment(PATH=path, QUEUE=str(queue))
