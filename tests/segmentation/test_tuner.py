"""The recipe's JSON and the choice of a plateau."""

from pathlib import Path

import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import (
    THRESHOLDS,
    FragmentParameters,
    Held,
    Recipe,
    choose,
    ideal_affinities,
    segment_affinities,
    sweep,
)
from emsam_jax.segmentation.cleaning import CleanUp
from emsam_jax.segmentation.tuner import Curve, log_odds, tune

CELLS = np.kron(np.arange(1, 9).reshape(2, 2, 2), np.ones((8, 16, 16), int))
ODDS = log_odds(THRESHOLDS)


def draw(scorer: str, scores: np.ndarray) -> Curve:
    rows = ({"threshold": threshold, "voi": float(score)} for threshold, score in zip(THRESHOLDS, scores, strict=True))
    return Curve(Recipe(scorer=scorer), tuple(rows))


def test_the_grid_is_even_in_log_odds_and_holds_the_half():
    assert (THRESHOLDS[0], THRESHOLDS[10], THRESHOLDS[-1]) == (0.05, 0.5, 0.995)
    np.testing.assert_allclose(np.diff(ODDS), np.log(19) / 10, atol=0.01)
    assert max(np.diff([t for t in THRESHOLDS if t >= 0.9])) < 0.03


def test_the_lowest_curve_wins_not_the_widest_plateau():
    wide = draw("mean", 1 + 0.01 * np.abs(ODDS))  # within 15% of the other everywhere
    deep = draw("q50", 0.9 + 0.2 * np.abs(ODDS - 3))  # narrow, at 0.953
    recipe = choose([wide, deep]).recipe
    assert recipe.scorer == "q50"
    assert recipe.threshold == pytest.approx(0.953, abs=0.01)


def test_a_single_lucky_threshold_does_not_count():
    lucky = np.full(len(THRESHOLDS), 1.3)
    lucky[4] = 0.9
    recipe, rows = choose([draw("mean", lucky), draw("q50", 1.1 + 0.02 * np.abs(ODDS))])
    assert (recipe.scorer, recipe.threshold) == ("q50", 0.5)
    assert recipe.chosen["score"] == pytest.approx(1.1, abs=0.01)
    assert recipe.chosen["voi"] == rows[10]["voi"] == 1.1


def test_a_cliff_does_not_push_the_choice_away_from_it():
    scores = np.where(ODDS < 3.6, 1 - 0.05 * ODDS, 5)  # falls slowly, then everything merges
    at = choose([draw("mean", scores)]).recipe.threshold
    assert scores[THRESHOLDS.index(at)] < 1.05 * scores.min()


def count_alone(best: int) -> Held:
    """A chain whose voxels join one after the other over the log odds; the score is lowest where `best` are alone."""
    chain = np.zeros((3, 1, 1, 66), np.float32)
    chain[2, 0, 0, 1:] = 1 / (1 + np.exp(np.linspace(-8, 8, 65)))
    return Held(chain, lambda labels: {"voi": 1 + abs(int((labels == 0).sum()) - best) / 10})


@pytest.mark.parametrize(("left", "expected"), [(9, 6.0), (53, -5.0)])
def test_a_minimum_beyond_the_grid_extends_it(left: int, expected: float):
    (curve,) = sweep([count_alone(left)], [Recipe("components")])
    recipe = choose([curve]).recipe
    assert log_odds([recipe.threshold])[0] == pytest.approx(expected, abs=0.3)
    assert len(curve.rows) > len(THRESHOLDS)
    assert "warning" not in recipe.chosen


def test_a_minimum_that_is_never_reached_is_told():
    recipe = choose(sweep([count_alone(-9)], [Recipe("components")])).recipe
    assert recipe.threshold > 0.999
    assert "VOI still falls towards the upper end of the thresholds tried, 0.05 to 0.999" in recipe.chosen["warning"]


def test_several_volumes_are_averaged_threshold_by_threshold():
    rows = [{"voi": voi} for voi in (1.0, 2.0, 4.0)]
    volumes = [Held(ideal_affinities(CELLS), lambda _, row=row: row) for row in rows]
    (curve,) = sweep(volumes, [Recipe("components")])
    assert curve.thresholds == list(THRESHOLDS)  # to the last bit: rows are found by them
    assert [row["voi"] for row in curve.rows] == pytest.approx([7 / 3] * len(THRESHOLDS))
    assert 0.05 < choose([curve]).recipe.threshold < 0.995
    nothing = Held(ideal_affinities(CELLS), lambda _: {"voi": None})
    with pytest.raises(UserError, match="finite VOI on each of the 2 validation volumes"):
        sweep([volumes[0], nothing], [Recipe("components")])


