"""One step, against what its parts say by themselves."""

import dataclasses
import functools
import importlib.util
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from emsam_jax.config import LossConfig, OptimConfig
from emsam_jax.configs import demo
from emsam_jax.data import Batch
from emsam_jax.model import FGNet, Maps, merge_fgnet, split_fgnet
from emsam_jax.targets import COMPILER_OPTIONS, devices_of, parse_target
from emsam_jax.targets.program import read_program
from emsam_jax.training.losses import ClassWeights, balanced_cross_entropy, boundary_dice, loss_of_maps
from emsam_jax.training.optimizer import optim_of, relative_rates, schedule
from emsam_jax.training.plan import compile_step
from emsam_jax.training.sharding import make_mesh
from emsam_jax.training.state import abstract_state, create_state
from emsam_jax.training.step import compile_train_step, update_by_branch, update_by_selection
from emsam_jax.training.stream import abstract_batch

SHAPE = (2, 4, 16, 16)
EVEN = ClassWeights((1.0,) * 4, (1.0,) * 4)


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(0)
    truth = (rng.random((*SHAPE, 3)) < 0.9).astype(np.float32)
    return Batch(
        jnp.asarray(rng.random((*SHAPE, 1)), jnp.float32),
        jnp.asarray(truth),
        jnp.asarray(rng.random(truth.shape) < 0.8),
    )


def test_both_classes_of_a_channel_count_the_same():
    """Against sums by hand: 12 known voxels, 9 of them 1; the rarer class weighs at most so much."""
    truth = np.ones((1, 1, 4, 4, 1), np.float32)
    truth[0, 0, 0, :3, 0] = 0
    valid = np.ones(truth.shape, bool)
    valid[0, 0, 3] = False
    logits = np.full(truth.shape, 2.0, np.float32)
    one, zero = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    arrays = [jnp.asarray(a) for a in (logits, truth, valid)]
    found = balanced_cross_entropy(*arrays, max_weight=10.0)
    np.testing.assert_allclose(found, (one + zero) / 2, rtol=1e-6)
    capped = balanced_cross_entropy(*arrays, max_weight=1.5)
    np.testing.assert_allclose(capped, (9 * 12 / 18 * one + 3 * 1.5 * zero) / 12, rtol=1e-6)
    wrong = logits.copy()
    wrong[~valid] = -50  # nobody knows whether that is wrong
    np.testing.assert_allclose(balanced_cross_entropy(jnp.asarray(wrong), *arrays[1:], max_weight=10.0), found)


def test_dice_of_the_boundary():
    truth = np.ones((1, 1, 10, 10, 1), np.float32)
    truth[0, 0, 5] = 0
    valid = jnp.ones(truth.shape, bool)
    perfect = boundary_dice(jnp.asarray(np.where(truth, 30.0, -30.0), jnp.float32), jnp.asarray(truth), valid)
    np.testing.assert_allclose(perfect, 0, atol=1e-6)
    missed = boundary_dice(jnp.full(truth.shape, 30.0), jnp.asarray(truth), valid)
    np.testing.assert_allclose(missed, 1 - 1 / 11, rtol=1e-6)


def test_the_coarse_map_is_weighed(batch):
    maps = Maps(jnp.ones((*SHAPE, 3)), jnp.zeros((*SHAPE, 3)))
    config = LossConfig(coarse=0.25)
    loss, parts = loss_of_maps(maps, batch, config)
    np.testing.assert_allclose(loss, parts["refined"] + 0.25 * parts["coarse"], rtol=1e-6)
    alone, parts = loss_of_maps(Maps(None, maps.refined), batch, config)
    assert parts.keys() == {"refined"}
    np.testing.assert_allclose(alone, parts["refined"])


