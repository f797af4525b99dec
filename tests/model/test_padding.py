"""How much of SAM2's attention windows is padding, beside what the encoder really pads."""

import jax
import jax.numpy as jnp
import pytest

from emsam_jax.config import EncoderConfig, ModelConfig
from emsam_jax.model import abstract_encoder, hiera, warn_of_padding
from emsam_jax.model.fgnet import HIERAS
from emsam_jax.model.padding import padding_shares, unpadded_side


@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=[] if size in ("toy", "tiny") else pytest.mark.slow) for size in HIERAS]
)
def test_shares_are_those_of_the_windows_that_the_encoder_cuts(monkeypatch, size):
    config, partition = HIERAS[size], hiera.window_partition
    shares = [0.0] * 4

    def counted(tokens, window):
        windows = partition(tokens, window)
        n, h, w, c = tokens.shape
        stage = config.channels.index(c // 3)  # queries, keys and values
        shares[stage] = max(shares[stage], 1 - n * h * w / (windows.shape[0] * windows.shape[1]))
        return windows

    monkeypatch.setattr(hiera, "window_partition", counted)
    encoder = abstract_encoder(config, neck=False)
    for y, x in ((96, 96), (160, 224), (256, 256), (unpadded_side(config),) * 2):
        shares[:] = [0.0] * 4
        images = jax.ShapeDtypeStruct((2, y, x, 3), jnp.float32)
        jax.eval_shape(lambda encoder, images: encoder(images), encoder, images)
        assert padding_shares(config, y, x) == pytest.approx(shares)
    assert max(shares) == 0


def test_known_sizes():
    assert {size: unpadded_side(HIERAS[size]) for size in ("tiny", "small", "base_plus", "large")} == {
        "tiny": 224,
        "small": 224,
        "base_plus": 224,
        "large": 256,
    }
    _, _, third, fourth = padding_shares(HIERAS["base_plus"], 96, 96)
    assert third == fourth == pytest.approx(1 - 6**2 / 14**2)


def test_the_sentence_names_field_and_sizes():
    model = ModelConfig(encoder=EncoderConfig("base_plus"))
    assert warn_of_padding(model, (48, 96, 96)) == (
        "config.data.patch=(48,96,96): 82% of what SAM2 attends to in stage 3 is padding; choose y and x as "
        "multiples of 224 with config.model.encoder.upsample=1 or 112 with config.model.encoder.upsample=2, which "
        "leave none."
    )
    assert warn_of_padding(model, (16, 224, 224)) == ""
    enlarged = ModelConfig(encoder=EncoderConfig("base_plus", upsample=2))
    assert warn_of_padding(enlarged, (48, 112, 112)) == ""
    assert "multiples of 112 with" in warn_of_padding(enlarged, (48, 96, 96))
    assert warn_of_padding(ModelConfig(), (48, 96, 96)) == ""
