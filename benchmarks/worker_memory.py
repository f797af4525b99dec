"""The memory of a worker that segments, on a volume and on one of 27 times the voxels in the same blocks.

    python benchmarks/worker_memory.py

The larger volume is the smaller one, three times along each axis, so that their blocks hold the same. Each is segmented
by one worker, from stored affinities to labels, as segment.py does it; peaks are the kernel's, of whole processes.
`caller` is the process that was called, which puts the tables of all blocks together.
"""

import itertools
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import cells
import measure
import numpy as np
from absl import app, flags

from emsam_jax.blocks.dask import Tls, Workers, open_cluster
from emsam_jax.blocks.dask.security import in_files
from emsam_jax.segment_volume import SegmentationRequest, segment_volume
from emsam_jax.segmentation import FragmentParameters, Recipe
from emsam_jax.volumes import create_volume

_QUICK = flags.DEFINE_bool("quick", False, "Small volumes.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

RECIPE = Recipe("waterz", 0.5, FragmentParameters("2d", boundary_threshold=0.5, seed_distance=7))
VOXEL_SIZE = (40.0, 4.0, 4.0)


def main(_: list[str]) -> None:
    block = (8, 96, 96) if _QUICK.value else (32, 128, 128)
    shape = (block[0], 3 * block[1], 3 * block[2])  # a block with neighbours on all sides
    affinities = np.rint(255 * cells.draw_noisy_affinities(cells.draw_cells(shape))).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        RECIPE.write(Path(folder) / "recipe.json")
        peaks = {name: segment(Path(folder) / name, affinities, times, block) for name, times in SIZES.items()}
    ratios = {who: peaks["large"][who] / peaks["small"][who] for who in ("worker", "caller")}
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "dask", "distributed", "tensorstore"),
        "shape": {name: [times * side for side in shape] for name, times in SIZES.items()},
        "block": block,
        "peak_bytes": peaks,
        "ratio": ratios,
    }
    for who, ratio in ratios.items():
        small, large = (peaks[name][who] / 2**20 for name in SIZES)
        print(f"{who:<8}{small:>6.0f} MiB, of 27 times the volume {large:.0f} MiB: {ratio:.3f} of it")
    print(f"Results: {measure.write('worker_memory-cpu', results, _OUT.value)}")


SIZES = {"small": 1, "large": 3}  # times each side


def segment(folder: Path, affinities: np.ndarray, times: int, block: tuple[int, ...]) -> dict[str, int]:
    """Peaks of memory, bytes, in processes that do nothing else."""
    shape = affinities.shape[1:]
    volume = create_volume(folder / "affinities.zarr", (3, *(times * side for side in shape)), "uint8", VOXEL_SIZE)
    for place in itertools.product(range(times), repeat=3):
        box = tuple(slice(at * side, (at + 1) * side) for at, side in zip(place, shape, strict=True))
        volume[(..., *box)] = affinities
    with open_cluster(workers=1) as client, tempfile.TemporaryDirectory() as keys:
        known = in_files(client.security, Path(keys))
        request = SegmentationRequest(
            out=str(folder / "labels.zarr"),
            affinities=volume.url,
            recipe=str(folder.parent / "recipe.json"),
            block=(block[0], block[1], block[2]),
            workers=Workers(
                scheduler=client.scheduler_info()["address"],
                tls=Tls(known.tls_ca_file, known.tls_client_cert, known.tls_client_key),
            ),
            progress=False,
        )
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            caller = pool.apply(segment_and_look, (request,))
        found: Any = client.run(measure.status, "VmHWM")
    return {"worker": max(found.values()), "caller": caller}


def segment_and_look(request: SegmentationRequest) -> int:
    segment_volume(request)
    return measure.status("VmHWM")


if __name__ == "__main__":
    app.run(main)
