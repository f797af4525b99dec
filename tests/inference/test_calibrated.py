"""What is calibrated is predicted so, told apart from what is not, and normalised as in training."""

import dataclasses
import functools

import numpy as np
import pytest

from emsam_jax.config import SHORT_OFFSETS, DeclaredVolume, Intensity
from emsam_jax.inference import Calibrated, Measured, intensity_as_trained
from emsam_jax.inference.output import fingerprint
from emsam_jax.volumes import open_declared, part_of
from tests.inference.brute_force import slide
from tests.inference.models import RAW, WINDOW, OneSided, affinities_of, predict

PRIOR, SHIFT = np.array([1.5, -2.0, 0.25], np.float32), np.array([-0.5, 0.0, 1.0], np.float32)


def odds(share: np.ndarray) -> np.ndarray:
    return share / (1 - share)


def test_the_prior_is_taken_out_before_windows_are_blended():
    """Of both maps, the shift of the refined one only; the coarse logits are -2 times the refined ones."""

    def predict_window(power: float, taken: np.ndarray, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shifted = odds(affinities_of(grey)) ** power / np.exp(taken)
        return shifted / (1 + shifted), np.ones_like(shifted)

    model = Calibrated(OneSided(), PRIOR, SHIFT)
    found = predict(model, RAW, (6, 16, 16), coarse=True)
    for maps, *known in ((found[:3], 1, PRIOR + SHIFT), (found[3:], -2, PRIOR)):
        seen = functools.partial(predict_window, *known)
        expected = slide(RAW / 255, WINDOW, (2, 4, 4), SHORT_OFFSETS, seen)
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5)


def test_another_prior_is_another_prediction():
    taken = [(PRIOR, SHIFT), (0 * PRIOR, SHIFT), (PRIOR, 0 * SHIFT), (PRIOR.copy(), SHIFT.copy())]
    assert len({fingerprint(Calibrated(OneSided(), *both)) for both in taken}) == 3


@pytest.fixture
def specimen(tmp_path):
    """Bright where it is trained on, from section 0 to 7, and dark behind."""
    raw = np.random.default_rng(0).integers(100, 200, (16, 32, 32), dtype=np.uint8)
    raw[8:] //= 10
    for name in ("raw", "other"):
        np.save(tmp_path / f"{name}.npy", raw)
    declared = DeclaredVolume(
        "trained", f"{tmp_path}/raw.npy", roi="0:8,:,:", intensity=Intensity(1.0, 99.0, percentiles=True)
    )
    return open_declared(declared), declared


def test_percentiles_are_those_of_the_training_region(specimen, tmp_path):
    opened, trained = specimen
    measured = Measured(ranges=(opened.intensity_range,), parts=(part_of("training", opened),))
    low, high = opened.intensity_range
    assert 100 <= low < 105
    same = dataclasses.replace(trained, roi="8:16,:,:")
    other = DeclaredVolume(raw=f"{tmp_path}/other.npy")
    for declared in (same, other):
        intensity = intensity_as_trained(declared, [trained], measured)
        assert intensity == Intensity(low, high)
        assert open_declared(dataclasses.replace(declared, intensity=intensity)).intensity_range == (low, high)
    own = Intensity(2.0, 98.0, percentiles=True)
    assert intensity_as_trained(dataclasses.replace(other, intensity=own), [trained], measured) == own


def test_of_several_training_volumes_each_keeps_its_own(specimen, tmp_path):
    """A new volume is normalised as each of them was: by itself."""
    opened, trained = specimen
    second = dataclasses.replace(trained, raw=f"{tmp_path}/other.npy", roi="8:16,:,:")
    specimens = [opened, open_declared(second)]
    ranges = tuple(one.intensity_range for one in specimens)
    measured = Measured(ranges=ranges, parts=tuple(part_of("training", one) for one in specimens))
    for declared, (low, high) in zip((trained, second), ranges, strict=True):
        found = intensity_as_trained(dataclasses.replace(declared, roi=""), [trained, second], measured)
        assert found == Intensity(low, high)
    new = DeclaredVolume(raw=f"{tmp_path}/third.npy")
    assert intensity_as_trained(new, [trained, second], measured) == trained.intensity
