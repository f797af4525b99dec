"""Training patches a second: this loader against gunpowder 1.4, from the same zarr, on the same cores, in turn.

    make .venv-peers/installed && python benchmarks/loader.py

Patches of 18 x 160 x 160 with elastic deformation, rotation, flips and transposes, contrast and brightness, displaced
sections, 2D border widening and three affinities. gunpowder has a worker process a core. The peer is stopped while
ours runs, and both make a few patches before their clock starts. Reading alone, which includes the warp, is given too,
and on a GPU the patches a second that it makes of samples already read.
"""

import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np
import tensorstore as ts
from absl import app, flags

from emsam_jax.config import Augmentation, DeclaredVolume
from emsam_jax.data import PatchSource, Share, Target, batches, make_augment
from emsam_jax.data.loader import read_samples
from emsam_jax.data.patches import Samples
from emsam_jax.volumes import open_declared
from emsam_jax.volumes.synthetic import synthetic_volume

_QUICK = flags.DEFINE_bool("quick", False, "A few small patches, without the peer: does it run at all?")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each.")
_PATCHES = flags.DEFINE_integer("patches", 48, "Of ours in a turn; the peer makes a quarter.")
_PEER = flags.DEFINE_string("peer", ".venv-peers/bin/python", "The Python that has gunpowder; empty for none.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

# What the peer's nodes do, and no more.
AUGMENTATION = Augmentation(
    rotate=1.0,
    elastic=1.0,
    scale=0.0,
    slip=0.6,
    jump=0.6,
    grey=1.0,
    volume_gamma=0.0,
    section_gamma=0.0,
    noise=0.0,
    cut_out=0.0,
    missing_section=0.0,
    missing_part=0.0,
    blurred_section=0.0,
)


def main(_: list[str]) -> None:
    quick = _QUICK.value
    target = Target(patch=(6, 48, 48) if quick else (18, 160, 160))
    batch, rounds, patches = (2, 1, 4) if quick else (4, _ROUNDS.value, _PATCHES.value)
    threads = len(os.sched_getaffinity(0))  # more only take the cores from each other and from the augmentation
    rates: dict[str, list[float]] = {"ours": [], "reading alone": []}
    with tempfile.TemporaryDirectory() as folder:
        specimen = write_volume(Path(folder) / "volume.zarr", (12, 96, 96) if quick else (64, 512, 512))
        source = PatchSource([specimen], target, AUGMENTATION, seed=0)
        augment = make_augment(target, AUGMENTATION, seed=0)
        ours = batches(Share(source, batch, 0, 1), augment, threads=threads)
        jax.block_until_ready(next(ours))
        peer = None if quick or not _PEER.value else Peer(Path(folder) / "volume.zarr", target.patch)
        if peer:
            rates["gunpowder"] = []
        for _turn in range(rounds):
            rates["ours"].append(rate(ours, batch, patches))
            rates["reading alone"].append(
                rate(read_samples(Share(source, batch, 0, 1), threads=threads), batch, patches)
            )
            if peer:
                rates["gunpowder"].append(peer.rate(max(patches // 4, 1)))
        if peer:
            peer.stop()
        if jax.default_backend() == "gpu":
            rates["augmenting on the GPU"] = [augmenting_rate(source, augment, 64) for _turn in range(rounds)]
    rows = {name: statistics.median(values) for name, values in rates.items()}
    for name, value in rows.items():
        print(f"{name:24} {value:8.1f} patches/s")
    facts = {"machine": measure.machine(), "versions": measure.versions("jax", "grain", "tensorstore")}
    results: dict[str, Any] = {**facts, "patch": target.patch, "patches_per_s": rows, "rounds": rates}
    if "gunpowder" in rates:
        results["ratio"] = measure.median_ratio(rates["ours"], rates["gunpowder"])
        results["versions"]["gunpowder"] = "1.4.4"
        print(f"{'ours / gunpowder':24} {results['ratio']:8.2f}")
    print(f"Results: {measure.write(f'loader-{jax.default_backend()}', results, _OUT.value)}")


def write_volume(path: Path, shape: tuple[int, int, int]):
    """A synthetic volume as zarr v2, with the attributes that gunpowder reads."""
    volume = synthetic_volume(shape, seed=0)
    for name, values in (("raw", volume.raw), ("labels", volume.labels.astype(np.uint64))):
        spec = {"driver": "zarr", "kvstore": f"file://{path}/{name}"}
        store = ts.open(
            spec,
            create=True,
            dtype=values.dtype.name,
            shape=shape,
            chunk_layout=ts.ChunkLayout(chunk_shape=(16, 128, 128)),
        ).result()
        store.write(values).result()
        attributes = {"voxel_size": volume.voxel_size_zyx, "resolution": volume.voxel_size_zyx, "offset": (0, 0, 0)}
        (path / name / ".zattrs").write_text(json.dumps(attributes))
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    return open_declared(
        DeclaredVolume(
            raw=str(path / "raw"),
            labels=str(path / "labels"),
            raw_voxel_size_zyx=volume.voxel_size_zyx,
            labels_voxel_size_zyx=volume.voxel_size_zyx,
        )
    )


def rate(iterator, batch: int, patches: int, warm: int = 5) -> float:
    """Patches a second, after as many batches as may lie ready have been taken."""
    for _ in range(warm):
        jax.block_until_ready(next(iterator))
    start = time.perf_counter()
    for _ in range(patches // batch):
        jax.block_until_ready(next(iterator))
    return patches / (time.perf_counter() - start)


def augmenting_rate(source: PatchSource, augment, batch: int) -> float:
    samples = next(read_samples(Share(source, batch, 0, 1)))
    on_device = Samples(*(jax.device_put(part) for part in samples))
    jax.block_until_ready(augment(on_device))
    start = time.perf_counter()
    jax.block_until_ready([augment(on_device) for _ in range(10)])
    return 10 * batch / (time.perf_counter() - start)


class Peer:
    """gunpowder in its own environment, stopped while it is not asked."""

    def __init__(self, container: Path, patch: tuple[int, ...]):
        script = Path(__file__).with_name("gunpowder_peer.py")
        workers = len(os.sched_getaffinity(0))
        self.process = subprocess.Popen(
            [_PEER.value, str(script), str(container), ",".join(map(str, patch)), str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.orders, self.answers = self.process.stdin, self.process.stdout
        if self.answers.readline().strip() != "ready":
            raise SystemExit(f"{_PEER.value} could not run gunpowder: run `make .venv-peers/installed` first.")
        self._signal(signal.SIGSTOP)

    def rate(self, patches: int) -> float:
        self._signal(signal.SIGCONT)
        print(patches, file=self.orders, flush=True)
        seconds = float(self.answers.readline())
        self._signal(signal.SIGSTOP)
        return patches / seconds

    def stop(self) -> None:
        self._signal(signal.SIGCONT)
        self.orders.close()
        self._signal(signal.SIGTERM)
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)


if __name__ == "__main__":
    app.run(main)
