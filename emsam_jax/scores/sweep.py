"""Scores over thresholds, as rows, as text and as a plot."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from matplotlib.figure import Figure

from emsam_jax.scores.measures import SCORE_NAMES
from emsam_jax.scores.score import score_segmentation

Rows = list[dict[str, Any]]


def sweep_thresholds(
    thresholds: Sequence[float],
    segmentations: Iterable[Integer[np.ndarray, "z y x"]],
    truth: Integer[np.ndarray, "z y x"],
    **options: Any,
) -> Rows:
    """A row of scores for each threshold and its labels; `options` are those of `score_segmentation`."""
    rows = []
    for threshold, labels in zip(thresholds, segmentations, strict=True):
        scores = score_segmentation(labels, truth, **options)
        row = {name: scores[name] for name in (*SCORE_NAMES, "segments")}
        rows.append({"threshold": float(threshold), **row})
    return rows


def format_sweep(rows: Rows) -> str:
    """A table of fixed width, one line a threshold."""
    columns = list(rows[0]) if rows else []
    cells = [columns, *([_format(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def plot_sweeps(sweeps: Mapping[str, Rows], path: str | Path) -> None:
    """VOI split against merge, and adapted Rand error and the largest segment's share against the threshold."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    plane, lines = figure.subplots(1, 2)
    shares = lines.twinx()
    for name, rows in sweeps.items():
        defined = [row for row in rows if row["voi"] is not None]
        thresholds, split, merge, arand, share = (
            [row[key] for row in defined]
            for key in ("threshold", "voi_split", "voi_merge", "arand", "largest_segment_share")
        )
        if defined:
            best = min(defined, key=lambda row: row["voi"])
            name = f"{name}: {best['voi']:.3f} at {best['threshold']:g}"  # noqa: PLW2901
        (curve,) = plane.plot(merge, split, marker="o", markersize=4, label=name)
        lines.plot(thresholds, arand, marker="o", markersize=4, color=curve.get_color(), label=name)
        shares.plot(thresholds, share, linestyle=":", color=curve.get_color())
    plane.set(xlabel="VOI merge (bits)", ylabel="VOI split (bits)", title="lowest sum of both, and its threshold")
    lines.set(xlabel="threshold", ylabel="adapted Rand error", title="dotted: share of the largest segment")
    shares.set(ylabel="share of the largest segment", ylim=(0, 1))
    for axes in (plane, lines):
        axes.grid(alpha=0.3)
        axes.legend()
    plane.set(xlim=(0, None), ylim=(0, None))
    figure.savefig(path)


def _format(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
