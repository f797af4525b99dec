"""Prediction equals the plain sliding window over the whole volume, whatever blocks, devices and order do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emsam_jax.blocks import plan_blocks
from emsam_jax.config import EncoderConfig, ModelConfig
from emsam_jax.errors import UserError
from emsam_jax.inference import Prediction, Predictor
from emsam_jax.inference.symmetry import Symmetry, parse_symmetries
from emsam_jax.model import Maps, abstract_fgnet, flat_state
from emsam_jax.model.encoder_checkpoint import fill
from emsam_jax.volumes import Box, box_of
from tests.inference.brute_force import slide
from tests.inference.models import (
    RAW,
    SHORT,
    WINDOW,
    Edges,
    Hungry,
    OneSided,
    affinities_of,
    predict,
    specimen_of,
    turned,
    whole,
)

EXACT = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return whole(RAW)


@pytest.mark.parametrize(
    ("block", "devices", "batch"),
    [((11, 19, 26), 1, 4), ((4, 8, 8), 2, 1), ((5, 7, 26), 8, 3), ((6, 16, 9), 1, 100)],
)
def test_equals_the_plain_sliding_window(block, devices, batch, expected):
    found = predict(OneSided(), RAW, block, devices=devices, batch=batch)
    np.testing.assert_allclose(found, expected, **EXACT)


def test_a_region_of_interest_changes_no_affinity(expected):
    region = Box((3, 0, 7), (11, 13, 20))
    found = predict(OneSided(), RAW, (3, 8, 8), region, devices=2)
    np.testing.assert_allclose(found, expected[(slice(None), *region.slices)], **EXACT)


def test_volumes_smaller_than_a_window_and_strides_that_divide_nothing():
    raw = RAW[:1, :7, :11]
    np.testing.assert_allclose(predict(OneSided(), raw, (9, 9, 9)), whole(raw), **EXACT)
    window, stride = (5, 10, 6), (3, 7, 6)
    found = predict(OneSided(), RAW, (4, 12, 12), window=window, stride=stride)
    np.testing.assert_allclose(found, whole(RAW, window, stride), **EXACT)


def test_encoding_once_and_other_ways_to_the_same_maps(expected):
    plain = predict(OneSided(), RAW, (6, 16, 16), encode_once=False, coarse=True, dtype="float16")
    assert plain.shape[0] == 6
    np.testing.assert_allclose(plain[:3], expected, rtol=0, atol=1e-3)
    twice = whole(RAW, predict_window=lambda grey: 1 / (1 + (1 / (1 / affinities_of(grey) - 1)) ** 2))
    np.testing.assert_allclose(plain[3:], twice, rtol=0, atol=1e-3)  # the coarse logits are -2 times the refined ones
    stored = predict(OneSided(), RAW, (6, 16, 16), dtype="uint8")
    np.testing.assert_allclose(stored / 255, expected, rtol=0, atol=0.501 / 255)


def random_fgnet(config, seed=2):
    """Filled by numpy: jax would compile for longer than the test takes."""
    rng, module = np.random.default_rng(seed), abstract_fgnet(config)
    shapes = {name: leaf.shape for name, leaf in flat_state(module).items()}
    return fill(module, {name: rng.normal(0.1, 0.3, shape).astype(np.float32) for name, shape in shapes.items()})


@pytest.mark.slow
def test_encoding_once_changes_nothing_for_fgnet():
    encoder = EncoderConfig(size="toy")
    model = random_fgnet(ModelConfig(encoder=encoder, projected=4, channels=(4, 4), norm_groups=2, coarse=False))
    raw = np.random.default_rng(1).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    options = {"window": (4, 32, 32), "symmetries": ("Zyx", "zxY"), "batch": 3}
    once, plain = (predict(model, raw, (5, 32, 32), **options, encode_once=once) for once in (True, False))
    np.testing.assert_allclose(once, plain, **EXACT)
    assert once.std() > 0.01


LONG = (*SHORT, (-2, 0, 0), (0, -3, 0), (0, 0, -3), (0, -2, 1), (0, 1, -2))


@pytest.mark.parametrize(
    ("names", "window"), [(("anisotropic",), (4, 8, 8)), (("zyx", "YxZ", "XYz", "zXy", "Yzx"), (6, 6, 6))]
)
def test_symmetries_change_nothing_for_a_model_that_has_them(names, window):
    raw = RAW[:6, :8, :10]
    options = {"window": window, "batch": 100}
    model = Edges(LONG if window[0] < 6 else SHORT)
    alone = predict(model, raw, raw.shape, **options)
    assert alone.std() > 0.1
    np.testing.assert_allclose(predict(model, raw, raw.shape, symmetries=names, **options), alone, **EXACT)


class Held(nnx.Module):
    """Says of each edge whether the window holds both of its voxels."""

    config = ModelConfig(offsets=LONG)

    def encode(self, sections: Any) -> Any:
        return ()

    def decode(self, raw: Any, features: Any) -> Maps:
        places = np.moveaxis(np.indices(raw.shape[1:4]), 0, -1)[..., None, :] + np.array(LONG)
        held = ((places >= 0) & (places < raw.shape[1:4])).all(-1)
        return Maps(None, jnp.broadcast_to(jnp.where(held, 40.0, -40.0), (*raw.shape[:4], len(LONG))))


@pytest.mark.parametrize("names", ["zyx", "anisotropic"])
@pytest.mark.parametrize("stride", [(2, 4, 4), (3, 6, 7)])
def test_edges_that_leave_a_window_count_only_where_no_window_holds_them(stride, names):
    shape = (7, 17, 18)
    found = predict(Held(), np.zeros(shape, np.uint8), (3, 8, 18), stride=stride, symmetries=(names,))
    for channel, offset in enumerate(LONG):
        ends = [[np.arange(n), np.arange(n) + step] for n, step in zip(shape, offset, strict=True)]
        held = [  # along each axis: is there a window, from -20 strides on, that has both ends?
            np.any([((s <= np.array(pair)) & (np.array(pair) < s + side)).all(0) for s in range(-20 * by, 40, by)], 0)
            for pair, side, by in zip(ends, WINDOW, stride, strict=True)
        ]
        np.testing.assert_allclose(
            found[channel], np.einsum("z,y,x->zyx", *(np.float32(one) for one in held)), atol=1e-6
        )


def seen_without(symmetry: Symmetry, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The one-sided model's affinities of a turned window, each put where the two voxels that it joins lie, and
    where there is one: found by the voxels' places.
    """
    values = affinities_of(np.ascontiguousarray(turned(symmetry, grey)))
    places = np.stack([turned(symmetry, axis) for axis in np.indices(grey.shape)], -1)
    found, valid = np.zeros((2, *grey.shape, 3))
    for channel in range(3):
        step = [int(axis == channel) for axis in range(3)]
        difference = places[0, 0, 0] - places[tuple(step)]  # between the voxels that the channel joins
        target = int(np.flatnonzero(difference)[0])
        moved = np.zeros(3, int) if difference[target] < 0 else difference
        voxels = places + moved
        there = (voxels < grey.shape).all(-1)
        at = (*np.moveaxis(voxels[there], -1, 0), target)
        found[at], valid[at] = values[..., channel][there], 1
    return found, valid


