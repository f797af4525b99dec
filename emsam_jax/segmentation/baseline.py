"""What no network at all can do: bright is inside, dark is a border."""

import numpy as np
from bioimage_cpp.filters import gaussian_smoothing
from jaxtyping import Float32, Shaped

from emsam_jax.segmentation.fragments import FragmentParameters
from emsam_jax.segmentation.recipe import Recipe


def intensity_affinities(
    raw: Shaped[np.ndarray, "z y x"], *, isotropic: bool, sigma: float = 1.0
) -> Float32[np.ndarray, "3 z y x"]:
    """Smoothed grey values, as shares of the type's largest, as the affinity of all three channels."""
    grey = raw.astype(np.float32)
    if raw.dtype.kind in "iu":
        grey /= np.iinfo(raw.dtype).max
    if isotropic:
        smooth = gaussian_smoothing(grey, sigma)
    else:
        smooth = np.stack([gaussian_smoothing(section, sigma) for section in grey])
    return np.stack([np.clip(smooth, 0, 1)] * 3)


def baseline_recipe(*, isotropic: bool) -> Recipe:
    """Fragments are cut in 3D where voxels are isotropic, else in each section."""
    return Recipe(fragments=FragmentParameters(kind="3d" if isotropic else "2d", seed_distance=4), scorer="q50_max")
