"""What the classes' weights do to a model that is free to say what it finds, and what is left without the prior."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emsam_jax.config import LossConfig
from emsam_jax.data import Batch, make_augment
from emsam_jax.inference import without_prior
from emsam_jax.model import Maps
from emsam_jax.training.losses import class_weights, loss_of_maps, mean_share, prior_of, shares_of
from emsam_jax.training.sharding import make_mesh
from emsam_jax.training.stream import Stream, make_target

SHARES = np.array([[0.96, 0.6], [0.5, 0.05], [0.8, 0.99]])  # of affinities that are 1, by region and channel
SHAPE = (16, 3, 32, 32, 2)  # b z y x c; a region is a section


@pytest.fixture(scope="module")
def toy() -> Batch:
    rng = np.random.default_rng(0)
    truth = rng.random(SHAPE) < SHARES[None, :, None, None]
    valid = np.broadcast_to(rng.random(SHAPE[1:]) < 0.8, SHAPE)
    return Batch(jnp.zeros((*SHAPE[:-1], 1)), jnp.asarray(truth, jnp.float32), jnp.asarray(valid))


@pytest.mark.parametrize(
    ("config", "tolerance"),
    [
        (LossConfig(), 1e-3),
        (LossConfig(max_weight=1.5), 1e-3),
        (LossConfig(balance="none"), 1e-3),
        (LossConfig(balance="sample"), 0.01),  # whose weights differ from sample to sample
    ],
)
def test_without_the_prior_an_affinity_is_a_share(toy, config, tolerance):
    """A bias for each region and channel, trained by the real loss, against the labels counted."""
    known = np.asarray(toy.valid)
    ones = known & (np.asarray(toy.affinities) > 0)
    counts = np.stack([known.sum((1, 2, 3)), ones.sum((1, 2, 3))], 1)
    shares = shares_of(counts)
    weights = class_weights(mean_share(shares), config)

    def maps_of(biases):
        return Maps(None, jnp.broadcast_to(biases[None, :, None, None], SHAPE))

    optimizer = optax.adam(optax.cosine_decay_schedule(0.3, 200))
    gradient = jax.grad(lambda biases: loss_of_maps(maps_of(biases), toy, config, weights)[0])

    def step(_, state):
        biases, moments = state
        updates, moments = optimizer.update(gradient(biases), moments)
        return biases + updates, moments

    start = jnp.zeros(SHARES.shape)
    biases, _ = jax.jit(lambda state: jax.lax.fori_loop(0, 200, step, state))((start, optimizer.init(start)))
    prior = np.asarray(prior_of(shares, config), np.float32)
    found = jax.nn.sigmoid(without_prior(maps_of(biases), prior).refined)[0, :, 0, 0]
    expected = ones.sum((0, 2, 3)) / known.sum((0, 2, 3))
    np.testing.assert_allclose(found, expected, atol=tolerance)
    if config.balance != "none":  # which the tolerance could tell
        assert np.abs(jax.nn.sigmoid(biases) - expected).max() > 0.1


def test_weights_by_hand():
    """Two samples of 100 known affinities; in a third, nobody knows any."""
    counts = np.array([[[100, 100], [90, 40]], [[100, 100], [70, 60]], [[0, 100], [0, 50]]])
    shares = shares_of(counts)
    assert mean_share(shares) == pytest.approx([0.8, 0.5])
    weights = class_weights((0.8, 0.5), LossConfig())
    assert weights is not None
    assert weights.positive == pytest.approx([0.625, 1])
    assert weights.negative == pytest.approx([2.5, 1])
    capped = class_weights((1.0, 0.5), LossConfig(max_weight=4.0))
    assert capped is not None
    assert capped.negative == pytest.approx([4, 1])
    assert prior_of(shares, LossConfig()) == pytest.approx([np.log(0.625 / 2.5), 0])
    assert prior_of(shares, LossConfig(balance="none")) == pytest.approx([0, 0])
    assert mean_share(shares_of(counts[2:, :, :1])) == (0.5,)


@pytest.mark.slow
def test_shares_are_those_of_the_stream(make_config):
    """Of its first samples, as training sees them; on any devices the same to the bit."""
    config = make_config("optim.batch=8")
    stream = Stream(config)
    measured = stream.measure(make_mesh(1, jax.devices()[:1]))
    assert measured == Stream(config).measure(make_mesh(1, jax.devices()))
    augment = make_augment(make_target(config), config.data.augmentation, config.seed)
    batch = augment(jax.tree.map(lambda *rows: np.stack(rows), *[stream._source[i] for i in range(32)]))
    known = np.asarray(batch.valid).reshape(32, -1, 3)
    ones = (np.asarray(batch.affinities).reshape(known.shape) * known).sum(1)
    np.testing.assert_allclose(measured.positives, (ones / known.sum(1)).mean(0), rtol=1e-6)
