"""Targets by name, programs read from their HLO, and a plan for devices that are not here."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from emsam_jax.config import Config, DataConfig, EncoderConfig, ModelConfig, OptimConfig
from emsam_jax.errors import UserError
from emsam_jax.model.by_platform import attend
from emsam_jax.targets import COMPILER_OPTIONS, devices_of, parse_target
from emsam_jax.targets.program import read_program
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
  %sum = f32[4,8]{1,0} all-reduce-start(%out), replica_groups={{0,1,2,3}}, to_apply=%add
  %done = f32[4,8]{1,0} all-reduce-done(%sum)
  ROOT %both = (f32[4,8]{1,0}, f32[4,8]{1,0}) tuple(%out, %done)
}
"""
# A loop of four rounds that writes a row of a buffer in place, then a branch, of which one way costs nothing.
ROUNDS = """HloModule jit_rounds

%update (total: f32[64,8], rows: f32[4,8], i: s32[]) -> f32[64,8] {
  %total = f32[64,8]{1,0} parameter(0)
  %rows = f32[4,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,8]{1,0} dynamic-slice(%rows, %i, %zero), dynamic_slice_sizes={1,8}
  ROOT %written = f32[64,8]{1,0} dynamic-update-slice(%total, %row, %i, %zero)
}

%body (state: (s32[], f32[64,8], f32[4,8])) -> (s32[], f32[64,8], f32[4,8]) {
  %state = (s32[], f32[64,8]{1,0}, f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %total = f32[64,8]{1,0} get-tuple-element(%state), index=1
  %rows = f32[4,8]{1,0} get-tuple-element(%state), index=2
  %new = f32[64,8]{1,0} fusion(%total, %rows, %i), kind=kLoop, calls=%update
  ROOT %next = (s32[], f32[64,8]{1,0}, f32[4,8]{1,0}) tuple(%i, %new, %rows)
}

%stay (x: f32[64,8]) -> f32[64,8] {
  ROOT %x = f32[64,8]{1,0} parameter(0)
}

%gather (x: f32[64,8]) -> f32[64,8] {
  %x.1 = f32[64,8]{1,0} parameter(0)
  %part = f32[16,8]{1,0} slice(%x.1), slice={[0:16], [0:8]}
  ROOT %whole = f32[64,8]{1,0} all-gather(%part), replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
}

ENTRY %main (state: (s32[], f32[64,8], f32[4,8]), good: pred[]) -> f32[64,8] {
  %state = (s32[], f32[64,8]{1,0}, f32[4,8]{1,0}) parameter(0)
  %good = pred[] parameter(1)
  %loop = (s32[], f32[64,8], f32[4,8]) while(%state), body=%body, config={"known_trip_count":{"n":"4"}}
  %total = f32[64,8]{1,0} get-tuple-element(%loop), index=1
  ROOT %found = f32[64,8] conditional(%good, %total, %total), true_computation=%gather, false_computation=%stay
}
"""
# As a TPU's: tiles of 8 x 128, two values of bfloat16 beside each other in a lane, a buffer on the chip.
TILED = """HloModule jit_tiled

ENTRY %main (a: bf16[2,4,5,16]) -> f32[24] {
  %a = bf16[2,4,5,16]{3,2,1,0:T(16,128)(2,1)} parameter(0)
  %conv = bf16[2,4,5,16]{3,2,1,0:T(16,128)(2,1)} fusion(%a), calls=%one, metadata={op_name="f/jvp(level_0)/cond/add"}
  %kept = f32[2,4,5,16]{3,2,1,0:T(8,128)S(1)} convert(%a), metadata={op_name="jit(f)/add"}
  %sum = f32[24]{0:T(128)} fusion(%conv, %kept), calls=%two, metadata={op_name="PATH"}
}

%one (p: bf16[2,4,5,16]) -> bf16[2,4,5,16] {
  %p = bf16[2,4,5,16]{3,2,1,0:T(16,128)(2,1)} parameter(0)
  ROOT %r = bf16[2,4,5,16]{3,2,1,0:T(16,128)(2,1)} add(%p, %p)
}

%two (p.1: bf16[2,4,5,16], q: f32[2,4,5,16]) -> f32[24] {
  %p.1 = bf16[2,4,5,16]{3,2,1,0:T(16,128)(2,1)} parameter(0)
  %q = f32[2,4,5,16]{3,2,1,0:T(8,128)S(1)} parameter(1)
  ROOT %s = f32[24]{0:T(128)} reduce(%p.1, %q)
}
""".replace("PATH", "jit(f)/transpose(jvp(refined_decoder))/level_1/jit(_convolve)/cond/branch_0_fun/conv")
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
    assert program.sent == 2 * 3 / 4 * 128  # each of four sums a quarter, and passes the sums on
    # Each kernel's result and operands: transpose, copy, convolution with 64 bytes of work space, sum.
    assert program.bytes == (128 + 128) + (32 + 32) + (128 + 64 + 128 + 32) + (128 + 128)
    assert read_program(HLO, large=100).copies == (0, 0)


