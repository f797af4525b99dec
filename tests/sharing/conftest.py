"""A run that learned nothing, whose affinities are certain."""

from pathlib import Path

import numpy as np
import pytest

from emsam_jax.config import Config, DataConfig, DeclaredVolume, EncoderConfig, Intensity, ModelConfig, PredictConfig
from emsam_jax.segmentation import FragmentParameters, Recipe
from tests.untrained import save_untrained

SIZE = (40.0, 8.0, 8.0)
RAW = np.random.default_rng(0).integers(30, 200, (6, 40, 40), dtype=np.uint8)
RECIPE = Recipe("waterz", 0.4, FragmentParameters("2d", seed_distance=2), chosen={"score": 1.5})


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model with a frozen image encoder, whose prior and grey range are known."""
    folder = tmp_path_factory.mktemp("travel")
    np.save(folder / "raw.npy", RAW)
    np.save(folder / "labels.npy", np.indices(RAW.shape)[2] // 8 + 1)

    def declare(roi: str) -> DeclaredVolume:
        greys = Intensity(1.0, 99.0, percentiles=True)
        raw, labels = (f"{folder}/{name}.npy" for name in ("raw", "labels"))
        return DeclaredVolume(f"tissue {roi}", raw, labels, raw_voxel_size_zyx=SIZE, roi=roi, intensity=greys)

    config = Config(
        name="small",
        model=ModelConfig(encoder=EncoderConfig(size="none"), channels=(4,)),
        data=DataConfig(train=(declare("0:4,:,:"),), test=(declare("4:6,:,:"),), patch=(4, 16, 16)),
        predict=PredictConfig(block=(6, 40, 40)),
    )
    save_untrained(folder / "run", config, SIZE, ranges=((33.0, 190.0),), positives=(0.9,) * 3, prior=(1.0, 0.5, 0.25))
    RECIPE.write(folder / "run/checkpoints/3/postprocess.json")
    return folder / "run"
