"""The body of `emsam segment`: volumes of any size to neurons, predicted and segmented block by block."""

from emsam_jax.segment_volume.forecast import forecast_run
from emsam_jax.segment_volume.request import SegmentationRequest
from emsam_jax.segment_volume.run import describe_run, segment_volume

__all__ = ["SegmentationRequest", "describe_run", "forecast_run", "segment_volume"]
