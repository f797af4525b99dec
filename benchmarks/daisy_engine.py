"""A stage's blocks by daisy, another block engine: same work, its own workers, its own record of what is done."""

import functools
import pickle
import uuid
from pathlib import Path

import daisy
import daisy.logging

from emsam_jax.blocks import Plan, Stage


def run_stage_by_daisy(stage: Stage, plan: Plan, folder: Path, workers: int) -> None:
    """Each block in one of its worker processes, recorded below `folder`."""
    pickled = pickle.dumps((stage, plan))
    region = daisy.Roi(plan.region.start, plan.region.shape)
    own = daisy.Roi((0, 0, 0), plan.block)

    def run(block: daisy.Block) -> None:
        stage, plan = opened(pickled)
        start = block.write_roi.offset - region.offset
        stage.run(plan.at(tuple(int(first // side) for first, side in zip(start, plan.block, strict=True))))

    daisy.logging.set_log_basedir(folder / "daisy_logs")
    task = daisy.Task(
        task_id=f"{stage.name}-{uuid.uuid4().hex[:8]}",
        total_roi=region,
        read_roi=own,
        write_roi=own,
        process_function=run,
        read_write_conflict=False,
        fit="shrink",
        max_workers=workers,
        tracking_path=str(folder / "daisy" / stage.name),
    )
    if not daisy.run_blockwise([task], progress=False, summary=False):
        raise RuntimeError(f"daisy did not end {stage.name}.")


@functools.lru_cache(maxsize=1)
def opened(pickled: bytes) -> tuple[Stage, Plan]:
    return pickle.loads(pickled)
