"""The same numbers as the official PyTorch code, forward and backward, through the real converter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsam_jax.model import flat_state, load_image_encoder
from emsam_jax.porting import convert, names, parity

pytestmark = pytest.mark.usefixtures("torch")


@pytest.mark.parametrize(
    ("size", "version", "sides"),
    [
        ("tiny", "sam2.1", [(224, 224)]),
        pytest.param("tiny", "sam2.1", [(512, 384)], marks=pytest.mark.slow),
        pytest.param("tiny", "sam2", [(160, 160)], marks=pytest.mark.slow),
        pytest.param("small", "sam2", [(256, 256)], marks=pytest.mark.slow),
        pytest.param("base_plus", "sam2.1", [(160, 160), (224, 224)], marks=pytest.mark.slow),
        pytest.param("large", "sam2.1", [(256, 256)], marks=pytest.mark.slow),
    ],
)
def test_outputs_equal_the_official_ones(make_checkpoint, tmp_path, size, version, sides):
    model, checkpoint = make_checkpoint(size, version)
    convert(checkpoint, tmp_path / "flax")
    differences = parity.compare(model.image_encoder, load_image_encoder(tmp_path / "flax"), sides)
    assert len(differences) == 7 * len(sides)
    assert parity.worst(differences).relative <= 1e-5, parity.table(differences)


@pytest.mark.slow
def test_bfloat16_is_as_exact_as_pytorchs(tiny, tmp_path):
    model, checkpoint = tiny
    convert(checkpoint, tmp_path / "flax")
    ours = load_image_encoder(tmp_path / "flax", dtype=jnp.bfloat16)
    errors = parity.compare_bfloat16(model.image_encoder, ours, (160, 160))
    assert len(errors) == 7
    for error in errors:  # autocast adds residuals up in float32
        assert 0 < error.ours < 2.2 * error.torch < 0.03, errors


@pytest.mark.slow
def test_gradients_equal_torchs(torch, tiny, tmp_path):
    model, checkpoint = tiny
    convert(checkpoint, tmp_path / "flax")
    encoder = load_image_encoder(tmp_path / "flax")
    rng = np.random.default_rng(0)
    images = rng.standard_normal((1, 160, 160, 3), dtype=np.float32)
    shapes = [f.shape for f in jax.tree.leaves(jax.eval_shape(encoder, images))]
    projections = [rng.standard_normal(shape, dtype=np.float32) / np.prod(shape) ** 0.5 for shape in shapes]

    def loss(encoder):
        pairs = zip(jax.tree.leaves(encoder(images)), projections, strict=True)
        return jnp.stack([jnp.sum(f * p) for f, p in pairs]).sum()

    ours = {name: np.asarray(leaf[...]) for name, leaf in flat_state(jax.jit(jax.grad(loss))(encoder)).items()}

    official = model.image_encoder
    official.zero_grad()
    stages = official.trunk(torch.from_numpy(images).permute(0, 3, 1, 2))
    outputs = [*stages, *official.neck(stages)[0][:-1]]
    pairs = zip(outputs, projections, strict=True)
    torch.stack([(o.permute(0, 2, 3, 1) * torch.from_numpy(p)).sum() for o, p in pairs]).sum().backward()

    compared = 0
    for torch_name, parameter in official.named_parameters():
        name, order = names.flax_name(torch_name, parameter.ndim) or ("no rule", ())
        theirs = parameter.grad.permute(order).numpy()
        assert np.abs(ours[name] - theirs).max() <= 1e-4 * np.abs(theirs).max(), name
        compared += 1
    assert compared == len(ours) == 162
