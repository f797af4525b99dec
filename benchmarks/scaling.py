"""What a cubic millimetre would take, worked out from what blocks and edges take here.

    python benchmarks/scaling.py            # measures, and prints the table of docs/scaling.md
    python benchmarks/scaling.py --stored   # the table from what was measured last

Two blocks of the usual size, affinities of cells with noise, by one worker, as `segment.py --dry_run` tries a sample;
and the step that holds the whole graph, for as many copies of the sample's edges as make `--edges`.
"""

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cells
import measure
import numpy as np
from absl import app, flags

from emsam_jax.config import load_config
from emsam_jax.segment_volume.forecast import sample_segmentation, stored_bytes
from emsam_jax.segmentation import FragmentParameters, Recipe
from emsam_jax.segmentation.blockwise import EDGE, Step, read_table
from emsam_jax.segmentation.blockwise.global_agglomeration import agglomerate_edges
from emsam_jax.segmentation.blockwise.tables import OBJECT, merge_edges
from emsam_jax.training.cost import count_flops
from emsam_jax.volumes import create_volume

_EDGES = flags.DEFINE_integer("edges", 4_000_000, "Of the graph whose memory is measured.")
_STORED = flags.DEFINE_bool("stored", False, "Measure nothing.")
_QUICK = flags.DEFINE_bool("quick", False, "Small blocks and a small graph: to see that it runs.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

RECIPE = Recipe("waterz", 0.5, FragmentParameters("2d", boundary_threshold=0.5, seed_distance=7))
VOXEL_SIZE = (40.0, 4.0, 4.0)
VOXELS = 1e18 / (40 * 4 * 4)
CONFIG = "emsam_jax/configs/cremi.py:frozen"
WINDOWS = 8  # over each voxel, at half-window stride
H200 = 989e12  # operations a second in bfloat16, dense, as its maker states
SHARES = (0.1, 0.4)  # of that, assumed
MACHINE = 2**40  # bytes


def main(_: list[str]) -> None:
    if _STORED.value:
        print(format_table(json.loads((measure.RESULTS / "scaling-cpu.json").read_text())))
        return
    shape, block = ((8, 64, 128), (8, 64, 64)) if _QUICK.value else ((64, 512, 1024), (64, 512, 512))
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "dask", "distributed", "tensorstore"),
        "shape": shape,
        "block": block,
        **measure_blocks(shape, block),
        "kflop_a_voxel": prediction_flops() / 1e3,
    }
    path = measure.write("scaling-cpu", results, _OUT.value)
    print(f"{format_table(results)}\nResults: {path}")


