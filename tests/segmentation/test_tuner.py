"""The recipe's JSON and the choice of a plateau."""

from pathlib import Path

import numpy as np
import pytest

from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import (
    CleanUp,
    FragmentParameters,
    Recipe,
    SegmentationError,
    ideal_affinities,
    segment_affinities,
    tune,
)
from emsam_jax.segmentation.tuner import Trial, choose_plateau

CELLS = np.kron(np.arange(1, 9).reshape(2, 2, 2), np.ones((8, 16, 16), int))


def curve(scorer: str, scores: list[float]) -> list[Trial]:
    return [Trial(Recipe(scorer=scorer, threshold=i / 10), score) for i, score in enumerate(scores, 1)]


def test_the_middle_of_the_widest_plateau_is_taken() -> None:
    lucky = curve("mean", [2.0, 1.0, 3.0, 2.0, 2.0, 2.0])
    broad = curve("q50", [2.0, 1.04, 1.02, 1.03, 2.0, 1.02])
    chosen = choose_plateau([lucky, broad])
    assert (chosen.scorer, chosen.threshold) == ("q50", 0.3)
    assert chosen.chosen == {"score": 1.02, "best_score": 1.0, "plateau": [0.2, 0.4]}
    assert choose_plateau([lucky, broad], tolerance=0.001).scorer == "mean"
    with pytest.raises(SegmentationError, match="finite score for each of its 1 trials"):
        choose_plateau([curve("mean", [float("nan")])])


def test_tuning_on_a_volume_and_back_through_json(tmp_path: Path) -> None:
    affinities = ideal_affinities(CELLS)
    fragments = [FragmentParameters("2d", seed_distance=2), FragmentParameters("3d", seed_distance=4)]
    start = Recipe(clean_up=CleanUp(min_size=20, fill=True, voxel_size_zyx=(1.0, 1.0, 1.0)), chosen={"step": 500})
    recipe, trials = tune(
        affinities,
        lambda labels: score_segmentation(labels, CELLS)["voi"],
        fragments=fragments,
        thresholds=[0.2, 0.5, 0.7, 0.8, 0.99],
        start=start,
    )
    assert len(trials) == 2 * 2 * 5
    assert min(trial.score for trial in trials) == recipe.chosen["best_score"]
    assert recipe.chosen["step"] == 500
    recipe.write(tmp_path / "postprocess.json")
    again = Recipe.read(tmp_path / "postprocess.json")
    assert again == recipe
    labels = again.segment(affinities)
    options = {"fragments": recipe.fragments, "scorer": recipe.scorer, "clean_up": recipe.clean_up}
    np.testing.assert_array_equal(labels, segment_affinities(affinities, threshold=recipe.threshold, **options))
    assert score_segmentation(labels, CELLS)["voi"] == pytest.approx(recipe.chosen["score"])


@pytest.mark.parametrize("method", ["multicut", "mutex", "components"])
def test_other_methods_are_tuned_over_what_they_have(method: str) -> None:
    offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, -6), (0, -6, 0), (-4, 0, 0))
    start = Recipe(method=method, offsets=offsets)
    fragments = [FragmentParameters("3d", seed_distance=4), FragmentParameters("2d")]
    _, trials = tune(
        ideal_affinities(CELLS, offsets),
        lambda labels: score_segmentation(labels, CELLS)["voi"],
        fragments=fragments,
        thresholds=[0.4, 0.5],
        start=start,
    )
    assert len(trials) == (4 if method == "multicut" else 2)


def test_a_recipe_keeps_long_range_offsets(tmp_path: Path) -> None:
    recipe = Recipe("mutex", 0.6, offsets=((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -9, 0)), strides=(1, 4, 4))
    recipe.write(tmp_path / "postprocess.json")
    assert Recipe.read(tmp_path / "postprocess.json") == recipe


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"threshold": "half"}', '{"methods": 3}', '{"fragments": {"sort": "2d"}}']
)
def test_a_broken_recipe_gets_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "postprocess.json").write_text(text)
    with pytest.raises(SegmentationError, match=r"postprocess\.json must hold a post-processing recipe"):
        Recipe.read(tmp_path / "postprocess.json")
