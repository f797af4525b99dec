"""Windows on one grid over space, anchored at the volume's first voxel; and their weights. Numpy only.

A region of interest asks for the windows that touch it, and those are the same whoever asks: it never changes an
affinity. Windows reach beyond the volume, where it is reflected, so that every voxel lies in as many of them.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from emsam_jax.volumes.box import Voxel

_SIGMA = 0.2  # of the Gaussian, where the window is [-1, 1]


@dataclasses.dataclass(frozen=True)
class Grid:
    window: Voxel
    stride: Voxel

    def starts(self, axis: int, first: int, last: int) -> range:
        """Of the windows that touch [first, last)."""
        window, stride = self.window[axis], self.stride[axis]
        return range(((first - window) // stride + 1) * stride, last, stride)

    def span(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """From the first voxel of those windows to behind their last."""
        starts = self.starts(axis, first, last)
        return starts[0], starts[-1] + self.window[axis]

    def gaussian(self, offset: Voxel) -> Float[np.ndarray, "z y x"]:
        """At the middle of the edge from each voxel to the one at this offset, so that it is the same seen in a
        mirror, where the edge is the other voxel's.
        """
        sides = []
        for n, step in zip(self.window, offset, strict=True):
            places = (2 * np.arange(n) + step + 1) / n - 1  # the window is [-1, 1]
            sides.append(np.exp(-0.5 * (places / _SIGMA) ** 2))
        return sides[0][:, None, None] * sides[1][:, None] * sides[2]

    def holds_both(self, offset: Voxel) -> Bool[np.ndarray, "z y x"]:
        """Where in a window the voxel that the offset leads to lies in it too."""
        partners = [np.arange(side) + step for side, step in zip(self.window, offset, strict=True)]
        z, y, x = ((at >= 0) & (at < side) for at, side in zip(partners, self.window, strict=True))
        return z[:, None, None] & y[:, None] & x

    def over_windows(self, weights: Float[np.ndarray, "z y x"]) -> Float[np.ndarray, "z y x"]:
        """What the weights of all windows over a voxel sum up to, for each voxel of one window."""
        total = weights
        for axis, (side, stride) in enumerate(zip(self.window, self.stride, strict=True)):
            padded = np.moveaxis(total, axis, 0)
            padded = np.concatenate([padded, np.zeros((-side % stride, *padded.shape[1:]))])
            summed = padded.reshape(-1, stride, *padded.shape[1:]).sum(0)
            total = np.moveaxis(summed[np.arange(side) % stride], 0, axis)
        return total
