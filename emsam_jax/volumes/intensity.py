"""Which raw values become 0 and 1."""

from collections.abc import Iterator

import numpy as np

from emsam_jax.volumes.box import Box, box_of
from emsam_jax.volumes.declared import Intensity
from emsam_jax.volumes.errors import VolumeError
from emsam_jax.volumes.volume import Volume

_SAMPLE_SIDE, _SAMPLES = 32, 4  # percentiles come from 4 x 4 x 4 boxes of 32 voxels a side


def intensity_range(raw: Volume, intensity: Intensity, region: Box) -> tuple[float, float]:
    """Declared values, or the percentiles of boxes spread evenly over the region."""
    low, high = intensity.low, intensity.high
    if intensity.percentiles:
        sample = np.concatenate([raw.read(box).ravel() for box in _spread(region)]).astype(np.float32)
        low, high = (float(value) for value in np.percentile(sample, [intensity.low, intensity.high]))
    elif high <= low:
        high = float(np.iinfo(raw.dtype).max) if np.issubdtype(raw.dtype, np.integer) else 1.0
    if not low < high:
        raise VolumeError(f"{raw.url}: expected an intensity range, found {low:g} to {high:g}; declare other bounds.")
    return low, high


def _spread(region: Box) -> Iterator[Box]:
    starts = []
    for first, last in zip(region.start, region.stop, strict=True):
        starts.append(sorted({int(s) for s in np.linspace(first, max(first, last - _SAMPLE_SIDE), _SAMPLES)}))
    z, y, x = (min(_SAMPLE_SIDE, side) for side in region.shape)
    for at in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3).tolist():
        yield box_of((z, y, x)).shifted((at[0], at[1], at[2]))
