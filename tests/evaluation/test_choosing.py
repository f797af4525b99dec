"""What training calls to validate: the choice equals what its parts give, and needs no jax."""

import subprocess
import sys

import numpy as np
import pytest

from emsam_jax.evaluation import choose_on_specimen
from emsam_jax.evaluation.choosing import Example, choose_recipes
from emsam_jax.evaluation.subject import read_subject
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import FragmentParameters, SegmentationError, segmentations
from emsam_jax.volumes import DeclaredVolume, open_declared
from tests.evaluation.conftest import Study

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
QUICK = (FragmentParameters("3d", 0.5, 3),)


def declare(study: Study, roi: str) -> DeclaredVolume:
    return DeclaredVolume(
        name="held out", raw=f"{study.folder}/raw.zarr", labels=f"{study.folder}/labels.zarr", roi=roi
    )


def test_recipe_and_rows_are_those_of_the_parts(study):
    specimen = open_declared(declare(study, "8:20,0:48,0:48"))
    affinities, truth = study.affinities[:, :12], study.truth[8:20]
    options = {"thresholds": THRESHOLDS, "fragments": QUICK}
    recipe, rows = choose_on_specimen(affinities, specimen, methods=["waterz_mean", "waterz_q50"], step=7, **options)
    assert set(rows) == {"waterz_mean", "waterz_q50"}
    for scorer in ("mean", "q50"):
        labels = segmentations(affinities, THRESHOLDS, fragments=QUICK[0], scorer=scorer)
        expected = [score_segmentation(found, truth)["voi"] for found in labels]
        assert [row["voi"] for row in rows[f"waterz_{scorer}"]] == pytest.approx(expected)
    found = score_segmentation(recipe.segment(affinities), truth)["voi"]
    assert recipe.chosen["score"] == pytest.approx(found)
    assert recipe.chosen["step"] == 7
    assert recipe.chosen["where"] == [{"volume": "held out", "roi": "8:20,0:48,0:48"}]
    assert found <= 1.05 * min(row["voi"] for own in rows.values() for row in own)


def test_several_volumes_count_alike(study):
    boxes = ("8:20,0:48,0:48", "20:40,0:48,0:48")
    subjects = [read_subject(open_declared(declare(study, box))) for box in boxes]
    parts = [study.affinities[:, :12], study.affinities[:, 12:]]
    examples = [Example(*pair) for pair in zip(subjects, parts, strict=True)]
    options = {"thresholds": THRESHOLDS, "fragments": QUICK}
    both = choose_recipes(examples, ["multicut"], **options)["multicut"]
    alone = [choose_recipes([example], ["multicut"], **options)["multicut"] for example in examples]
    for i, row in enumerate(both.rows):
        assert row["arand"] == pytest.approx(np.mean([choice.rows[i]["arand"] for choice in alone]))
    assert len(both.recipe.chosen["where"]) == 2


def test_affinities_of_another_place_are_refused(study):
    specimen = open_declared(declare(study, "8:20,0:48,0:48"))
    with pytest.raises(SegmentationError, match="expected affinities of its labelled region 8:20"):
        choose_on_specimen(study.affinities, specimen)


def test_it_needs_no_jax():
    code = "import sys, emsam_jax.evaluation; assert not {'jax', 'flax', 'orbax'} & set(sys.modules), 'jax'"
    subprocess.run([sys.executable, "-c", code], check=True)
