"""Training patches by gunpowder 1.4, for benchmarks/loader.py; runs in .venv-peers and takes its orders from stdin.

    echo 24 | .venv-peers/bin/python benchmarks/gunpowder_peer.py VOLUME.zarr 18,160,160 2

A number on stdin is a count of patches to make; the answer is the seconds that took.
"""

import math
import sys
import time
import warnings

import gunpowder as gp  # type: ignore[reportMissingImports]

CACHED = 4  # patches that workers prefetch: made, and not counted, before the clock starts


warnings.simplefilter("ignore")  # the node is deprecated


def main(container: str, patch: tuple[int, ...], workers: int) -> None:
    raw, labels, affinities = gp.ArrayKey("RAW"), gp.ArrayKey("LABELS"), gp.ArrayKey("AFFINITIES")
    voxel_size = gp.Coordinate(40, 8, 8)
    margin = gp.Coordinate(80, 800, 800)  # nm that a rotated patch may look at beyond the volume
    request = gp.BatchRequest()
    for key in (raw, labels, affinities):
        request.add(key, gp.Coordinate(patch) * voxel_size)
    pipeline = (
        gp.ZarrSource(
            container,
            {raw: "raw", labels: "labels"},
            {raw: gp.ArraySpec(interpolatable=True), labels: gp.ArraySpec(interpolatable=False)},
        )
        + gp.Normalize(raw)
        + gp.Pad(raw, margin)
        + gp.Pad(labels, margin)
        + gp.RandomLocation()
        # The only node with slips and shifts of sections; subsample=8 is its fast setting.
        + gp.ElasticAugment(
            (1, 32, 32),
            (0, 3, 3),
            (0, 2 * math.pi),
            prob_slip=0.05,
            prob_shift=0.05,
            max_misalign=12,
            subsample=8,
        )
        + gp.SimpleAugment(transpose_only=[1, 2])
        + gp.IntensityAugment(raw, 0.7, 1.3, -0.15, 0.15)
        + gp.IntensityAugment(raw, 0.9, 1.1, -0.05, 0.05, z_section_wise=True)
        + gp.GrowBoundary(labels, steps=1, only_xy=True)
        + gp.AddAffinities([(-1, 0, 0), (0, -1, 0), (0, 0, -1)], labels, affinities, dtype="float32")
        + gp.PreCache(cache_size=CACHED, num_workers=workers)
    )
    with gp.build(pipeline):
        print("ready", flush=True)
        for line in sys.stdin:
            for _ in range(CACHED):
                pipeline.request_batch(request)
            start = time.perf_counter()
            for _ in range(int(line)):
                pipeline.request_batch(request)
            print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], tuple(map(int, sys.argv[2].split(","))), int(sys.argv[3]))