def test_tuning_on_a_volume_and_back_through_json(tmp_path: Path) -> None:
    affinities = ideal_affinities(CELLS)
    fragments = [FragmentParameters("2d", seed_distance=2), FragmentParameters("3d", seed_distance=4)]
    start = Recipe(clean_up=CleanUp(min_size=20, fill=True, voxel_size_zyx=(1.0, 1.0, 1.0)), chosen={"step": 500})
    recipe, curves = tune(
        affinities,
        lambda labels: score_segmentation(labels, CELLS)["voi"],
        fragments=fragments,
        thresholds=[0.2, 0.5, 0.7, 0.8, 0.99],
        start=start,
    )
    assert [len(curve.rows) for curve in curves] == 4 * [5]
    assert min(curve.smoothed.min() for curve in curves) == recipe.chosen["score"]
    assert recipe.chosen["step"] == 500
    recipe.write(tmp_path / "postprocess.json")
    again = Recipe.read(tmp_path / "postprocess.json")
    assert again == recipe
    labels = again.segment(affinities)
    options = {"fragments": recipe.fragments, "scorer": recipe.scorer, "clean_up": recipe.clean_up}
    np.testing.assert_array_equal(labels, segment_affinities(affinities, threshold=recipe.threshold, **options))
    assert score_segmentation(labels, CELLS)["voi"] == pytest.approx(recipe.chosen["voi"])


@pytest.mark.parametrize("method", ["multicut", "mutex", "components"])
def test_other_methods_are_tuned_over_what_they_have(method: str) -> None:
    offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, -6), (0, -6, 0), (-4, 0, 0))
    start = Recipe(method=method)
    fragments = [FragmentParameters("3d", seed_distance=4), FragmentParameters("2d")]
    _, curves = tune(
        ideal_affinities(CELLS, offsets),
        lambda labels: score_segmentation(labels, CELLS)["voi"],
        fragments=fragments,
        thresholds=[0.4, 0.5],
        start=start,
        offsets=offsets,
    )
    assert len(curves) == (2 if method == "multicut" else 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "expected a recipe as JSON"),
        ("[" * 200_000, "expected a recipe as JSON"),
        ('{"threshold": NaN}', "NaN is no number of JSON"),
        ("[1]", "the recipe: expected an object with names"),
        ('{"methods": 3}', 'found "methods"'),
        ('{"threshold": "half"}', 'threshold: expected a number between 0 and 1, found "half"'),
        ('{"threshold": 7}', "threshold: expected a number between 0 and 1, found 7"),
        ('{"threshold": -1}', "threshold: expected .* found -1"),
        ('{"threshold": true}', "threshold: expected .* found true"),
        ('{"threshold": 1e999}', "threshold: expected .* found Infinity"),
        ('{"method": "evil"}', 'method: expected one of waterz, multicut, mutex, components, found "evil"'),
        ('{"scorer": "evil"}', "scorer: expected one of mean, q10"),
        ('{"strides": [0, 2, 2]}', r"strides\[0\]: expected a whole number from 1 .* found 0"),
        ('{"strides": ["up", 2]}', r'strides: expected 3 numbers \(z, y, x\), found \["up", 2\]'),
        ('{"fragments": {"sort": "2d"}}', r'found "fragments\.sort"'),
        ('{"fragments": {"seed_distance": 1000000000}}', r"fragments\.seed_distance: .* found 1000000000"),
        ('{"clean_up": {"fill": "no"}}', r'clean_up\.fill: expected true or false, found "no"'),
        ('{"clean_up": {"voxel_size_zyx": [1, 0, 1]}}', r"clean_up\.voxel_size_zyx\[1\]: .* found 0"),
        ('{"chosen": {"score": "best"}}', r'chosen\.score: expected a number .* found "best"'),
        ('{"chosen": 3}', "chosen: expected an object"),
    ],
)
def test_a_broken_recipe_is_refused_by_file_field_and_value(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "postprocess.json").write_text(text)
    with pytest.raises(UserError, match=rf"postprocess\.json: .*{sentence}"):
        Recipe.read(tmp_path / "postprocess.json")


def test_a_recipe_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "postprocess.json"
    Recipe(threshold=0.25).write(path)
    before = path.read_bytes()
    with path.open("rb") as open_before:
        Recipe(threshold=0.75, chosen={"where": "x" * 100_000}).write(path)
        assert open_before.read() == before  # another file took its place: nobody reads a part
    assert Recipe.read(path).threshold == 0.75
    assert [file.name for file in tmp_path.iterdir()] == ["postprocess.json"]
