"""The image encoder on a synthetic section, as a picture: what the model sees before it has learned anything.

python -m emsam_jax.demo --out=runs/demo
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from absl import app, flags, logging
from flax import nnx
from jaxtyping import Float

from emsam_jax.model import SIZES, Features, ImageEncoder, jit

_OUT = flags.DEFINE_string("out", "runs/demo", "Folder for the picture.")
_SIZE = flags.DEFINE_enum("size", "tiny", list(SIZES), "Which of SAM2's encoders.")
_SIDE = flags.DEFINE_integer("side", 224, "Side of the section, pixels; a multiple of 32.")

IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # jax tells which accelerators are not there
    section = synthetic_section(_SIDE.value)
    images = jnp.asarray(((section[None, ..., None] - IMAGENET_MEAN) / IMAGENET_STD).astype(np.float32))
    print(f"SAM2's image encoder, Hiera {_SIZE.value}, with random weights (convert/sam2_to_flax.py brings real ones)")
    encoder = jax.jit(lambda: ImageEncoder(SIZES[_SIZE.value], rngs=nnx.Rngs(0)))()
    encode = jit(lambda encoder, images: encoder(images)).lower(encoder, images).compile()
    start = time.perf_counter()
    features: Features = jax.block_until_ready(encode(encoder, images))
    print(f"one section of {_SIDE.value} x {_SIDE.value} in {time.perf_counter() - start:.2f} s")
    maps = [("trunk", f) for f in features.trunk] + [("FPN", f) for f in features.fpn]
    for name, f in maps:
        print(f"  {name:<6} stride {_SIDE.value // f.shape[1]:>2}  {f.shape[1]} x {f.shape[2]} x {f.shape[3]}")
    picture = Path(_OUT.value) / "features.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(section, [(name, np.asarray(f[0])) for name, f in maps], picture)
    print(f"Feature maps: {picture}")


def synthetic_section(side: int, cells: int = 40, seed: int = 0) -> Float[np.ndarray, "y x"]:
    """Bright cells with dark borders, and noise, in [0, 1]."""
    rng = np.random.default_rng(seed)
    grid = np.indices((side, side)).reshape(2, -1).T[:, None]
    distances = np.linalg.norm(grid - rng.uniform(0, side, (cells, 2)), axis=-1)
    nearest, second = np.partition(distances, 1, axis=1)[:, :2].T
    membrane = np.exp(-(((second - nearest) / 3) ** 2)).reshape(side, side)
    return np.clip(0.7 - 0.5 * membrane + rng.normal(0, 0.06, (side, side)), 0, 1)


def draw(section: Float[np.ndarray, "y x"], maps: list[tuple[str, np.ndarray]], path: Path) -> None:
    """The section, and of each feature map [h, w, c] its three strongest components as red, green and blue."""
    figure, axes = plt.subplots(2, 4, figsize=(12, 6.4), layout="constrained")
    axes[0, 0].imshow(section, cmap="gray", vmin=0, vmax=1)
    axes[0, 0].set_title(f"synthetic section, {section.shape[0]} x {section.shape[1]}")
    for axis, (name, features) in zip(axes.flat[1:], maps, strict=True):
        h, w, c = features.shape
        centred = features.reshape(-1, c) - features.reshape(-1, c).mean(0)
        components = centred @ np.linalg.svd(centred, full_matrices=False)[2][:3].T
        low, high = np.percentile(components, (2, 98), axis=0)
        axis.imshow(np.clip((components - low) / (high - low), 0, 1).reshape(h, w, 3), interpolation="nearest")
        axis.set_title(f"{name}, stride {section.shape[0] // h}, {c} channels")
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle("What SAM2's image encoder (random weights) makes of it: three strongest components of each map")
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    app.run(main)
