"""What training calls to validate: the choice equals what its parts give, and needs no jax."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from emsam_jax.config import DeclaredVolume
from emsam_jax.evaluation import Example, best_method, choose_recipes, read_subject
from emsam_jax.evaluation.subject import folder_of, name_apart
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import THRESHOLDS, Choice, FragmentParameters, Recipe, segmentations
from emsam_jax.volumes import open_declared
from tests.evaluation.conftest import Study

QUICK = (FragmentParameters("3d", 0.5, 3),)


def read(study: Study, sections: slice) -> Example:
    """As affinities and truth of some sections."""
    declared = DeclaredVolume(
        name="held out",
        raw=f"{study.folder}/raw.zarr",
        labels=f"{study.folder}/labels.zarr",
        roi=f"{sections.start}:{sections.stop},0:48,0:48",
    )
    affinities = study.affinities[:, sections.start - 8 : sections.stop - 8]
    return Example(read_subject(open_declared(declared)), affinities)


def test_recipe_and_rows_are_those_of_the_parts(study):
    example, truth = read(study, slice(8, 20)), study.truth[8:20]
    regional = FragmentParameters("3d", seed_distance=0)
    ways = {
        "waterz_mean": ("mean", QUICK[0]),
        "waterz_q50": ("q50", QUICK[0]),
        "waterz_literature": ("q50_max", regional),
    }
    choices = choose_recipes([example], list(ways), fragments=QUICK, step=7)
    assert set(choices) == set(ways)
    for name, (scorer, fragments) in ways.items():
        recipe, rows = choices[name]
        labels = segmentations(example.affinities, THRESHOLDS, fragments=fragments, scorer=scorer)
        expected = {at: score_segmentation(found, truth)["voi"] for at, found in zip(THRESHOLDS, labels, strict=True)}
        found = {row["threshold"]: row["voi"] for row in rows}
        assert {at: found[at] for at in THRESHOLDS} == pytest.approx(expected)
        assert score_segmentation(recipe.segment(example.affinities), truth)["voi"] == pytest.approx(
            found[recipe.threshold]
        )
        assert recipe.chosen["voi"] == found[recipe.threshold] <= 1.05 * min(expected.values())
        assert recipe.chosen["step"] == 7
        assert recipe.chosen["where"] == [{"volume": "held out", "roi": "8:20,0:48,0:48"}]


def test_three_volumes_count_alike(study):
    parts = [slice(8, 18), slice(18, 28), slice(28, 38)]
    examples = [read(study, part) for part in parts]
    together = choose_recipes(examples, ["waterz_mean"], fragments=QUICK)["waterz_mean"]
    alone = [choose_recipes([example], ["waterz_mean"], fragments=QUICK)["waterz_mean"] for example in examples]
    for row in together.rows[:: len(together.rows) // 5]:
        own = [next(one for one in rows if one["threshold"] == row["threshold"]) for _, rows in alone]
        assert row["arand"] == pytest.approx(np.mean([one["arand"] for one in own]))
    assert together.recipe.threshold in [row["threshold"] for row in together.rows]
    assert len(together.recipe.chosen["where"]) == 3


def test_what_segment_py_refuses_wins_only_where_there_is_nothing_else():
    scores = {"mutex": 0.5, "waterz_mean": 0.8, "multicut": 0.7}
    choices = {
        name: Choice(Recipe(name.partition("_")[0], chosen={"score": score}), ()) for name, score in scores.items()
    }
    assert best_method(choices) == "multicut"
    assert best_method({"mutex": choices["mutex"]}) == "mutex"


def test_names_come_from_file_and_region_and_are_unique():
    def declare(name: str, roi: str, raw: str = "data/a.h5/raw") -> DeclaredVolume:
        return DeclaredVolume(name=name, raw=raw, roi=roi)

    volumes = [
        *(declare("", "0:9,:,:"), declare("", "9:20,:,:"), declare("", "9:20,:,:"), declare("", "", "data/b.zarr")),
        *(declare("cells 1", ""), declare("cells_1", ""), declare("mine", "")),
    ]
    names = [volume.name for volume in name_apart(volumes)]
    assert names[:4] == ["a.h5/raw 0:9,:,:", "a.h5/raw 9:20,:,:", "a.h5/raw 9:20,:,: (2)", "data/b.zarr"]
    assert names[4:] == ["cells 1", "cells_1 (2)", "mine"]
    assert all(folder_of(one) != folder_of(other) for one, other in itertools.combinations(names, 2))


def test_it_needs_no_jax():
    code = "import sys, emsam_jax.evaluation; assert not {'jax', 'flax', 'orbax'} & set(sys.modules), 'jax'"
    subprocess.run([sys.executable, "-c", code], check=True)
