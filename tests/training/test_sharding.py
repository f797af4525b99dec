"""The same run on one device and on eight, in every shape of the mesh."""

import math
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

from emsam_jax.config import Config
from emsam_jax.data import Batch
from emsam_jax.errors import UserError
from emsam_jax.model import by_platform
from emsam_jax.targets.program import read_program
from emsam_jax.training import sharding, step
from emsam_jax.training.plan import compile_step
from emsam_jax.training.sharding import FSDP, abstract, check_batch, gather, make_mesh, over_devices
from emsam_jax.training.state import TrainState, abstract_state, new_state
from emsam_jax.training.step import compile_train_step
from emsam_jax.training.stream import Stream, abstract_batch

STEPS = 5
OVERRIDES = ("optim.batch=8", "model.channels=(16,)", "data.patch=2,32,32", "loss.dice=0.5")


@pytest.fixture(scope="module")
def batches(make_config) -> list[Batch]:
    config = make_config(*OVERRIDES)
    stream = Stream(config).batches(make_mesh(1, jax.devices()[:1]), 0)
    return [jax.device_get(batch) for _, batch in zip(range(STEPS), stream, strict=False)]


def run(config: Config, devices: list[Any], batches: list[Batch]) -> tuple[list[float], TrainState, TrainState]:
    """Losses of the steps, and the first and the last state."""
    mesh = make_mesh(config.fsdp, devices)
    state, frozen = new_state(config, mesh)
    first = jax.tree.map(np.asarray, state)
    train_step = compile_train_step(config, mesh, state)
    losses = []
    for batch in batches:
        state, metrics = train_step(state, frozen, jax.device_put(batch, over_devices(mesh)))
        losses.append(float(metrics["loss"]))
    return losses, first, state


@pytest.fixture(scope="module")
def alone(make_config, batches):
    return run(make_config(*OVERRIDES), jax.devices()[:1], batches)


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch):
    """A test's models are small, and would be replicated."""
    monkeypatch.setattr(sharding, "SHARD_FROM", 2**12)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("fsdp", [*(pytest.param(fsdp, marks=pytest.mark.slow) for fsdp in (1, 2, 4)), 8])
def test_every_mesh_trains_alike(make_config, alone, batches, fsdp):
    losses, first, state = run(make_config(*OVERRIDES, f"fsdp={fsdp}"), jax.devices(), batches)
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
    assert losses[-1] < 0.95 * losses[0]
    for name, value in gather(state.params).items():
        np.testing.assert_allclose(value, alone[2].params[name], atol=1e-5, err_msg=name)
        np.testing.assert_allclose(first.params[name], alone[1].params[name], atol=1e-7)
    largest = max(jax.tree.leaves(state), key=lambda leaf: leaf.size)
    assert {shard.data.size for shard in largest.addressable_shards} == {largest.size // fsdp}
    assert isinstance(largest.sharding, NamedSharding)
    assert largest.sharding.mesh.shape == {"data": 8 // fsdp, "fsdp": fsdp}


@pytest.mark.slow
@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize(
    ("fsdp", "counts"),
    [(1, {"all-reduce": 1}), (8, {"all-reduce": 3, "all-gather": 6}), (2, {"all-reduce": 5, "all-gather": 6})],
)
def test_gradients_are_reduced_once_and_only_parameters_are_gathered(make_config, monkeypatch, fsdp, counts):
    """In the accelerators' form of the layers: bytes of the collectives beside those of the parameters."""
    for module in (by_platform, step):
        monkeypatch.setattr(module, "platform_dependent", lambda *arguments, cpu, default: default(*arguments))
    jax.clear_caches()  # of the layers' other form
    config = make_config(*OVERRIDES, f"fsdp={fsdp}")
    mesh = make_mesh(fsdp, jax.devices())
    params = jax.tree.leaves(abstract_state(config, mesh)[0].params)
    every = sum(4 * leaf.size for leaf in params)
    sharded = sum(4 * leaf.size for leaf in params if FSDP in leaf.sharding.spec)
    found = read_program(compile_step(config, mesh).as_text()).collectives
    jax.clear_caches()
    assert {kind: moved.number for kind, moved in found.items()} == counts
    # Of a sharded parameter's gradient the shards are then summed over `data`; beside gradients go a few scalars.
    shards = sharded // fsdp if 1 < fsdp < mesh.size else 0
    assert every + shards <= found["all-reduce"].bytes < every + shards + 64
    assert fsdp == 1 or found["all-gather"].bytes <= 3 * sharded  # forward, and for both gradients


def test_a_device_holds_its_share_of_the_state(make_config):
    config = make_config("model.encoder.size=tiny", "model.encoder.frozen=false")
    state = abstract_state(config, make_mesh(1, jax.devices()))
    for fsdp in (2, 4, 8):
        leaves = jax.tree.leaves(abstract(make_mesh(fsdp, jax.devices()), state))
        here = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
        # What is small is replicated: a part of the encoder's first stages, and all that is not the encoder.
        assert 1 / fsdp < here / sum(leaf.size for leaf in leaves) < 1 / fsdp + 0.15


@pytest.mark.usefixtures("everything_is_large")
def test_an_encoder_is_spread_and_its_windows_still_work(make_config):
    config = make_config("model.encoder.size=toy", "optim.batch=8", "fsdp=4")
    mesh = make_mesh(config.fsdp, jax.devices())
    state, frozen = abstract_state(config, mesh)
    kernel = frozen["encoder.trunk.blocks.3.mlp.layers.0.kernel"]
    assert FSDP in kernel.sharding.spec
    assert 4 * math.prod(kernel.sharding.shard_shape(kernel.shape)) == math.prod(kernel.shape)
    batch = jax.tree.map(
        lambda rows: jax.ShapeDtypeStruct(rows.shape, rows.dtype, sharding=over_devices(mesh)), abstract_batch(config)
    )
    _, metrics = jax.eval_shape(compile_train_step(config, mesh, state), state, frozen, batch)
    assert metrics["loss_coarse"].shape == ()


def test_batches_that_do_not_divide_are_refused_at_once(make_config):
    mesh = make_mesh(2, jax.devices())
    with pytest.raises(UserError, match=r"multiple of the number of devices .*, 8; found 12\. The nearest .* 16\."):
        check_batch(make_config("optim.batch=12"), mesh)
    with pytest.raises(UserError, match=r"accumulate, 16; found 8\."):
        check_batch(make_config("optim.batch=8", "optim.accumulate=2"), mesh)
    with pytest.raises(UserError, match=r"config\.fsdp must divide the number of devices, 8; found 3"):
        make_mesh(3, jax.devices())