def measure_blocks(shape: tuple[int, int, int], block: tuple[int, int, int]) -> dict[str, Any]:
    truth = cells.draw_cells(shape, voxels=2000 if _QUICK.value else 30_000)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        affinities = create_volume(f"{folder}/affinities", (3, *shape), "uint8", VOXEL_SIZE)
        affinities[...] = np.rint(255 * cells.draw_noisy_affinities(truth)).astype(np.uint8)
        found = sample_segmentation(affinities, out, RECIPE, block, queue=0)
        stored = {"affinities": stored_bytes(Path(folder) / "affinities/0"), **found.stored}
        edges, fragments = (
            read_table(str(out), f"{name}.npy", dtype) for name, dtype in (("edges", EDGE), ("fragments", OBJECT))
        )
        copies = max(1, (1000 if _QUICK.value else _EDGES.value) // len(edges))
        np.save(f"{folder}/edges.npy", edges)
        began = time.perf_counter()
        make_graph(f"{folder}/edges.npy", copies)
        seconds = time.perf_counter() - began
        peak = measure.peak_bytes(make_graph, f"{folder}/edges.npy", copies)
    rows = copies * len(edges)
    return {
        "seconds_a_voxel": {name: cost / truth.size for name, cost in seconds_of_stages(found.steps).items()},
        "bytes_a_voxel": {name: count / truth.size for name, count in stored.items()},
        "fragments_a_voxel": len(fragments) / truth.size,
        "edges_a_voxel": len(edges) / truth.size,
        "worker_bytes": found.peak,
        "graph": {"edges": rows, "bytes_an_edge": peak / rows, "seconds_an_edge": seconds / rows},
    }


def seconds_of_stages(steps: Sequence[tuple[Step, float]]) -> dict[str, float]:
    """Of those that workers do; all levels of the pyramid as one."""
    found: dict[str, float] = defaultdict(float)
    for step, seconds in steps:
        if not step.holds_all:
            found[step.stage.name.partition("-")[0]] += seconds
    return dict(found)


def make_graph(path: str, copies: int) -> None:
    """Blocks' tables put together and agglomerated; the copies have nothing to do with each other."""
    edges = np.load(path)
    step = np.uint64(max(edges["u"].max(), edges["v"].max()) + 1)

    def copy(number: int) -> np.ndarray:
        moved = edges.copy()
        for end in "uv":
            moved[end] += np.uint64(number) * step
        return moved

    merged = merge_edges(copy(number) for number in range(copies))
    fragments = np.unique(np.concatenate([merged["u"], merged["v"]]))
    next(agglomerate_edges(merged, fragments, [RECIPE.threshold]))


def prediction_flops() -> float:
    """Of a voxel, at most: sections that windows over each other share are encoded once."""
    config = load_config(CONFIG)
    patch = config.data.patch
    return WINDOWS * count_flops(config.model, patch, training=False) / float(np.prod(patch))


def format_table(found: Mapping[str, Any]) -> str:
    """In Markdown."""
    seconds, stored, graph = found["seconds_a_voxel"], found["bytes_a_voxel"], found["graph"]
    fits = MACHINE / graph["bytes_an_edge"] / found["edges_a_voxel"]
    block, worker = np.prod(found["block"]), found["worker_bytes"]
    gpu_hours = [found["kflop_a_voxel"] * 1e3 * VOXELS / H200 / share / 3600 for share in SHARES]
    rows = [
        ("voxels of 40 x 4 x 4 nm", "", f"{VOXELS / 1e15:.2f} petavoxels"),
        ("blocks of " + " x ".join(map(str, found["block"])), "", f"{VOXELS / block / 1e6:.0f} million"),
        (
            "prediction, base+, half-window stride, at most",
            f"{found['kflop_a_voxel']:.0f} kFLOP",
            f"{gpu_hours[1]:,.0f} to {gpu_hours[0]:,.0f} H200 hours, at 40% to 10% of its rate (assumed)",
        ),
        *(
            (f"{name}, time of a core", f"{cost * 1e9:.0f} ns", f"{cost * VOXELS / 3600:,.0f} hours")
            for name, cost in seconds.items()
        ),
        ("memory of a worker", f"{worker / block:.0f} bytes of its block", f"{worker / 2**30:.1f} GiB"),
        *(
            (f"{name}, stored", f"{count:.2f} bytes", f"{count * VOXELS / 1e12:,.0f} TB")
            for name, count in stored.items()
        ),
        ("fragments", f"1 in {1 / found['fragments_a_voxel']:.0f}", f"{found['fragments_a_voxel'] * VOXELS:.1e}"),
        ("edges between them", f"1 in {1 / found['edges_a_voxel']:.0f}", f"{found['edges_a_voxel'] * VOXELS:.1e}"),
        (
            "the whole graph in one memory",
            f"{graph['bytes_an_edge']:.0f} bytes an edge",
            f"{graph['bytes_an_edge'] * found['edges_a_voxel'] * VOXELS / 2**40:,.0f} TiB: does not fit",
        ),
        (
            "what a machine of 1 TiB can hold of it",
            "",
            f"{fits / 1e12:.2f} teravoxels, a cube of {(fits * 640) ** (1 / 3) / 1e3:.0f} µm; "
            f"{graph['seconds_an_edge'] * fits * found['edges_a_voxel'] / 3600:.0f} hours",
        ),
    ]
    lines = ["| | a voxel | a cubic millimetre |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


if __name__ == "__main__":
    app.run(main)
