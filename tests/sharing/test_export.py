"""The exported file runs where this package is not, and gives the model's affinities."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from emsam_jax.config import Config, DataConfig, EncoderConfig, ModelConfig
from emsam_jax.errors import UserError
from emsam_jax.inference import load_trained
from emsam_jax.sharing.exported_model import export_model
from emsam_jax.sharing.push import PushRequest, push
from tests.programs import environment
from tests.sharing.conftest import SIZE
from tests.untrained import save_untrained

# In the folder of the file, isolated from this one; jax alone.
ALONE = """
import sys
import numpy as np
from jax import export

exported = export.deserialize(bytearray(open("model.jax_export", "rb").read()))
np.save("affinities.npy", exported.call(np.load("windows.npy")))
assert not [name for name in sys.modules if name.startswith(("emsam_jax", "flax", "orbax"))]
print(*exported.platforms, exported.in_avals[0].shape)
"""


def run_alone(folder: Path, windows: np.ndarray) -> tuple[str, np.ndarray]:
    np.save(folder / "windows.npy", windows)
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE], cwd=folder, env=environment(), check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), np.load(folder / "affinities.npy")


def affinities_of(path: Path, windows: np.ndarray) -> np.ndarray:
    """As prediction decodes them."""
    model = load_trained(path).model

    def predict(windows):
        b, z, y, x = windows.shape
        features = model.encode(windows.reshape(b * z, y, x, 1))
        return model.decode(windows[..., None], tuple(f.reshape(b, z, *f.shape[1:]) for f in features)).refined

    return np.moveaxis(np.asarray(jax.nn.sigmoid(jax.jit(predict)(windows))), -1, 1)


def test_the_file_runs_without_this_package(run_folder, tmp_path):
    found = export_model(str(run_folder), str(tmp_path / "model.jax_export"))
    assert (found.window, found.ranges) == ((4, 16, 16), ((33.0, 190.0),))
    windows = np.random.default_rng(0).random((3, 4, 16, 16), np.float32)
    said, affinities = run_alone(tmp_path, windows)
    assert said == "cpu cuda tpu (b, 4, 16, 16)"
    np.testing.assert_allclose(affinities, affinities_of(run_folder, windows), rtol=0, atol=1e-6)
    with pytest.raises(UserError, match=r"--window: expected sides \(z, y, x\) that are multiples of"):
        export_model(str(run_folder), str(tmp_path / "other"), (0, 16, 16))


@pytest.mark.slow
def test_a_guided_network_with_a_frozen_encoder_travels_in_both_forms(tmp_path):
    encoder = EncoderConfig(size="toy", weights="random")
    model = ModelConfig(encoder=encoder, projected=8, channels=(4, 8))
    config = Config(name="guided", model=model, data=DataConfig(patch=(4, 32, 32)))
    save_untrained(tmp_path / "run", config, SIZE, prior=(1.0, 0.5, 0.25))
    pushed = Path(push(PushRequest(str(tmp_path / "run"), str(tmp_path / "pushed"))))
    windows = np.random.default_rng(0).random((2, 4, 32, 32), np.float32)
    expected = affinities_of(tmp_path / "run", windows)
    np.testing.assert_array_equal(affinities_of(pushed, windows), expected)
    export_model(str(pushed), str(tmp_path / "model.jax_export"))
    _, affinities = run_alone(tmp_path, windows)
    np.testing.assert_allclose(affinities, expected, rtol=0, atol=1e-6)
