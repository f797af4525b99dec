"""The summary's figures, against what they must be."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from emsam_jax.config import EncoderConfig, ModelConfig
from emsam_jax.errors import UserError
from emsam_jax.training.cost import count_flops, count_parameters, gradient_bytes, shapes_of

PLAIN = ModelConfig(encoder=EncoderConfig(size="none"), channels=(4, 8), norm_groups=2)
GUIDED = dataclasses.replace(PLAIN, encoder=EncoderConfig(size="toy"), projected=4)


def test_parameters_are_counted_by_part_and_frozen_or_not():
    parts = count_parameters(GUIDED)
    assert set(parts.frozen) == {"encoder"}
    assert {"fine_encoder", "guidance", "coarse_decoder", "refined_decoder"} < set(parts.trained)
    kernels = 25 * 4 + 9 * (16 + 32) + 54 * (16 + 64)
    norms = 2 * (4 + 3 * (4 + 8))
    assert parts.trained["fine_encoder"] == kernels + norms
    assert count_parameters(PLAIN).frozen == {}


def test_shapes_are_those_of_the_levels():
    shapes = shapes_of(GUIDED, (4, 32, 64))
    assert shapes["image features, stride 8"] == (4, 4, 8, 4)
    assert shapes["fine encoder, level 1"] == (4, 16, 32, 8)
    assert shapes["refined map"] == shapes["coarse map"] == (4, 32, 64, 3)


def test_a_patch_that_does_not_divide_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"config\.data\.patch: .* multiples of \(1, 2, 2\), found \(4, 33, 32\)"):
        shapes_of(PLAIN, (4, 33, 32))
    with pytest.raises(UserError, match=r"\(4, 32, 32\) and \(4, 64, 32\) are the nearest"):
        shapes_of(GUIDED, (4, 34, 32))


def test_operations_are_mostly_the_convolutions():
    patch = (4, 32, 32)
    taps = 25 * 4 + 9 * 16 + 54 * 16 + (9 * 32 + 54 * 64) / 4  # products a voxel: stem, levels of the encoder
    taps += 8 * 4 / 4 + 63 * 16 + 4 * 3  # the decoder's rise, block and logits
    flops = count_flops(PLAIN, patch, training=False) / np.prod(patch)
    assert 0.85 * 2 * taps < flops < 1.3 * 2 * taps  # at the borders taps meet zeros; norms and the like come on top
    assert count_flops(PLAIN, patch, training=True) / np.prod(patch) == pytest.approx(3 * flops, rel=0.25)


def test_memory_grows_with_the_patch():
    assert gradient_bytes(PLAIN, (8, 32, 32)) == pytest.approx(2 * gradient_bytes(PLAIN, (4, 32, 32)), rel=0.2)


def test_command_prints_the_page_or_one_sentence(tmp_path):
    config = tmp_path / "small.py"
    config.write_text(
        "from emsam_jax.config import Config, DataConfig, EncoderConfig, ModelConfig\n"
        "def get_config():\n"
        "    model = ModelConfig(encoder=EncoderConfig(size='none'), channels=(4,), norm_groups=2)\n"
        "    return Config(name='small', model=model, data=DataConfig(patch=(2, 16, 16)))\n"
    )
    command = [sys.executable, "-m", "emsam_jax.training.summary", f"--config={config}"]
    page = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for word in ("small", "2 x 16 x 16", "fine_encoder", "refined map", "kFLOP a voxel", "compiled"):
        assert word in page
    wrong = subprocess.run([*command, "--config.model.channels=(3,)"], check=False, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert wrong.stderr.strip().splitlines()[-1].startswith("summary: model.norm_groups: expected a divisor")