@pytest.mark.parametrize(
    ("names", "window"),
    [(("Zyx", "zXY"), (2, 4, 4)), (("anisotropic",), (2, 4, 4)), (("isotropic",), (4, 4, 4)), (("YxZ",), (4, 4, 4))],
)
def test_symmetries_average_a_model_that_has_none(names, window):
    symmetries = parse_symmetries(names)
    assert len(symmetries) == {"anisotropic": 16, "isotropic": 48}.get(names[0], len(names))
    raw = RAW[:3, :6, :7]

    def average(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        views = [seen_without(symmetry, grey) for symmetry in symmetries]
        found, count = np.sum(views, axis=0)
        return found / np.maximum(count, 1), count > 0

    wanted = slide(raw / 255, window, tuple(side // 2 for side in window), SHORT, average)
    found = predict(OneSided(), raw, (3, 6, 7), window=window, symmetries=names, batch=100)
    np.testing.assert_allclose(found, wanted, **EXACT)


def test_says_what_cannot_be_averaged():
    with pytest.raises(UserError, match=r"would turn the window \(4, 8, 8\) .* into \(8, 4, 8\)"):
        predict(OneSided(), RAW, (11, 19, 26), symmetries=("yzx",))
    with pytest.raises(UserError, match=r"Zyx leave voxels without a value for the offset \(-1, 0, 0\)"):
        predict(OneSided(), RAW, (11, 19, 26), symmetries=("Zyx",), stride=(4, 4, 4))
    with pytest.raises(UserError, match="found 'flips'"):
        predict(OneSided(), RAW, (11, 19, 26), symmetries=("flips",))


@pytest.mark.parametrize("unknown", [False, True])
def test_too_large_a_batch_is_made_smaller_and_said(unknown, expected, monkeypatch, caplog):
    """Before the first block, from what the compiler knows; or, where it knows too little, when memory runs out."""
    if unknown:
        monkeypatch.setattr("emsam_jax.inference.fitting.free_bytes", lambda device: None)
    found = predict(Hungry(), RAW, (11, 19, 26), batch=8)
    np.testing.assert_allclose(found, expected, **EXACT)
    said = "ran out of memory with 7 windows" if unknown else "7 windows at once would take"
    assert said in caplog.text


def test_other_parameters_compile_nothing_again(monkeypatch):
    plan, specimen = plan_blocks(box_of(RAW.shape), box_of(RAW.shape), RAW.shape, (1, 1, 1)), specimen_of(RAW)
    settings, other = Prediction(window=WINDOW), Edges(LONG[:3])
    other.scale = nnx.Param(jnp.float32(2))
    before = Predictor(Edges(LONG[:3]), settings, plan).predict_block(specimen, plan.region)
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_, **__: pytest.fail("compiled again"))
    after = Predictor(other, settings, plan).predict_block(specimen, plan.region)
    assert np.abs(before - after).max() > 0.01
