"""The encoder without torch: what it accepts, how it computes, and that what was saved is what is loaded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.model import (
    SIZES,
    ImageEncoder,
    abstract_encoder,
    flat_state,
    jit,
    load_image_encoder,
    writing_image_encoder,
)
from emsam_jax.model.by_platform import attend
from emsam_jax.model.encoder_checkpoint import fill
from emsam_jax.model.hiera import HieraConfig, drop_path

# Small, yet with all that the real ones have: windows that need padding, a global block, pooled queries.
SMALL = HieraConfig(embed_dim=16, stages=(1, 1, 3, 1), global_att_blocks=(3,), window_pos_embed_bkg_spatial_size=(7, 7))
PARAMETERS = {"tiny": 27_219_136, "small": 34_316_992, "base_plus": 69_106_816, "large": 212_703_280}


def build(config: HieraConfig = SMALL, **options) -> ImageEncoder:
    """Random weights from numpy: jax would compile an initialiser for every shape."""
    encoder = abstract_encoder(config, **options)
    rng = np.random.default_rng(0)

    def random(shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(rng.normal(len(shape) == 1, np.prod(shape[:-1]) ** -0.5 / 2, shape), jnp.float32)

    return fill(encoder, {name: random(leaf.shape) for name, leaf in flat_state(encoder).items()})


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (2, 160, 96, 3))


@pytest.fixture(scope="module")
def features(images):
    return jit(lambda encoder, images: encoder(images))(build(), images)


def test_feature_shapes(features):
    assert [f.shape for f in features.trunk] == [(2, 160 // s, 96 // s, 4 * s) for s in (4, 8, 16, 32)]
    assert [f.shape for f in features.fpn] == [(2, 160 // s, 96 // s, 256) for s in (4, 8, 16)]


@pytest.mark.slow
def test_eager_call_gives_what_jit_gives(features, images):
    for eager, compiled in zip(jax.tree.leaves(build()(images)), jax.tree.leaves(features), strict=True):
        np.testing.assert_allclose(eager, compiled, atol=2e-5)


@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=pytest.mark.slow if size in ("base_plus", "large") else []) for size in SIZES]
)
def test_parameter_count_is_the_official_ones(size):
    leaves = flat_state(abstract_encoder(SIZES[size])).values()
    assert sum(np.prod(leaf.shape) for leaf in leaves) == PARAMETERS[size]


@pytest.mark.parametrize(
    ("y", "x", "nearest"), [(100, 224, "96 or 128 x 224"), (224, 31, "224 x 32"), (0, 64, "32 x 64")]
)
def test_other_sides_are_refused_with_the_nearest(y, x, nearest):
    with pytest.raises(UserError, match=f"got {y} x {x} .*nearest that fit: {nearest}"):
        build()(jnp.zeros((1, y, x, 3)))


def test_bfloat16_computes_in_bfloat16_with_float32_parameters(features, images):
    encoder = build(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in flat_state(encoder).values()} == {jnp.dtype("float32")}
    half = jit(lambda encoder, images: encoder(images))(encoder, images)
    for exact, rounded in zip(jax.tree.leaves(features), jax.tree.leaves(half), strict=True):
        assert rounded.dtype == jnp.bfloat16
        error = jnp.abs(exact - rounded.astype(jnp.float32)).max() / jnp.abs(exact).max()
        assert 1e-4 < error < 5e-2


@pytest.mark.slow
def test_rematerialisation_keeps_less_and_changes_nothing(images):
    def loss(encoder: ImageEncoder) -> jax.Array:
        return sum((jnp.sum(f**2) for f in jax.tree.leaves(encoder(images))), start=jnp.zeros(()))

    def bytes_kept(encoder: ImageEncoder) -> int:
        backward = jax.eval_shape(lambda encoder: jax.vjp(loss, encoder)[1], encoder)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))

    assert bytes_kept(build(remat=True)) < 0.3 * bytes_kept(build())
    plain, recomputed = (jax.tree.leaves(jax.jit(jax.grad(loss))(build(remat=remat))) for remat in (False, True))
    for a, b in zip(plain, recomputed, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * float(jnp.abs(a).max()))


def test_drop_path_leaves_out_whole_images_and_keeps_the_mean():
    kept = drop_path(jnp.ones((4000, 1, 2, 3)), 0.25, jax.random.key(0))
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (kept == kept[:, :1, :1, :1]).all()
    assert float(kept.mean()) == pytest.approx(1, abs=0.03)


@pytest.mark.slow
def test_drop_path_follows_the_key_and_only_the_key(features, images):
    encoder = build(drop_path_rate=0.5)
    encode = jax.jit(lambda encoder, images, key: encoder(images, key).trunk[-1])
    first, again, other = (encode(encoder, images, jax.random.key(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert not jnp.allclose(first, other)
    np.testing.assert_allclose(encode(encoder, images, None), features.trunk[-1], atol=2e-5)


def test_images_are_encoded_the_same_on_eight_devices(features, images):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batch = jax.device_put(jnp.tile(images, (4, 1, 1, 1)), spread)
    eight = jit(lambda encoder, images: encoder(images))(build(), batch)
    assert len(eight.trunk[0].sharding.device_set) == 8
    for a, b in zip(jax.tree.leaves(eight), jax.tree.leaves(features), strict=True):
        np.testing.assert_allclose(a[2:4], b, atol=2e-5)


def test_attention_on_the_cpu_equals_the_accelerators_form():
    q, k, v = (jax.random.normal(jax.random.key(seed), (3, t, 2, 8)) for seed, t in enumerate((4, 6, 6)))
    expected = jax.nn.dot_product_attention(q, k, v)
    np.testing.assert_allclose(jax.jit(attend)(q, k, v), expected, atol=1e-6)


def test_what_is_saved_is_loaded(tmp_path):
    encoder = build(SIZES["tiny"])
    params = {name: leaf[...] for name, leaf in flat_state(encoder).items()}
    with writing_image_encoder(tmp_path / "encoder", params, {"size": "tiny"}):
        assert not (tmp_path / "encoder").exists()
    loaded = load_image_encoder(tmp_path / "encoder", jnp.bfloat16)
    assert loaded.trunk.dtype == jnp.bfloat16
    for name, leaf in flat_state(loaded).items():
        assert (leaf[...] == params[name]).all(), name
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_what_is_no_encoder_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_image_encoder(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"expected a readable encoder\.json"):
        load_image_encoder(tmp_path)
    (tmp_path / "encoder.json").write_text('{"format": "emsam_jax image encoder 1", "size": "huge"}')
    with pytest.raises(UserError, match=r"base_plus, large, and a hash; found .*'huge'"):
        load_image_encoder(tmp_path)
