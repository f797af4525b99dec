"""Filters of raw against another library's, and against numpy's eigenvalues."""

import jax.numpy as jnp
import numpy as np
import pytest
from bioimage_cpp.filters import (
    gaussian_gradient_magnitude,
    gaussian_smoothing,
    hessian_of_gaussian_eigenvalues,
    laplacian_of_gaussian,
    structure_tensor_eigenvalues,
)
from flax import nnx

from emsam_jax.model.filter_bank import SIGMAS, count_filters, filter_raw
from emsam_jax.model.fine_encoder import FilteredStem


@pytest.mark.parametrize("axes", [(1, 2, 3), (2, 3)])
def test_filters_are_those_of_another_library(axes: tuple[int, ...]):
    """Far from faces, where theirs are cut off otherwise, and up to a factor: they norm derivatives in another way."""
    raw = gaussian_smoothing(np.random.default_rng(0).random((48, 48, 48)).astype(np.float32), 1.0)
    found = np.moveaxis(np.asarray(filter_raw(jnp.asarray(raw)[None], axes))[0], 0, -1)
    expected = _by_volume(raw) if len(axes) == 3 else np.stack([_by_volume(section) for section in raw])
    assert found.shape[-1] == count_filters(axes) == expected.shape[-1]
    far = (slice(18, -18),) * 3
    for index in range(count_filters(axes)):
        ours, theirs = found[far][..., index], expected[far][..., index]
        slope, offset = np.polyfit(theirs.ravel(), ours.ravel(), 1)
        assert 0.7 < slope < 1.01
        np.testing.assert_allclose(ours, slope * theirs + offset, atol=0.05 * ours.std())


@pytest.mark.parametrize("axes", [(1, 2, 3), (2, 3)])
def test_the_stem_sees_each_filter_at_the_same_scale(axes: tuple[int, ...]):
    """Whatever the contrast of raw."""
    raw = jnp.asarray(np.random.default_rng(0).random((2, 16, 20, 24)), jnp.float32)
    stem = FilteredStem(axes, 4, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))
    filtered = np.moveaxis(np.asarray(filter_raw(raw, axes), np.float64), 1, -1)
    centred = filtered - filtered.mean((1, 2, 3), keepdims=True)
    mixed = centred / centred.std((1, 2, 3), keepdims=True) @ np.asarray(stem.first.kernel[...], np.float64)
    expected = np.where(mixed > 0, mixed, np.expm1(mixed)) @ np.asarray(stem.second.kernel[...])
    np.testing.assert_allclose(stem(raw), expected, atol=5e-3)
    np.testing.assert_allclose(stem(raw / 2), stem(raw), atol=5e-3)


def _by_volume(raw: np.ndarray) -> np.ndarray:
    columns = []
    for sigma in SIGMAS:
        columns += [f(raw, sigma) for f in (gaussian_smoothing, gaussian_gradient_magnitude, laplacian_of_gaussian)]
        hessian = hessian_of_gaussian_eigenvalues(raw, sigma)
        tensor = structure_tensor_eigenvalues(raw, sigma / 2, sigma)
        columns += [values[..., i] for values in (hessian, tensor) for i in range(raw.ndim)]
    return np.stack(columns, -1)
