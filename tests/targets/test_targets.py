"""Targets by name, programs read from their HLO, and a plan for devices that are not here."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from emsam_jax.config import Config, DataConfig, EncoderConfig, ModelConfig, OptimConfig
from emsam_jax.errors import UserError
from emsam_jax.model.by_platform import attend
from emsam_jax.targets import COMPILER_OPTIONS, devices_of, parse_target, read_program
from emsam_jax.training.bounds import plan_for
from emsam_jax.training.sharding import make_mesh

HLO = """HloModule jit_step, entry_computation_layout={()->f32[]}

%fused_computation (p: f32[8,4]) -> f32[4,8] {
  %p = f32[8,4]{1,0} parameter(0)
  %within = f32[8,4]{1,0} copy(%p)
  ROOT %turned = f32[4,8]{1,0} transpose(%within), dimensions={1,0}
}

ENTRY %main (a: f32[8,4], w: bf16[4,4]) -> (f32[4,8], f32[4,8]) {
  %a = f32[8,4]{1,0} parameter(0)
  %w = bf16[4,4]{1,0} parameter(1)
  %input_transpose_fusion = f32[4,8]{1,0} fusion(%a), kind=kInput, calls=%fused_computation
  %copy.1 = bf16[4,4]{0,1} copy(%w)
  %conv = (f32[4,8]{1,0}, u8[64]{0}) custom-call(%input_transpose_fusion, %copy.1), custom_call_target="cudnn"
  %out = f32[4,8]{1,0} get-tuple-element(%conv), index=0
  %sum = f32[4,8]{1,0} all-reduce-start(%out), to_apply=%add
  %done = f32[4,8]{1,0} all-reduce-done(%sum)
  ROOT %both = (f32[4,8]{1,0}, f32[4,8]{1,0}) tuple(%out, %done)
}
"""
TINY = Config(
    model=ModelConfig(encoder=EncoderConfig(size="none"), channels=(4, 4), norm_groups=2),
    data=DataConfig(patch=(4, 16, 16)),
    optim=OptimConfig(batch=16),
)


def test_a_program_is_what_its_kernels_are():
    program = read_program(HLO)
    assert (program.kernels, program.libraries) == (4, {"cudnn": 1})
    assert program.transposes == (1, 128)
    assert program.copies == (1, 32)  # not the one within a kernel
    assert program.collectives == {"all-reduce": (1, 128)}
    # Each kernel's result and operands: transpose, copy, convolution with 64 bytes of work space, sum.
    assert program.bytes == (128 + 128) + (32 + 32) + (128 + 64 + 128 + 32) + (128 + 128)
    assert read_program(HLO, large=100).copies == (0, 0)


def test_collectives_of_a_compiled_program_are_counted():
    """A product over rows that lie on eight devices is summed by one all-reduce."""
    mesh = make_mesh(1)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=rows)
    step = jax.jit(lambda x: x.T @ x, out_shardings=NamedSharding(mesh, PartitionSpec()))
    assert read_program(str(step.lower(x).compile().as_text())).collectives == {"all-reduce": (1, 32 * 32 * 4)}


@pytest.mark.parametrize(
    ("name", "shape"),
    [("h200", (1, 1)), ("8xh200", (1, 8)), ("16xh100", (2, 8)), ("2x4xa100", (2, 4)), ("v5e:2x4", (2, 4))],
)
def test_targets_by_name(name: str, shape: tuple[int, ...]):
    assert parse_target(name).shape == shape


@pytest.mark.parametrize(
    ("name", "said"), [("h20", "h200"), ("8xv5e", "v5e:2x4"), ("v5p:2x2", "2x2x2"), ("0xh200", "8xh200"), ("", "a100")]
)
def test_a_target_that_is_none_is_one_sentence(name: str, said: str):
    with pytest.raises(UserError, match=said):
        parse_target(name)


@pytest.mark.slow
def test_a_plan_tells_what_fits_and_what_binds():
    """For eight cards of 24 GB, compiled by this machine's compiler in their place."""
    lines: list[str] = []
    found = plan_for(TINY, parse_target("8xrtx4090"), jax.devices(), say=lines.append, note=lambda _: None)
    batches = [trial.config.optim.batch for trial in found]
    assert batches[:2] == [8, 16]
    assert all(batch % 8 == 0 for batch in batches)
    assert found[1].bytes > found[0].bytes
    assert found[1].flops == pytest.approx(2 * found[0].flops)
    assert set(found[0].seconds) == {"arithmetic", "memory", "links"}
    reduced = sum(leaf.bytes for kind, leaf in found[0].program.collectives.items() if kind == "all-reduce")
    parameters = 4 * sum(leaf.size for leaf in jax.tree.leaves(_parameters()))
    assert parameters <= reduced < 1.5 * parameters  # each gradient once, and a few scalars
    assert "8 x rtx4090, 21.1 GiB on each" in lines[0]
    assert sum("patches/s at most" in line for line in lines) == 1


@pytest.mark.slow
def test_cudnns_attention_has_a_gradient_in_every_window():
    """Windows of 7 x 7 tokens have an odd number of them, which cuDNN's does not train with: XLA's stands in."""
    if not importlib.util.find_spec("jax_plugins"):
        pytest.skip("jax_plugins is not installed: pip install 'emsam-jax[gpu]'")
    (device,) = devices_of(parse_target("h200"))
    here = SingleDeviceSharding(device)

    def loss(q: jax.Array, k: jax.Array) -> jax.Array:
        return attend(q, k, k, "cudnn").astype(jnp.float32).sum()

    found = {}
    for tokens in (64, 49):
        windows = jax.ShapeDtypeStruct((2, tokens, 2, 32), jnp.bfloat16, sharding=here)
        step = jax.jit(jax.grad(loss, (0, 1)), compiler_options=COMPILER_OPTIONS["gpu"])
        found[tokens] = read_program(str(step.lower(windows, windows).compile().as_text())).libraries
    assert found[64] == {"__cudnn$fmhaSoftmax": 1, "__cudnn$fmhaSoftmaxBackward": 1}
    assert found[49]
    assert not any("fmha" in name for name in found[49])


def _parameters() -> dict[str, jax.ShapeDtypeStruct]:
    from emsam_jax.model import abstract_fgnet, split_fgnet

    return split_fgnet(abstract_fgnet(TINY.model))[0]


@pytest.mark.parametrize(("name", "module", "extra"), [("h200", "jax_plugins", "gpu"), ("v5e:2x2", "libtpu", "tpu")])
def test_a_compiler_that_is_not_installed_is_named(name: str, module: str, extra: str):
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    with pytest.raises(UserError, match=rf"emsam-jax\[{extra}\]"):
        devices_of(parse_target(name))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module"), [("2xh200", "jax_plugins"), ("v5e:2x1", "libtpu")])
def test_the_compiler_of_a_device_that_is_not_here_answers(name: str, module: str):
    if not importlib.util.find_spec(module):
        pytest.skip(f"{module} is not installed: pip install 'emsam-jax[gpu]' or [tpu]")
    found = plan_for(TINY, parse_target(name), say=print, note=lambda _: None)
    assert found
    assert found[0].program.kernels > 0
