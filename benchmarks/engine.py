"""How many empty blocks a second the engine gets through, and the memory that their scheduler needs.

    python benchmarks/engine.py

Each block is recorded in a ledger on disk, and nothing else: so much does a block cost beside its own work. Scheduler
and client are this process. In groups of one, on a part of the blocks, to see what groups are good for.
"""

import dataclasses
import tempfile
from typing import Any

import measure
from absl import app, flags
from distributed import Client

from emsam_jax.blocks import Block, Entry, plan_blocks
from emsam_jax.blocks.dask import open_cluster, run_stage
from emsam_jax.blocks.stage import EMPTY
from emsam_jax.volumes import box_of

_BLOCKS = flags.DEFINE_integer("blocks", 100_000, "Empty blocks to be sent through.", lower_bound=100)
_WORKERS = flags.DEFINE_integer("workers", 2, "Worker processes, of one thread each.")
_QUICK = flags.DEFINE_bool("quick", False, "A few hundred blocks: does it run at all?")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")


@dataclasses.dataclass(frozen=True)
class Empty:
    name: str

    def identity(self) -> dict[str, Any]:
        return {}

    def run(self, block: Block) -> str:
        return EMPTY

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return True


def main(_: list[str]) -> None:
    blocks = 200 if _QUICK.value else _BLOCKS.value
    with tempfile.TemporaryDirectory() as folder, open_cluster(workers=_WORKERS.value) as client:
        sent = {"groups": (blocks, 64), "one_by_one": (blocks // 20, 1)}
        run_empty(client, folder, "warm-up", 100, 64)
        before = measure.status("VmRSS")
        rates = {name: count / run_empty(client, folder, name, count, group) for name, (count, group) in sent.items()}
    peak = measure.status("VmHWM")
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("dask", "distributed", "tensorstore"),
        "workers": _WORKERS.value,
        "blocks": {name: count for name, (count, _group) in sent.items()},
        "blocks_a_second": rates,
        "scheduler_and_client_bytes": {"before": before, "peak": peak},
    }
    for name, (count, _group) in sent.items():
        print(f"{name:<12}{count:>9} blocks{rates[name]:>8.0f} blocks/s")
    print(f"Scheduler and client: {before / 2**20:.0f} MiB before, {peak / 2**20:.0f} MiB at the peak")
    print(f"Results: {measure.write('engine-cpu', results, _OUT.value)}")


def run_empty(client: Client, folder: str, name: str, count: int, group: int) -> float:
    """Seconds of a run."""
    whole = box_of((count, 1, 1))
    plan = plan_blocks(whole, whole, (1, 1, 1), (1, 1, 1))
    report = run_stage(client, Empty(name), plan, f"{folder}/ledger", group=group)
    assert report.done == count, report.failed
    return report.seconds


if __name__ == "__main__":
    app.run(main)
