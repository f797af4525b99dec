"""FGNet: shapes and sizes, every ablation, and that what is frozen costs the backward pass nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emsam_jax.config import EncoderConfig, ModelConfig, describe_encoder
from emsam_jax.errors import UserError
from emsam_jax.model import FGNet, abstract_fgnet, fgnet, flat_state, merge_fgnet, pretrained_encoder, split_fgnet
from emsam_jax.model.hiera import HieraConfig

SMALL = ModelConfig(encoder=EncoderConfig(size="toy"), projected=4, channels=(4, 8, 8), norm_groups=2)
PLAIN = dataclasses.replace(SMALL, encoder=EncoderConfig(size="none"))


def changed(config: ModelConfig = SMALL, encoder: dict | None = None, **fields) -> ModelConfig:
    if encoder:
        fields["encoder"] = dataclasses.replace(config.encoder, **encoder)
    return dataclasses.replace(config, **fields)


def random_model(config: ModelConfig) -> FGNet:
    """Random weights from numpy, norms included, so that nothing stands at its start."""
    rng = np.random.default_rng(0)
    shapes = flat_state(abstract_fgnet(config))

    def random(shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(rng.normal(len(shape) == 1, np.prod(shape[:-1]) ** -0.5, shape), jnp.float32)

    return merge_fgnet(config, {name: random(leaf.shape) for name, leaf in shapes.items()}, {})


def maps_of(config: ModelConfig, shape: tuple[int, ...] = (2, 3, 64, 32, 1)):
    """Shapes of the coarse and the refined map."""
    raw = jax.ShapeDtypeStruct(shape, jnp.float32)
    maps = jax.eval_shape(lambda model, raw: model(raw), abstract_fgnet(config), raw)
    return tuple(m if m is None else (m.shape, m.dtype) for m in maps)


def count(config: ModelConfig, part: str = "") -> int:
    names = flat_state(abstract_fgnet(config)).items()
    return sum(int(np.prod(leaf.shape)) for name, leaf in names if name.startswith(part))


ABLATIONS = {
    "as it is": SMALL,
    "fpn": changed(encoder={"features": "fpn"}),
    "without a norm of the features": changed(feature_norm=False),
    "enlarged": changed(encoder={"upsample": 2}),
    "enlarged fpn, five levels": changed(encoder={"upsample": 2, "features": "fpn"}, channels=(4, 4, 4, 8, 8)),
    "deep z context": changed(z_context="3x3x3"),
    "no z context": changed(z_context="none"),
    "concat": changed(guidance="concat"),
    "one gate": changed(guidance="one_gate"),
    "gate from uncertainty": changed(guidance="uncertainty"),
    "unguided": changed(guidance="none"),
    "half precision": changed(dtype="bfloat16"),
    "remat": changed(remat=True, encoder={"remat": True}),
}


QUICK = (
    *("as it is", "enlarged fpn, five levels", "one gate", "gate from uncertainty", "half precision"),
    "remat",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ABLATIONS]
)
def test_both_maps_are_as_large_as_the_input_and_float32(name):
    full = ((2, 3, 64, 32, 3), jnp.float32)
    assert maps_of(ABLATIONS[name]) == (full, full)
    assert {leaf.dtype for leaf in flat_state(abstract_fgnet(ABLATIONS[name])).values()} == {jnp.dtype("float32")}


def test_maps_have_a_channel_for_each_offset_and_the_coarse_one_is_optional():
    long = (*SMALL.offsets, (-2, 0, 0), (0, -9, 0), (0, 0, -9))
    assert maps_of(changed(offsets=long, coarse=False)) == (None, ((2, 3, 64, 32, 6), jnp.float32))
    assert maps_of(PLAIN, (1, 5, 20, 12, 1)) == (None, ((1, 5, 20, 12, 3), jnp.float32))


def test_isotropic_model_pools_z_too():
    config = changed(isotropic=True)
    assert maps_of(config, (1, 8, 32, 32, 1))[1] == ((1, 8, 32, 32, 3), jnp.float32)
    assert abstract_fgnet(config).fine_encoder.stem.conv.kernel.shape == (5, 5, 5, 1, 4)
    with pytest.raises(UserError, match=r"multiples of \(4, 32, 32\), found \(6, 32, 32\)"):
        maps_of(config, (1, 6, 32, 32, 1))


def test_parameter_counts():
    assert 0.85e6 < count(ModelConfig(), "fine_encoder.") < 0.97e6
    wider = 2 * 9 * (32 * 32 + 32 * 40 + 40 * 48 + 48 * 64 + 64 * 80)  # (3, 3, 3) entries in place of (1, 3, 3)
    isotropic, flat = (count(ModelConfig(isotropic=each), "fine_encoder.") for each in (True, False))
    assert isotropic - flat == wider + 32 * (5**3 - 5**2)
    # The field's residual symmetric U-Net has 1.48 M.
    superhuman = ModelConfig(encoder=EncoderConfig(size="none"), channels=(28, 36, 48, 64, 80))
    assert 1.43e6 < count(superhuman) < 1.5e6
    assert count(SMALL, "contexts.") == 4 * (3 * 4 * 4 + 4)
    assert count(changed(z_context="3x3x3"), "contexts.") == 4 * (27 * 4 * 4 + 4)
    assert count(changed(z_context="none"), "contexts.") == 0
    assert count(changed(guidance="none"), "guidance.") == 0
    assert count(changed(guidance="one_gate"), "guidance.0.gate.") == 4 * 1 + 2
    assert count(changed(guidance="uncertainty"), "guidance.0.gate.") == 1 * 4 + 8


decode = jax.jit(lambda model, raw, features: model.decode(raw, features))


@pytest.fixture(scope="module")
def raw() -> jax.Array:
    return jax.random.uniform(jax.random.key(0), (1, 2, 32, 32, 1))


@pytest.fixture(scope="module")
def seen() -> tuple[jax.Array, ...]:
    sides = enumerate((8, 4, 2, 1))
    return tuple(jax.random.normal(jax.random.key(i), (1, 2, side, side, 4)) for i, side in sides)


def test_coarse_map_comes_from_the_features_and_the_refined_one_from_both(raw, seen):
    model = random_model(SMALL)
    maps, inverted, other = decode(model, raw, seen), decode(model, 1 - raw, seen), (-seen[0], *seen[1:])
    np.testing.assert_array_equal(maps.coarse, inverted.coarse)
    assert jnp.abs(maps.refined - inverted.refined).max() > 1e-3
    for a, b in zip(maps, decode(model, raw, other), strict=True):
        assert jnp.abs(a - b).max() > 1e-3
    unguided = random_model(changed(guidance="none"))
    np.testing.assert_array_equal(*(decode(unguided, raw, f).refined for f in (seen, other)))


def test_sections_are_encoded_one_by_one_as_imagenet_was():
    model = random_model(changed(encoder={"frozen": False, "drop_path": 0.9}))
    sections = jax.random.uniform(jax.random.key(0), (2, 32, 64, 1))
    encode = jax.jit(lambda model, sections, key: model.encode(sections, key))
    features = encode(model, sections, None)
    assert [f.shape for f in features] == [(2, 32 // s, 64 // s, 4) for s in (4, 8, 16, 32)]
    for both, alone in zip(features, encode(model, sections[1:], None), strict=True):
        np.testing.assert_allclose(both[1:], alone, atol=1e-5)
    assert model.encoder is not None
    images = (np.repeat(np.asarray(sections), 3, -1) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    trunk = jax.jit(lambda encoder, images: encoder(images).trunk)(model.encoder, jnp.asarray(images, jnp.float32))
    expected = model.projections[2](model.norms[2](trunk[2]))
    np.testing.assert_allclose(features[2], expected, atol=1e-4)
    dropped = encode(model, sections, jax.random.key(1))
    assert jnp.abs(dropped[3] - features[3]).max() > 1e-3


@pytest.mark.slow
def test_half_precision_is_near(raw):
    full = random_model(PLAIN)
    half = merge_fgnet(changed(PLAIN, dtype="bfloat16"), split_fgnet(full)[0], {})
    exact, rounded = (decode(model, raw, ()).refined for model in (full, half))
    assert 1e-4 < float(jnp.abs(exact - rounded).max() / jnp.abs(exact).max()) < 0.1


def bytes_kept(config: ModelConfig) -> int:
    """For the gradient of the trained parameters; counted, because on the CPU XLA undoes rematerialisation."""
    trained, frozen = jax.eval_shape(lambda: split_fgnet(FGNet(config, rngs=nnx.Rngs(0))))
    raw = jnp.zeros((1, 2, 32, 32, 1))

    def backward(trained, frozen):
        return jax.vjp(lambda trained: merge_fgnet(config, trained, frozen)(raw), trained)[1]

    leaves = jax.tree.leaves(jax.eval_shape(backward, trained, frozen))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def test_nothing_of_a_frozen_encoder_is_kept_for_the_gradient(monkeypatch):
    """However deep it is."""
    kept = {}
    for depth, size in ((1, "tiny"), (3, "small")):
        deep = HieraConfig(embed_dim=16, num_heads=1, stages=(1, 1, depth, 1), global_att_blocks=(2,))
        monkeypatch.setitem(fgnet.HIERAS, size, deep)
        kept[depth] = [bytes_kept(changed(encoder={"size": size, "frozen": frozen})) for frozen in (True, False)]
    assert kept[1][0] == kept[3][0]
    assert kept[1][1] > 1.5 * kept[1][0]
    assert kept[3][1] > 1.2 * kept[1][1]


def test_rematerialisation_keeps_less():
    assert bytes_kept(changed(PLAIN, remat=True)) < 0.5 * bytes_kept(PLAIN)


def test_frozen_parameters_are_the_image_encoders():
    trained, frozen = jax.eval_shape(lambda: split_fgnet(FGNet(SMALL, rngs=nnx.Rngs(0))))
    assert {name.split(".")[0] for name in frozen} == {"encoder"}
    assert "encoder" not in {name.split(".")[0] for name in trained}
    tuned = changed(encoder={"frozen": False})
    assert jax.eval_shape(lambda: split_fgnet(FGNet(tuned, rngs=nnx.Rngs(0))))[1] == {}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (changed(offsets=((0, 0, -1), (0, -1, 0), (-1, 0, 0))), r"model\.offsets: expected to begin with"),
        (changed(encoder={"upsample": 3}), r"model\.encoder\.upsample: expected 1 or 2, found 3"),
        (changed(channels=(4, 7)), r"norm_groups: expected a divisor .* found 2 for \[7\]"),
        (changed(guidance="uncertainty", coarse=False), r"set model\.coarse=True"),
        (changed(encoder={"attention": "cudnn"}), r"set model\.dtype=bfloat16"),
    ],
)
def test_what_cannot_be_built_is_said_in_a_sentence(config, sentence):
    with pytest.raises(UserError, match=sentence):
        abstract_fgnet(config)


def test_noise_is_frozen_only_where_that_is_said():
    assert ModelConfig().encoder.size == "none"
    for model in (ModelConfig(), SMALL):
        refused = changed(model, encoder={"size": "base_plus", "weights": ""})
        with pytest.raises(UserError, match=r"encoder\.weights: expected .*\(base_plus\).*emsam convert"):
            pretrained_encoder(refused)
        assert pretrained_encoder(changed(refused, encoder={"weights": "random"})) == {}
        assert pretrained_encoder(changed(refused, encoder={"frozen": False})) == {}


@pytest.mark.parametrize(
    ("encoder", "init_from", "said"),
    [
        (EncoderConfig(), "", "none"),
        (EncoderConfig("toy", frozen=False), "", "toy Hiera, random weights, trained from scratch"),
        (EncoderConfig("tiny", weights="random"), "", "SAM2's Hiera tiny, random weights, frozen"),
        (EncoderConfig("large", weights="w/l"), "", "SAM2's Hiera large, weights of w/l, frozen"),
        (EncoderConfig("large", weights="w/l", frozen=False), "", "SAM2's Hiera large, weights of w/l, fine-tuned"),
        (EncoderConfig("tiny", frozen=False), "runs/a", "SAM2's Hiera tiny, parameters of runs/a, fine-tuned"),
    ],
)
def test_an_encoder_is_called_what_it_is(encoder, init_from, said):
    assert describe_encoder(encoder, init_from) == said
