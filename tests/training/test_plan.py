"""The plan measures: what it says fits, fits, and what does not is made smaller."""

import dataclasses

import jax
import pytest

from emsam_jax.config import Config, DataConfig, OptimConfig
from emsam_jax.model import EncoderConfig, ModelConfig
from emsam_jax.training.plan import Trial, memory_of, patches, plan, savings

TINY = Config(
    model=ModelConfig(encoder=EncoderConfig(size="none"), channels=(4,)),
    data=DataConfig(patch=(2, 64, 64)),
    optim=OptimConfig(steps=36_000),
)
LIMIT = 1_200_000  # bytes


@pytest.fixture(scope="module")
def said() -> tuple[list[str], Trial | None]:
    """Of a device that has not what the patch needs."""
    lines: list[str] = []
    return lines, plan(TINY, jax.devices()[:1], limit=LIMIT, say=lines.append)


def test_what_does_not_fit_is_said_and_made_smaller(said):
    lines, best = said
    rows = [line for line in lines if " x " in line and "GiB" not in line and "patch" not in line]
    assert "does not fit" in rows[0]
    assert best is not None
    assert best.bytes <= LIMIT
    assert best.config.data.patch in {(2, 32, 32)}
    assert any("--config.data.patch=(2,32,32)" in line for line in lines)
    assert lines[-1].strip().startswith("the smallest batch")  # it fits a small card as it is


def test_hours_are_those_of_all_steps():
    assert Trial(TINY, 2**30, 0.5).row().split()[-3:] == ["2", "8", "5.0"]


def test_smaller_patches_keep_the_sides_that_the_encoder_takes():
    assert list(patches((16, 224, 256))) == [(16, 224, 256), (16, 160, 192), (16, 96, 128), (16, 32, 64)]


def test_savings_add_up():
    config = dataclasses.replace(TINY, model=ModelConfig(encoder=EncoderConfig(size="large", frozen=False)))
    *_, (words, last) = savings(config)
    assert "tiny" in words
    assert (last.model.dtype, last.model.remat, last.model.encoder.frozen) == ("bfloat16", True, True)


def test_a_cpu_has_the_machines_memory():
    assert 2**28 < memory_of(jax.devices()[0]) < 2**46
