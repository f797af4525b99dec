"""How far the Flax encoder is from the official one: the largest difference at each output, on the same images."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from emsam_jax.model import ImageEncoder, jit
from emsam_jax.porting.official import run_encoder

OUTPUTS = tuple(f"trunk, stride {s}" for s in (4, 8, 16, 32)) + tuple(f"fpn, stride {s}" for s in (4, 8, 16))
TOLERANCE = 1e-5  # of an output's largest value, in float32


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
    """One random image of each size (y, x) through both."""
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


def worst(differences: Iterable[Difference]) -> Difference:
    """NaN counts as the worst of all."""
    return max(differences, key=lambda d: float("inf") if np.isnan(d.relative) else d.relative)


def table(differences: Iterable[Difference]) -> str:
    rows = [f"{'size (y x x)':>12}  {'output':<18}{'largest value':>14}{'abs. diff.':>12}{'rel. diff.':>12}"]
    rows += [
        f"{d.y:>5} x {d.x:<5} {d.output:<18}{d.largest_value:>14.3g}{d.absolute:>12.1e}{d.relative:>12.1e}"
        for d in differences
    ]
    return "\n".join(rows)
