"""Agglomeration of fragments by waterz."""

import contextlib
import ctypes
import io
import os
import threading
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import waterz
from jaxtyping import Float32, UInt64

from emsam_jax.errors import UserError
from emsam_jax.segmentation.cleaning import compact

_stdout_lock = threading.Lock()
_libc = ctypes.CDLL(None)


def _quantile(percent: int, init_with_max: str) -> str:
    return f"OneMinus<HistogramQuantileAffinity<RegionGraphType, {percent}, ScoreValue, 256, {init_with_max}>>"


# What waterz's wheels have compiled; "_max" starts an edge's histogram from its largest affinity.
SCORERS = {
    "mean": "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>",
    **{f"q{percent}": _quantile(percent, "false") for percent in range(10, 100, 5)},
    **{f"q{percent}_max": _quantile(percent, "true") for percent in range(10, 100, 5)},
}


def check_scorer(scorer: str) -> str:
    """Returns waterz's name of a scorer; any other would have to be compiled on the user's machine."""
    if scorer not in SCORERS:
        raise UserError(
            f"waterz would need a compiler for the scorer {scorer!r}; built in are mean, and the quantiles "
            f"{', '.join(name for name in SCORERS if name != 'mean' and not name.endswith('_max'))}, "
            "each also with _max."
        )
    return SCORERS[scorer]


def queue_bins(scorer: str) -> int:
    """Returns the bins of waterz's queue: as many as a quantile's histogram has; none for means, in exact order."""
    return 0 if scorer == "mean" else 256


def agglomerate(
    affinities: Float32[np.ndarray, "c z y x"],
    fragments: UInt64[np.ndarray, "z y x"],
    thresholds: Sequence[float],
    scorer: str = "mean",
) -> Iterator[UInt64[np.ndarray, "z y x"]]:
    """Yields compact labels for each of the increasing thresholds, in one pass.

    The fragments have compact ids, since waterz's memory grows with the largest one; they are overwritten.
    """
    for step, merged in enumerate(merge_fragments(affinities, fragments, thresholds, scorer), 1):
        # waterz merges on in the same buffer: all but the last result are copies.
        yield compact(merged, out=merged if step == len(thresholds) else np.empty_like(merged))


def merge_fragments(
    affinities: Float32[np.ndarray, "c z y x"],
    fragments: UInt64[np.ndarray, "z y x"],
    thresholds: Sequence[float],
    scorer: str = "mean",
) -> Iterator[UInt64[np.ndarray, "z y x"]]:
    """Yields the fragments, merged further each time; a segment has the id of one of its fragments."""
    name = check_scorer(scorer)
    merging = waterz.agglomerate(
        affinities[:3],
        list(thresholds),
        fragments=fragments,
        scoring_function=name,
        discretize_queue=queue_bins(scorer),
    )
    for _ in thresholds:
        with _quiet():
            merged = cast(np.ndarray, next(merging))
        yield merged


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Sends standard output nowhere, Python's and C's: waterz reports its progress there and offers no switch.

    It holds the interpreter's lock while it runs, so hardly anything else can be lost.
    """
    with _stdout_lock, contextlib.redirect_stdout(io.StringIO()):
        _libc.fflush(None)
        saved = os.dup(1)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 1)
            yield
            _libc.fflush(None)  # what C has buffered must not come out later
        finally:
            os.dup2(saved, 1)
            os.close(nowhere)
            os.close(saved)
