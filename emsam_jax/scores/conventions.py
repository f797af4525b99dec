"""What is compared, and under which names; every result carries it."""

import dataclasses
from typing import Any

from emsam_jax.scores.contingency import ScoreError

_UNSEGMENTED = ("object", "ignore", "singletons")
_PLANES = ("2d", "3d")


@dataclasses.dataclass(frozen=True)
class Conventions:
    """The defaults are the field's: truth label 0 left out, all else counted."""

    ignore_truth: tuple[int, ...] = (0,)  # ids of the truth whose voxels are left out
    unsegmented: str = "object"  # voxels of segment 0: one "object", "ignore"d, or "singletons", each by itself
    border: int = 0  # voxels left out on each side of a border of the truth
    border_plane: str = "3d"  # borders seen in 3D, or section by section (CREMI: 2d)
    margin_zyx: tuple[int, int, int] = (0, 0, 0)  # voxels left out at each face of the volume

    def __post_init__(self) -> None:
        if self.unsegmented not in _UNSEGMENTED:
            raise ScoreError(f"`unsegmented` must be one of {', '.join(_UNSEGMENTED)}, but is {self.unsegmented!r}.")
        if self.border_plane not in _PLANES:
            raise ScoreError(f"`border_plane` must be one of {', '.join(_PLANES)}, but is {self.border_plane!r}.")
        if self.border < 0 or min(self.margin_zyx) < 0:
            raise ScoreError(
                f"`border` and `margin_zyx` are voxels from 0 up, but are {self.border} and {self.margin_zyx}."
            )

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **dataclasses.asdict(self),
            "ignore_truth": [int(i) for i in self.ignore_truth],
            "margin_zyx": list(self.margin_zyx),
            "voi": "bits; split = H(labels | truth), merge = H(truth | labels)",
            "rand": "ordered pairs of different voxels; precision of the pairs in labels, recall of those in truth",
            "cremi_score": "sqrt(voi * arand)",
        }
