"""Draws pictures of a training: a sample with both maps, and the curves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from emsam_jax.config import Config
from emsam_jax.data import Batch
from emsam_jax.inference import without_prior
from emsam_jax.model import Params, jit, merge_fgnet
from emsam_jax.training.metrics import is_validation, read_rows
from emsam_jax.training.sharding import everywhere

Section = Float[np.ndarray, "y x"]
_PLANE = (1, 2)  # affinities along y and x, whose mean shows the borders


class Sample(NamedTuple):
    """One patch with its truth and both maps, as affinities in [0, 1]."""

    raw: Float[np.ndarray, "z y x 1"]
    truth: Float[np.ndarray, "z y x c"]
    coarse: Float[np.ndarray, "z y x c"] | None
    refined: Float[np.ndarray, "z y x c"]


def compose(sample: Sample) -> UInt8[np.ndarray, "height width"]:
    """Composes raw, truth, coarse and refined affinities of the middle section, side by side."""
    tiles = list(_tiles(sample).values())
    gap = np.ones((tiles[0].shape[0], 2))
    row = np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)
    return (np.clip(row, 0, 1) * 255).round().astype(np.uint8)


def save_sample(sample: Sample, path: Path, title: str) -> None:
    """Saves the same with captions, each section 4 inches wide."""
    from matplotlib.figure import Figure

    path.parent.mkdir(exist_ok=True)
    tiles = _tiles(sample)
    figure = Figure(figsize=(4 * len(tiles), 4.6), layout="constrained")
    figure.suptitle(f"{title}, middle section")
    for axes, (caption, tile) in zip(figure.subplots(1, len(tiles)), tiles.items(), strict=True):
        axes.imshow(tile, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(caption)
        axes.set_axis_off()
    figure.savefig(path, dpi=100)


def _tiles(sample: Sample) -> dict[str, Section]:
    middle = len(sample.raw) // 2
    maps = {
        "true affinities (grey: unknown)": sample.truth,
        "coarse affinities": sample.coarse,
        "refined affinities": sample.refined,
    }
    shown = {caption: a[middle][..., _PLANE].mean(-1) for caption, a in maps.items() if a is not None}
    return {"raw": sample.raw[middle, ..., 0], **shown}


def draw_curves(metrics: Path, path: Path) -> None:
    """Draws losses by step, smoothed where there are many, and validation scores."""
    from matplotlib.figure import Figure

    rows = read_rows(metrics)
    losses = [row for row in rows if row.get("loss") is not None]
    scores = [row for row in rows if is_validation(row)]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("loss_refined", "loss_coarse"):
        points = [(row["step"], row[name]) for row in losses if row.get(name) is not None]
        if points:
            steps, values = np.array(points, float).T
            left.plot(steps, values, alpha=0.3)
            left.plot(steps, _smoothed(values), color=left.lines[-1].get_color(), label=name.removeprefix("loss_"))
            left.legend()
    left.set(xlabel="step", ylabel="loss")
    for name in sorted({name for row in scores for name in row if name.startswith("validation_")}):
        points = [(row["step"], row[name]) for row in scores if isinstance(row.get(name), int | float)]
        if points and name.removeprefix("validation_") in ("voi", "voi_split", "voi_merge", "arand"):
            right.plot(*zip(*points, strict=True), marker="o", label=name.removeprefix("validation_"))
            right.legend()
    right.set(xlabel="step", ylabel="validation (VOI in bits)")
    figure.savefig(path, dpi=100)


def _smoothed(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    width = max(len(values) // 20, 1)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def make_sampler(config: Config, mesh: Mesh, prior: Sequence[float]) -> Callable[[Params, Params, Batch], Sample]:
    """Returns a function for all processes that predicts a sample, with affinities as prediction gives them."""

    def first(params: Params, frozen: Params, batch: Batch) -> Sample:
        one = jax.tree.map(lambda rows: rows[:1], batch)
        maps = without_prior(merge_fgnet(config.model, params, frozen)(one.raw), np.asarray(prior, np.float32))
        # What nobody labelled is grey.
        truth: Any = jax.numpy.where(one.valid, one.affinities, 0.5)
        coarse: Any = None if maps.coarse is None else jax.nn.sigmoid(maps.coarse)[0]
        raw: Any = one.raw[0]
        refined: Any = jax.nn.sigmoid(maps.refined)[0]
        return Sample(raw, truth[0], coarse, refined)

    compiled = jit(first, out_shardings=everywhere(mesh))
    return lambda params, frozen, batch: jax.tree.map(np.asarray, compiled(params, frozen, batch))
