"""One volume with its segmentation, to be drawn."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer


@dataclasses.dataclass(frozen=True, eq=False)
class Exhibit:
    raw: Float[np.ndarray, "z y x"]  # 0 to 1
    labels: Integer[np.ndarray, "z y x"]
    truth: Integer[np.ndarray, "z y x"]  # 0: background, or unlabelled
    labelled: Bool[np.ndarray, "z y x"]
    affinities: Float32[np.ndarray, "3 z y x"] | None  # short channels z, y, x
    worst: dict[str, Any]  # as `report_segmentation` lists them
    voxel_size_zyx: tuple[float, float, float]  # nm
    start_zyx: tuple[int, int, int]  # of the box in the raw: places are told in the raw's voxels
