"""Reading crops of a volume far larger than the cache keeps memory within the cache's limit."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from emsam_jax.volumes import create_volume

MIB = 1 << 20
SIDE = (128, 1024, 1024)  # 128 MiB

# A process of its own: only there does the peak belong to the reading alone.
READ = """
import sys
import numpy as np
from emsam_jax.storage import set_cache_limit
from emsam_jax.volumes import open_volume

def peak():
    # Not ru_maxrss: it begins at what the parent had when it started this process.
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024

set_cache_limit(int(sys.argv[2]))
volume = open_volume(sys.argv[1])
volume[:16, :64, :64]
before = peak()
for z in range(0, 128, 16):
    for y in range(0, 1024, 128):
        for x in range(0, 1024, 128):
            volume[z:z + 16, y:y + 128, x:x + 128]
print(peak() - before)
"""


def grown(path: Path, cache_bytes: int) -> int:
    done = subprocess.run([sys.executable, "-c", READ, str(path), str(cache_bytes)], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_memory_stays_within_the_cache_limit(kind: str, tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 256, (16, *SIDE[1:]), dtype=np.uint8)  # does not compress
    if kind == "zarr":
        path = tmp_path / "a.zarr"
        volume = create_volume(path, SIDE, np.uint8, (40, 4, 4), shard=(16, 512, 512))
        for z in range(0, SIDE[0], 16):
            volume[z : z + 16] = values
    else:
        path = tmp_path / "a.h5/raw"
        with h5py.File(path.parent, "w") as file:
            dataset = file.create_dataset("raw", SIDE, np.uint8, chunks=(16, 128, 128))
            for z in range(0, SIDE[0], 16):
                dataset[z : z + 16] = values
    assert grown(path, 16 * MIB) < 16 + 32  # MiB; with what the decoders need
    assert grown(path, 1024 * MIB) > 100  # the cache is what holds it
