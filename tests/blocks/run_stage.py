"""A program that runs a stage, for tests that kill it.

python run_stage.py FOLDER '{"blocks": 20, "workers": 2, "trouble": {"0-0-3": "raises"}}'

Its last line on stdout is its report; it exits with 1 if blocks failed or some are left.
"""

import dataclasses
import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from emsam_jax.blocks import Block, Entry, Plan, plan_blocks
from emsam_jax.blocks.dask import open_cluster, run_stage
from emsam_jax.blocks.dask.engine import StageStoppedError
from emsam_jax.errors import UserError
from emsam_jax.volumes import box_of

SIDE = 4


@dataclasses.dataclass(frozen=True)
class Files:
    """Writes a file a block, and one more for each time that a block was begun."""

    folder: str
    seconds: float = 0.0
    trouble: tuple[tuple[str, str], ...] = ()  # name of a block, what happens to it
    name: str = "files"

    def identity(self) -> dict[str, Any]:
        return {"side": SIDE}

    def run(self, block: Block) -> str:
        begun = Path(self.folder) / "begun"
        (begun / f"{block.name}.{uuid.uuid4().hex}").write_text(str(os.getpid()))
        trouble = dict(self.trouble).get(block.name, "")
        if trouble == "raises":
            raise RuntimeError(f"block {block.name} is no good")
        if trouble == "exits":
            os._exit(1)
        if trouble == "eats":
            fill_memory()
        if trouble == "killed once" and len(list(begun.glob(f"{block.name}.*"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        self.file(block).write_text(content_of(block))
        return str(hash(block.index))

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return entry.checksum == str(hash(block.index)) and self.file(block).read_text() == content_of(block)

    def file(self, block: Block) -> Path:
        return Path(self.folder) / "data" / block.name


def fill_memory() -> None:
    """Slowly enough for Dask to see it."""
    eaten = []
    while len(eaten) < 100:
        eaten.append(b"x" * 20_000_000)
        time.sleep(0.02)


def content_of(block: Block) -> str:
    return f"{block.box} {block.box.voxels**3}"


def plan_of(blocks: int) -> Plan:
    """The last one is smaller."""
    whole = box_of((SIDE, SIDE, SIDE * blocks - 1))
    return plan_blocks(whole, whole, (SIDE, SIDE, SIDE), (SIDE, SIDE, SIDE))


def main(folder: str, settings: str) -> None:
    chosen = {"blocks": 20, "workers": 2, "seconds": 0.0, "scheduler": "", "memory": "auto", "trouble": {}}
    chosen |= json.loads(settings)
    for name in ("data", "begun"):
        (Path(folder) / name).mkdir(parents=True, exist_ok=True)
    stage = Files(folder, chosen["seconds"], tuple(chosen["trouble"].items()))
    try:
        with open_cluster(chosen["scheduler"], chosen["workers"], memory=chosen["memory"]) as client:
            report = run_stage(client, stage, plan_of(chosen["blocks"]), f"{folder}/ledger")
    except StageStoppedError as error:
        print(json.dumps([*error.report, error.left]))
        sys.exit(f"{error}")
    except UserError as error:
        sys.exit(str(error))
    print(json.dumps([*report, 0]))
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