def test_on_tpus_bytes_are_those_of_whole_tiles_in_main_memory_by_layer():
    program = read_program(TILED)
    map_, filled, small = 2 * 4 * 5 * 16 * 2, 2 * 4 * 16 * 128 * 2, 24 * 4
    # Five of sixteen rows and 16 of 128 lanes hold values; what is on the chip is not moved.
    assert program.layers["level_0"] == (2 * filled, 2 * map_)
    assert program.layers["refined_decoder/level_1"] == (filled + 128 * 4, map_ + small)
    assert (program.bytes, program.useful) == (4 * filled + 128 * 4, 4 * map_ + small)
    assert str(program.layers["level_0"]) == "6.55e-05 GB, 4% of them values"
    untiled = read_program(HLO)
    assert untiled.useful == untiled.bytes


def test_rounds_count_each_and_slices_for_what_they_take():
    program = read_program(ROUNDS)
    assert program.kernels == 4 + 2
    row, part, whole = 32, 512, 2048
    # A round reads and writes a row, and its number; the branch reads and writes a part, and gathers it.
    assert program.bytes == 4 * (2 * row + 4) + 2 * part + (part + whole)
    assert program.collectives == {"all-gather": (1, whole)}
    assert program.sent == whole * 3 / 4


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


def test_slices_of_tpus_by_name():
    target = parse_target("2xv5e:4x4")
    assert (target.shape, target.slices, target.devices) == ((4, 4), 2, 32)


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
    first, second = (trial.needs for trial in found[:2])
    assert first
    assert second
    assert second.bytes > first.bytes
    assert second.flops == pytest.approx(2 * first.flops)
    assert set(first.seconds) == {"arithmetic", "memory", "links"}
    reduced = first.program.collectives["all-reduce"].bytes
    parameters = 4 * sum(leaf.size for leaf in jax.tree.leaves(_parameters()))
    assert reduced >= parameters  # each gradient, in the CPU's form of the layers some of them in parts
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


def test_what_does_not_fit_is_a_row(monkeypatch: pytest.MonkeyPatch):
    """What XLA raises, at an allocation that no machine grants: while the first batch and all savings compile."""
    raising = lambda *_: jnp.zeros(1 << 45, jnp.uint8).block_until_ready()  # noqa: E731
    monkeypatch.setattr("emsam_jax.training.bounds.compile_step", raising)
    lines: list[str] = []
    assert not plan_for(TINY, parse_target("rtx4090"), jax.devices()[:1], say=lines.append, note=lines.append)
    (row,) = (line for line in lines if line.split()[:1] == ["1"])
    assert row.endswith("does not fit")
    assert any("Nothing fits" in line for line in lines)
    assert lines[-1].endswith("does not fit to be compiled")


@pytest.mark.slow
def test_a_config_too_large_for_a_card_is_told_what_saves_memory():
    """Of a card with 2 MB, for which this machine's compiler answers."""
    target = parse_target("rtx4090")
    small = dataclasses.replace(target, card=dataclasses.replace(target.card, memory=2e6))
    wide = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, channels=(16, 32), dtype="float32"))
    lines: list[str] = []
    assert not plan_for(wide, small, jax.devices()[:1], say=lines.append, note=lambda _: None)
    assert sum("does not fit" in line for line in lines) == 1
    assert any(line.startswith("  and --config.model.dtype=bfloat16") for line in lines)


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
def test_parameters_are_sharded_within_a_slice():
    if not importlib.util.find_spec("libtpu"):
        pytest.skip("libtpu is not installed: pip install 'emsam-jax[tpu]'")
    devices = devices_of(parse_target("2xv5e:2x4"))
    mesh = make_mesh(4, devices)
    assert mesh.devices.shape == (4, 4)
    assert [{device.slice_index for device in row} for row in mesh.devices] == [{0}, {0}, {1}, {1}]
    with pytest.raises(UserError, match=r"must divide the number of devices of a slice, 8; found 16"):
        make_mesh(16, devices)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module"), [("2xh200", "jax_plugins"), ("v5e:2x2", "libtpu")])
def test_the_compiler_of_a_device_that_is_not_here_answers(name: str, module: str):
    if not importlib.util.find_spec(module):
        pytest.skip(f"{module} is not installed: pip install 'emsam-jax[gpu]' or [tpu]")
    lines: list[str] = []
    found = plan_for(TINY, parse_target(name), say=lines.append, note=lambda _: None)
    assert found
    assert found[0].needs
    program = found[0].needs.program
    assert program.kernels > 0
    assert {"level_0", "level_1", "refined_decoder/level_0", "loss", "update"} <= program.layers.keys()
    # A TPU's tiles have 128 lanes, for 4 channels.
    tiled = name.startswith("v5e")
    assert (program.useful < program.bytes / 2) == tiled
    assert any(line.startswith("Of the bytes moved") for line in lines) == tiled
