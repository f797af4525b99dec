"""Compares the Flax encoder with the official PyTorch one: the largest difference at each output."""

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from emsam_jax.errors import UserError
from emsam_jax.model import ImageEncoder, jit
from emsam_jax.porting.torch_file import import_torch

_CONFIGS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
VERSIONS = ("sam2", "sam2.1")
OUTPUTS = tuple(f"trunk, stride {s}" for s in (4, 8, 16, 32)) + tuple(f"fpn, stride {s}" for s in (4, 8, 16))
TOLERANCE = 1e-5  # of an output's largest value, in float32


def build_official(size: str, version: str = "sam2.1", *, whole: bool = False) -> Any:
    """Builds SAM2's `ImageEncoder`, or the `whole` model, by its own configuration, to evaluate, with random weights.

    Position embeddings too: the zeros that they begin with would hide errors of resizing and tiling them.
    """
    torch = import_torch()
    try:
        import sam2  # noqa: F401 (tells hydra where its configurations are)
        from hydra import compose
        from hydra.utils import instantiate
    except ModuleNotFoundError as error:
        raise UserError(
            f"Comparing with the official encoder needs the sam2 package ({error.name} is missing): "
            "pip install 'emsam-jax[convert]'."
        ) from None
    config = compose(config_name=f"configs/{version}/{version}_hiera_{_CONFIGS[size]}.yaml").model
    with contextlib.redirect_stdout(None):
        built = instantiate(config if whole else config.image_encoder, _recursive_=True).eval()
    trunk = (built.image_encoder if whole else built).trunk
    with torch.no_grad():
        for embedding in (trunk.pos_embed, trunk.pos_embed_window):
            embedding.normal_(std=0.5)
    return built


def run_encoder(encoder: Any, images: np.ndarray) -> list[np.ndarray]:
    """Maps images [n, y, x, 3] to the four stages and the three levels of the pyramid, each [n, h, w, c]."""
    torch = import_torch()
    with torch.inference_mode():
        stages = encoder.trunk(torch.from_numpy(images).permute(0, 3, 1, 2))
        levels = encoder.neck(stages)[0][: -encoder.scalp]
    return [feature.permute(0, 2, 3, 1).float().numpy() for feature in (*stages, *levels)]


class Difference(NamedTuple):
    y: int
    x: int
    output: str
    largest_value: float
    absolute: float

    @property
    def relative(self) -> float:
        return self.absolute / self.largest_value


def compare(official: Any, ours: ImageEncoder, sides: Iterable[tuple[int, int]], seed: int = 0) -> list[Difference]:
    """Runs one random image of each size (y, x) through both."""
    rng = np.random.default_rng(seed)
    encode = jit(lambda encoder, images: encoder(images))
    differences = []
    for y, x in sides:
        images = rng.standard_normal((1, y, x, 3), dtype=np.float32)
        with jax.default_matmul_precision("highest"):
            features = encode(ours, images)
        pairs = zip(OUTPUTS, run_encoder(official, images), (*features.trunk, *features.fpn), strict=True)
        for output, theirs, mine in pairs:
            absolute = np.abs(theirs - np.asarray(mine, np.float32)).max()
            differences.append(Difference(y, x, output, float(np.abs(theirs).max()), float(absolute)))
    return differences


class BFloat16Errors(NamedTuple):
    """Root mean squares of errors, as shares of that of PyTorch's output in float32."""

    output: str
    ours: float
    torch: float  # by autocast, as SAM2 is used
    between: float


def compare_bfloat16(official: Any, ours: ImageEncoder, side: tuple[int, int], seed: int = 0) -> list[BFloat16Errors]:
    """Runs one random image (y, x) through both in bfloat16, and through the official one in float32."""
    torch = import_torch()
    images = np.random.default_rng(seed).standard_normal((1, *side, 3), dtype=np.float32)
    features = jit(lambda encoder, images: encoder(images))(ours, images)
    mine = [np.asarray(feature, np.float32) for feature in (*features.trunk, *features.fpn)]
    exact = run_encoder(official, images)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = run_encoder(official, images)

    def error(found: np.ndarray, expected: np.ndarray, exact: np.ndarray) -> float:
        return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(exact**2)))

    return [
        BFloat16Errors(output, error(m, e, e), error(t, e, e), error(m, t, e))
        for output, e, m, t in zip(OUTPUTS, exact, mine, theirs, strict=True)
    ]


def worst(differences: Iterable[Difference]) -> Difference:
    """Returns the largest value; NaN counts as larger than all."""
    return max(differences, key=lambda d: float("inf") if np.isnan(d.relative) else d.relative)


def table(differences: Iterable[Difference]) -> str:
    rows = [f"{'size (y x x)':>12}  {'output':<18}{'largest value':>14}{'abs. diff.':>12}{'rel. diff.':>12}"]
    rows += [
        f"{d.y:>5} x {d.x:<5} {d.output:<18}{d.largest_value:>14.3g}{d.absolute:>12.1e}{d.relative:>12.1e}"
        for d in differences
    ]
    return "\n".join(rows)
