"""Feature-guided attention against its formula in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emsam_jax.model import flat_state, max_pool
from emsam_jax.model.guided_attention import GuidedAttention
from emsam_jax.model.layers import mean_pool, upsample

KINDS = ("attention", "one_gate", "uncertainty", "concat")
FINE, SEEN = 6, 4  # channels


def build(kind) -> GuidedAttention:
    return GuidedAttention(FINE, SEEN, kind, groups=2, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = (2, 3, 8, 4, FINE), (2, 3, 4, 2, SEEN), (2, 3, 8, 4, 1)
    fine, guide, uncertainty = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    return fine, guide, uncertainty


def doubled(x: np.ndarray, axis: int) -> np.ndarray:
    """Linear: np.interp between the centres of voxels, the outermost repeated."""
    n = x.shape[axis]
    at = (np.arange(2 * n) + 0.5) / 2 - 0.5
    return np.apply_along_axis(lambda line: np.interp(at, np.arange(n), line), axis, x)


def larger(x: np.ndarray) -> np.ndarray:
    return doubled(doubled(x, 2), 3)


def by_formula(kind: str, p: dict[str, np.ndarray], fine: np.ndarray, guide: np.ndarray, uncertainty: np.ndarray):
    def normalised(name: str, x: np.ndarray, groups: int = 2) -> np.ndarray:
        y = x @ p[f"{name}.conv.kernel"][0, 0, 0]
        grouped = y.reshape(*y.shape[:4], groups, -1)
        mean, variance = (f(grouped, axis=(1, 2, 3, 5), keepdims=True) for f in (np.mean, np.var))
        y = ((grouped - mean) / np.sqrt(variance + 1e-6)).reshape(y.shape)
        return y * p[f"{name}.norm.scale"] + p[f"{name}.norm.bias"]

    if kind == "concat":
        return fine + normalised("joined", np.concatenate([fine, larger(guide)], -1))
    seen = uncertainty if kind == "uncertainty" else guide
    gate = 2 / (1 + np.exp(-normalised("gate", seen, 1 if kind == "one_gate" else 2)))
    gate = gate if kind == "uncertainty" else larger(gate)
    return (fine + normalised("fine", fine)) * gate + larger(normalised("added", guide))


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_the_identity_and_follows_its_formula(kind, inputs):
    module = build(kind)
    run = jax.jit(lambda module, *inputs: module(*inputs))
    np.testing.assert_array_equal(run(module, *inputs), inputs[0])
    rng, params = np.random.default_rng(1), {}
    for name, leaf in flat_state(module).items():
        params[name] = rng.normal(size=leaf.shape)
        leaf[...] = jnp.asarray(params[name], jnp.float32)
    expected = by_formula(kind, params, *(np.asarray(a, np.float64) for a in inputs))
    np.testing.assert_allclose(run(module, *inputs), expected, atol=2e-4)


def test_enlarging_is_linear_between_centres_and_pooling_is_numpys():
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 2, 2))
    enlarged = upsample(jnp.asarray(x, jnp.float32), (2, 1, 4))
    np.testing.assert_allclose(enlarged, doubled(doubled(doubled(x, 1), 3), 3), atol=1e-6)
    blocks = np.asarray(enlarged).reshape(1, 3, 2, 2, 2, 4, 2, 2)
    np.testing.assert_array_equal(max_pool(enlarged, (2, 2, 2)), blocks.reshape(1, 3, 2, 2, 2, 4, 2, 2).max((2, 4, 6)))
    np.testing.assert_allclose(mean_pool(enlarged, (2, 2, 2)), blocks.mean((2, 4, 6)), atol=1e-6)
