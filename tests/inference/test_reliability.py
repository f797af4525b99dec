"""What of an affinity of 0.5 is true, against draws from known shares and labels gone through voxel by voxel."""

import numpy as np
import pytest

from emsam_jax.config import Config, DataConfig, DeclaredVolume, ModelConfig
from emsam_jax.inference import ODDS, count_affinities, describe_reliability, find_shift
from emsam_jax.inference.reliability import true_affinities
from emsam_jax.volumes import Box, open_declared

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -4, 0))
CONFIG = Config(data=DataConfig(widening="2d"), model=ModelConfig(offsets=OFFSETS))
BOX = Box((1, 3, 0), (5, 20, 17))


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory):
    """Cells, a strip of background, and a column that nobody labelled."""
    folder = tmp_path_factory.mktemp("cells")
    labels = np.random.default_rng(0).integers(1, 4, (3, 5, 5)).astype(np.uint64).repeat(2, 0).repeat(5, 1).repeat(5, 2)
    labels[:, 12], labels[:, :, 8] = 0, 99
    np.save(folder / "labels.npy", labels)
    np.save(folder / "raw.npy", np.zeros(labels.shape, np.uint8))
    declared = DeclaredVolume(raw=f"{folder}/raw.npy", labels=f"{folder}/labels.npy")
    declared.rules.unlabelled = (99,)
    return open_declared(declared), labels


def test_truth_is_what_training_wants(specimen):
    opened, labels = specimen

    def label(voxel: np.ndarray) -> int:
        return int(labels[tuple(voxel)]) if ((voxel >= 0) & (voxel < labels.shape)).all() else 99

    def is_border(voxel: np.ndarray) -> bool:
        around = [np.add(voxel, (0, y, x)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        return label(voxel) not in (0, 99) and any(label(near) not in (0, 99, label(voxel)) for near in around)

    truth, valid = true_affinities(opened, BOX, CONFIG)
    for channel, offset in enumerate(OFFSETS):
        for place in np.ndindex(BOX.shape):
            here = np.add(BOX.start, place)
            there = here + offset
            ids = label(here), label(there)
            border = channel < 3 and (is_border(here) or is_border(there))
            assert valid[channel][place] == (99 not in ids)
            assert truth[channel][place] == (ids[0] == ids[1] and not {0, 99} & set(ids) and not border)


@pytest.mark.parametrize(("steep", "tolerance"), [(1.0, 0.03), (1.5, 0.1)])
def test_the_shift_is_where_half_are_true(steep, tolerance):
    """Most affinities are high, as those to neighbours are, and say too much or too little by a known amount."""
    rng = np.random.default_rng(1)
    known = rng.poisson(3000 * np.exp(0.4 * ODDS))
    wanted = np.array([-1.3, 0.0, 0.7, 2.2])
    ones = [rng.binomial(known, 1 / (1 + np.exp(-steep * (ODDS - shift)))) for shift in wanted]
    counts = np.stack([np.stack([known, one]) for one in ones])
    np.testing.assert_allclose(find_shift(counts), wanted, atol=tolerance)
    never = np.stack([known, known])[None]
    assert find_shift(never) == find_shift(0 * never) == 0  # nothing to learn from


def test_what_is_reported_can_be_counted(specimen):
    """Affinities that are right as often as they say, but for the last channel, which says 0.55 of all."""
    opened, _ = specimen
    truth, valid = true_affinities(opened, BOX, CONFIG)
    rng = np.random.default_rng(2)
    affinities = rng.random(truth.shape).astype(np.float32)
    affinities[-1] = 0.55
    found = describe_reliability(count_affinities(affinities, opened, BOX, CONFIG))
    for channel, (said, true, known) in enumerate(zip(affinities, truth, valid, strict=True)):
        near = known & (said >= 0.4) & (said <= 0.6)
        assert found["known_at_half"][channel] == pytest.approx(near.sum(), rel=0.15)
        assert found["true_at_half"][channel] == pytest.approx(true[near].mean(), abs=0.05)
    gap = abs(truth[-1][valid[-1]].mean() - 0.55)
    assert found["calibration_error"][-1] == pytest.approx(gap, abs=0.01)
    nothing = describe_reliability(np.zeros((1, 2, len(ODDS)), np.int64))
    assert nothing == {"true_at_half": [None], "known_at_half": [0], "calibration_error": [None]}
