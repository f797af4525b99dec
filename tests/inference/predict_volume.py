"""A program that predicts, for tests that kill it or measure its memory.

python predict_volume.py RAW OUT Z,Y,X SECONDS: blocks of that shape, each of which takes at least so long.
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax import numpy as jnp

from emsam_jax.inference import Prediction, predict_affinities
from emsam_jax.model import Maps
from emsam_jax.storage import set_cache_limit
from emsam_jax.volumes import Specimen, open_volume


class Simple(nnx.Module):
    def encode(self, sections):
        return (jnp.sin(9 * sections),)

    def decode(self, raw, features):
        seen = features[0] * 2 - raw.mean((1, 2, 3, 4), keepdims=True)
        return Maps(None, jnp.concatenate([seen, raw, jnp.roll(seen, 1, 2)], -1))


SETTINGS = Prediction(window=(8, 16, 16), stride=(8, 16, 16), batch=64, progress=False)


def predict(raw: str, out: str, block: str, seconds: float = 0.0) -> None:
    z, y, x = (int(side) for side in block.split(","))
    settings = Prediction(**{**vars(SETTINGS), "block": (z, y, x)})

    def wait(stage: str, result: object) -> None:
        time.sleep(seconds * (stage == "computed"))

    devices = jax.devices()[:1]
    predict_affinities(Simple(), Specimen(open_volume(raw)), out, settings, devices=devices, watch=wait)


def main(raw: str, out: str, block: str, seconds: str) -> None:
    set_cache_limit(1 << 22)
    predict(raw, out, block, float(seconds))
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def write_raw(path: Path, shape: tuple[int, int, int]) -> str:
    np.save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return str(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