def test_long_channels_count_less():
    """Against the weighted mean by hand: neighbours are right with a probability of 1/2, channel 4 of 1/10."""
    shape = (2, 4, 4, 4, 4)
    logits = jnp.zeros(shape).at[..., 3].set(jnp.log(9.0))
    batch = Batch(jnp.zeros((*shape[:4], 1)), jnp.zeros(shape), jnp.ones(shape, bool))
    for weight in (0.0, 0.25, 1.0):
        loss, _ = loss_of_maps(Maps(None, logits), batch, LossConfig(balance="none", long_weight=weight), EVEN)
        expected = (3 * np.log(2) + weight * np.log(10)) / (3 + weight)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_rates_of_new_and_pre_trained_parts():
    names = [
        "encoder.trunk.patch_embed",
        "encoder.trunk.blocks.0.q",
        "encoder.trunk.blocks.2.q",
        "encoder.neck.a",
        "new",
    ]
    params = {name: jnp.ones((2, 2)) for name in names}
    config = OptimConfig(peak_lr=1e-2, encoder_lr=1e-4, layer_decay=0.5)
    expected = dict(zip(names, [0.01 * 0.125, 0.01 * 0.25, 0.01, 0.01, 1.0], strict=True))
    assert relative_rates(config, params) == pytest.approx(expected)


def test_the_schedule():
    rate: Any = schedule(OptimConfig(peak_lr=1.0, warmup=10, steps=110, final_lr=0.1))
    found = [np.asarray(rate(step)) for step in (0, 5, 10, 60, 110, 200)]
    np.testing.assert_allclose(found, [0, 0.5, 1.0, 0.55, 0.1, 0.1], atol=1e-6)


def test_parts_that_come_trained_learn_more_slowly(make_config):
    """Fine-tuning after a frozen run: the encoder keeps its own rate, the other parts never reach their first peak."""
    params = {name: jnp.ones((2, 2)) for name in ("encoder.trunk.blocks.0.q", "decoder")}

    def peaks(*overrides: str) -> list[float]:
        optim = optim_of(make_config("optim.steps=100", "optim.peak_lr=1e-2", "optim.encoder_lr=1e-5", *overrides))
        highest = max(float(np.asarray(schedule(optim)(step))) for step in range(100))
        return [highest * rate for rate in relative_rates(optim, params).values()]

    assert peaks() == pytest.approx([1e-5, 1e-2], rel=1e-5)
    assert peaks("init_from=earlier") == pytest.approx([1e-5, 1e-3], rel=1e-5)
    assert peaks("init_from=earlier", "optim.trained_lr=0.01") == pytest.approx([1e-5, 1e-4], rel=1e-5)


