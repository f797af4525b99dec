"""Two forms of a layer, one program each: both give what flax's and jax's do."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import ndtr

from emsam_jax.config import EncoderConfig, ModelConfig
from emsam_jax.model import abstract_fgnet, cpu, jit
from emsam_jax.model.by_platform import double_by_padding, elu, gelu, normalise
from emsam_jax.model.compile import compiled_for
from emsam_jax.model.group_norm import Groups, group_norm, sum_by_products, sum_by_reduction
from emsam_jax.model.lanes import side_by_side
from emsam_jax.model.layers import upsample

RNG = np.random.default_rng(0)


def values(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.standard_normal(shape) + 0.5, jnp.float32)


def flax_group_norm(x: Any, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return norm_of(scale, bias)(x)


def norm_of(scale: jax.Array, bias: jax.Array) -> nnx.GroupNorm:
    norm = nnx.GroupNorm(scale.size, 3, rngs=nnx.Rngs(0))
    norm.scale, norm.bias = nnx.Param(scale), nnx.Param(bias)
    return norm


def resize(x: jax.Array) -> jax.Array:
    b, z, y, width, c = x.shape
    return jax.image.resize(x, (b, 2 * z, y, 2 * width, c), "linear")


CASES = {
    "group norm": (
        lambda x, *a: normalise(norm_of(*a), x),
        flax_group_norm,
        (values(2, 3, 4, 5, 6), values(6), values(6)),
    ),
    "group norm on accelerators": (
        lambda x, *a: group_norm(x, *a, Groups(3), sum_by_reduction),
        flax_group_norm,
        (values(2, 3, 4, 5, 6), values(6), values(6)),
    ),
    "gelu": (gelu, functools.partial(jax.nn.gelu, approximate=False), (3 * values(1000),)),
    "elu": (elu, jax.nn.elu, (5 * values(1000),)),
    "upsample": (lambda x: upsample(x, (2, 1, 2)), resize, (values(2, 3, 2, 4, 5),)),
    "upsample on accelerators": (
        lambda x: double_by_padding(double_by_padding(x, 1), 3),
        resize,
        (values(2, 3, 2, 4, 5),),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_reference(name: str):
    ours, reference, arguments = CASES[name]
    expected, backward = jax.vjp(reference, *arguments)
    gradient = values(*expected.shape)
    found, our_gradients = jit(lambda a, g: (ours(*a), jax.vjp(ours, *a)[1](g)))(arguments, gradient)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    for one, other in zip(our_gradients, backward(gradient), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_group_norm_keeps_its_type_and_a_constant_harms_nothing():
    x = jnp.full((1, 2, 2, 2, 4), 3, jnp.bfloat16)
    y, backward = jax.vjp(lambda x: group_norm(x, jnp.ones(4), jnp.ones(4), Groups(2), sum_by_products), x)
    gradient = np.asarray(backward(y)[0], np.float32)
    assert jnp.asarray(y).dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), 1, atol=1e-2)
    np.testing.assert_allclose(gradient, 0, atol=1e-2)


def test_gelu_in_half_precision_is_exact_up_to_its_last_rounding():
    """Also where it nearly vanishes: between -5 and -2."""
    x = jnp.linspace(-5, 5, 999).astype(jnp.bfloat16)
    exact = np.asarray(x, np.float64) * ndtr(np.asarray(x, np.float64))
    found = gelu(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=2**-8, atol=1e-6)


NETWORK = ModelConfig(encoder=EncoderConfig(size="toy", frozen=False), projected=4, channels=(4, 8), norm_groups=2)


@pytest.fixture(scope="module")
def traced() -> Any:
    """The gradient of the whole network, once, for whatever platform."""
    model = abstract_fgnet(NETWORK)

    def loss(model: Any, raw: jax.Array) -> jax.Array:
        maps = model(raw)
        return (maps.refined**2).sum() + (maps.coarse**2).sum()

    raw = jax.ShapeDtypeStruct((1, 4, 32, 32, 1), jnp.float32)
    return jax.jit(jax.grad(loss)).trace(model, raw)


@pytest.mark.parametrize("platform", ["tpu", "cuda", "cpu"])
def test_accelerators_compile_the_plain_layers_and_cpus_their_own(platform: str, traced: Any):
    """Gradients too, and nothing of the other form."""
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    on_cpu = platform == "cpu"
    deep = set(re.findall(r"stablehlo\.convolution.* dim_numbers = (\[\w, 0, 1, 2, \w\]x\[.*?\])", program))
    forward, of_input, of_kernel = (
        "[b, 0, 1, 2, f]x[0, 1, 2, i, o]",
        "[b, 0, 1, 2, f]x[0, 1, 2, o, i]",
        "[f, 0, 1, 2, b]",
    )
    assert deep == (set() if on_cpu else {forward, of_input, f"{of_kernel}x[i, 0, 1, 2, o]"})
    assert ("stablehlo.while" in program) == on_cpu  # over sections
    assert ("erfc" in program) != on_cpu  # jax's gelu
    assert ("stablehlo.exponential_minus_one" in program) != on_cpu  # jax's elu


def test_options_are_those_of_the_platform_that_the_shardings_name(monkeypatch: pytest.MonkeyPatch):
    class Chip:
        """Stands for one that is not here."""

        id, process_index, platform, device_kind = 0, 0, "tpu", "TPU v5 lite"

    mesh = jax.sharding.Mesh(np.array([Chip()]), ("data",))
    there = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    assert compiled_for({"out_shardings": (there, None), "donate_argnums": 0}) == "tpu"
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    assert compiled_for({"out_shardings": {"params": here}}) == compiled_for({}) == "cpu"
    monkeypatch.setattr(jax, "jit", lambda function, **options: options["compiler_options"])
    assert jit(abs, out_shardings=there) == {}
    assert jit(abs, out_shardings=here) == cpu.COMPILER_OPTIONS


def test_programs_for_tpus_fill_their_lanes_and_no_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "jit", lambda function, **_: function)
    found = {}
    for platform in ("tpu", "gpu", "cpu"):
        monkeypatch.setattr("emsam_jax.model.compile.compiled_for", lambda _, platform=platform: platform)
        found[platform] = jit(side_by_side)(28, (160, 160))
    assert found == {"tpu": (2, 2), "gpu": (1, 1), "cpu": (1, 1)}
    assert side_by_side(28, (160, 160)) == (1, 1)
