"""Models from Python: what arrays give is what files give, with the training's grey range, at any size."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import emsam_jax
from emsam_jax.errors import UserError
from emsam_jax.inference import declare_as_trained, load_trained, predict_affinities, settings_from
from emsam_jax.sharing.loaded import LoadedModel
from emsam_jax.volumes import open_declared
from tests.programs import environment
from tests.sharing.conftest import RAW, RECIPE, SIZE


@pytest.fixture(scope="module")
def model(run_folder) -> LoadedModel:
    return emsam_jax.load(run_folder)


@pytest.fixture(scope="module")
def affinities(model) -> np.ndarray:
    return model.predict(RAW, voxel_size=SIZE, progress=False)


def test_an_array_gives_what_its_file_gives(model, affinities, run_folder, tmp_path):
    """By which emsam eval and emsam segment predict."""
    trained = load_trained(run_folder)
    (declared,) = trained.config.data.train
    assert model.voxel_size_zyx == SIZE
    specimen = open_declared(dataclasses.replace(declare_as_trained(declared, trained), roi=""))
    settings = dataclasses.replace(settings_from(trained.config), dtype="float32")
    stored = predict_affinities(trained.model, specimen, tmp_path / "affinities.zarr", settings)
    np.testing.assert_allclose(affinities, stored[...], rtol=0, atol=1e-6)


def test_any_size_and_grey_type_are_taken_and_scaled_as_the_training(model, affinities):
    """The training's range, 33 to 190, in raw values; smaller than a patch is mirrored, other types are the same."""
    same = model.predict(RAW.astype(">f4"), progress=False)
    np.testing.assert_array_equal(same, affinities)
    np.testing.assert_array_equal(model.predict(np.clip(RAW, 33, 190), progress=False), affinities)
    small = model.predict(RAW[:2, :5, :7], progress=False)
    assert small.shape == (3, 2, 5, 7)
    assert small.dtype == np.float32
    assert ((small > 0) & (small < 1)).all()


def test_labels_are_the_recipes_of_the_affinities(model, affinities):
    assert model.recipe == RECIPE
    np.testing.assert_array_equal(model.segment(RAW, progress=False), RECIPE.segment(affinities))
    other = dataclasses.replace(RECIPE, threshold=0.7).segment(affinities)
    np.testing.assert_array_equal(model.segment(RAW, threshold=0.7, progress=False), other)


def test_what_is_no_volume_is_refused(model):
    for array, size, said in (
        (RAW, (30, 8, 8), r"The array: expected voxels of 40 x 8 x 8 nm .* found 30 x 8 x 8 nm"),
        (RAW, (8, 8), r"voxel_size: expected three numbers"),
        (RAW[0], None, r"The array: expected grey values \[z, y, x\], found the shape \(40, 40\)"),
        (RAW > 3, None, r"found the shape .* and the type bool"),
        (np.full((4, 8, 8), np.nan, np.float32), None, "The array: expected numbers, found NaN"),
    ):
        with pytest.raises(UserError, match=said):
            model.predict(array, voxel_size=size)


def test_importing_the_package_loads_no_jax():
    code = "import sys, emsam_jax; print(sorted({'jax', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=True, capture_output=True)
    assert done.stdout == b"[]\n"