def test_a_step_is_optax_by_hand_and_leaves_out_what_is_no_number(make_config, batch):
    """Accumulated over two parts as over one; a bad batch changes nothing but the counts."""
    config = make_config("optim.warmup=0", "optim.ema=0.5")
    params, _ = split_fgnet(FGNet(config.model, rngs=nnx.Rngs(3)))
    mesh = make_mesh(1, jax.devices()[:1])
    state = jax.device_put(create_state(config, params), jax.devices()[0])
    two = dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=2))
    after_two, metrics_two = compile_train_step(two, mesh, state)(jax.tree.map(jnp.copy, state), {}, batch)
    step = compile_train_step(config, mesh, state)
    after, metrics = step(jax.tree.map(jnp.copy, state), {}, batch)

    def loss_of(params):
        return loss_of_maps(merge_fgnet(config.model, params, {})(batch.raw), batch, config.loss)[0]

    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(params)
    norm = optax.tree.norm(gradients)
    by_hand: Any = optax.chain(
        optax.clip_by_global_norm(config.optim.clip),
        optax.adamw(
            config.optim.peak_lr,
            weight_decay=config.optim.weight_decay,
            mask={name: value.ndim > 1 for name, value in params.items()},
        ),
    )
    updates, _ = by_hand.update(gradients, by_hand.init(params), params)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-4)
    np.testing.assert_allclose(metrics_two["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics_two["gradient_norm"], metrics["gradient_norm"], rtol=1e-4)
    name = "refined_decoder.logits.kernel"
    np.testing.assert_allclose(after.params[name], params[name] + updates[name], atol=1e-6)
    for moment in ("mu", "nu"):  # linear in the gradients, and in their squares
        one, other = (getattr(each.optimizer[0], moment) for each in (after, after_two))
        for place in one:
            np.testing.assert_allclose(other[place], one[place], atol=1e-6, err_msg=place)
    np.testing.assert_allclose(after.ema[name], 0.1 * params[name] + 0.9 * after.params[name], atol=1e-6)

    bad = batch._replace(raw=batch.raw.at[0, 0, 0, 0].set(jnp.nan))
    kept = jax.tree.map(np.asarray, after)
    for number in (1, 2):
        after, metrics = step(after, {}, bad)
        assert (int(after.step), int(after.skipped), int(metrics["skipped_in_row"])) == (1 + number, number, number)
    for expected, found in zip(jax.tree.leaves(kept[1:4]), jax.tree.leaves(after[1:4]), strict=True):
        assert expected.tobytes() == np.asarray(found).tobytes()
    after, metrics = step(after, {}, batch)
    assert (int(after.skipped), int(after.skipped_in_row)) == (2, 0)
    assert not np.array_equal(after.params[name], kept.params[name])


@pytest.mark.slow
def test_frozen_needs_less_memory_than_fine_tuned(make_config):
    """By what the compiler says of a step: the encoder's activations are not kept, nor is any state of it."""

    def measure(frozen: str) -> tuple[int, set[str]]:
        config = make_config("model.encoder.size=toy", f"model.encoder.frozen={frozen}", "data.patch=4,64,64")
        mesh = make_mesh(1, jax.devices()[:1])
        state, encoder = abstract_state(config, mesh)
        assert bool(encoder) is config.model.encoder.frozen
        step = compile_train_step(config, mesh, state).lower(state, encoder, abstract_batch(config))
        kept = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)}
        return step.compile().memory_analysis().temp_size_in_bytes, {name for name in kept if "encoder.trunk" in name}

    frozen, kept = measure("true")
    tuned, kept_tuned = measure("false")
    assert not kept
    assert len(kept_tuned) > 200  # parameters, running mean, and both of Adam's
    assert tuned > 1.3 * frozen


@pytest.mark.parametrize("form", [update_by_branch, update_by_selection])
def test_a_bad_update_is_left_out_on_every_platform(form):
    """Even where it would be NaN; of a branch accelerators copy all that it is given."""

    def update(learned: Any, gradients: Any, scalars: Any) -> Any:
        return jax.tree.map(lambda value: value - scalars["rate"] * gradients["a"], learned)

    def run(good: bool, gradient: float) -> list[float]:
        learned = ({"a": jnp.ones(2)}, jnp.full(2, 2.0), {"a": jnp.full(2, 3.0)})
        given = (jnp.asarray(good), learned, {"a": jnp.full(2, gradient)}, {"rate": jnp.asarray(0.5)})
        found = jax.jit(functools.partial(form, update))(*given)
        return [float(leaf[0]) for leaf in jax.tree.leaves(found)]

    assert run(True, 1.0) == [0.5, 1.5, 2.5]
    assert run(False, float("nan")) == [1.0, 2.0, 3.0]


@pytest.mark.slow
def test_a_step_on_an_h200_transposes_and_copies_little():
    """The demo's: of maps in full resolution only what comes in and the logits; the state keeps its memory."""
    if not importlib.util.find_spec("jax_plugins"):
        pytest.skip("jax_plugins is not installed: pip install 'emsam-jax[gpu]'")
    config = demo.get_config()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="bfloat16"))
    step = compile_step(config, make_mesh(1, devices_of(parse_target("h200"))), COMPILER_OPTIONS["gpu"])
    text = step.as_text()
    assert read_program(text).copies.number < 20
    transposed = [line for line in text.splitlines() if re.match(r"  %\S*transpose\S* = .* (fusion|transpose)\(", line)]
    z, y, x = config.data.patch
    full = [line for line in transposed if re.search(rf",{z},{y},({x}|{x // 2},2)\]", line)]
    assert 0 < len(full) < 10
    assert not [line for line in full if re.search("convolve|normalise|elu|double", line)]
    held = step.memory_analysis()
    assert held.alias_size_in_bytes > 0.99 * held.output_size_in_bytes
