"""eval.py without a model: stored segmentations and affinities, judged by the ruler of the scores' own tests."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emsam_jax.config import DeclaredVolume, LabelRules
from emsam_jax.errors import UserError
from emsam_jax.evaluation import EvaluationRequest, evaluate, read_subject
from emsam_jax.scores import report_segmentation, score_segmentation
from emsam_jax.segmentation import FragmentParameters, Recipe, segmentations
from emsam_jax.volumes import create_volume, open_declared, open_volume
from tests.evaluation.conftest import SIZE, Study, run_eval
from tests.programs import ROOT, environment


def test_every_number_can_be_computed_again(study, answered):
    scores, _, out = answered
    methods = scores["volumes"]["cells"]
    # No mutex: there are no long-range channels.
    assert set(methods) == {"waterz_q50", "waterz_mean", "waterz_literature", "multicut", "baseline"}
    assert min(methods, key=lambda name: name != scores["headline"]) == next(iter(methods))
    truth, affinities = study.truth[20:], study.affinities[:, 12:]
    for name, entry in methods.items():
        assert {"threshold", "voi_split", "voi_merge", "voi", "arand", "sweep", "fixed", "oracle", "ways"} <= set(entry)
        by_threshold = {row["threshold"]: row for row in entry["sweep"]}
        assert by_threshold[entry["threshold"]]["voi"] == pytest.approx(entry["voi"])
        assert entry["fixed"] == by_threshold[0.5]
        assert entry["oracle"]["voi"] == min(row["voi"] for row in entry["sweep"])
        assert set(entry["ways"]) == {"all", "borders_ignored", "without_largest", "interior"}
        if name == "baseline":
            continue
        fields = scores["recipes"][name]
        (out / "again.json").write_text(json.dumps(fields))
        labels = Recipe.read(out / "again.json").segment(affinities)
        assert score_segmentation(labels, truth)["arand"] == pytest.approx(entry["arand"])
        if name == scores["headline"]:
            assert (np.asarray(open_volume(out / "cells" / "segmentation.zarr")[...]) == labels).all()
            assert entry["ways"]["interior"]["voi"] == pytest.approx(
                report_segmentation(labels, truth)["interior"]["voi"]
            )
    assert Recipe.read(out / "postprocess.json").chosen["where"][0]["roi"] == "8:20,0:48,0:48"
    assert open_volume(out / "cells" / "baseline.zarr").offset_zyx == (200, 0, 0)
    assert scores["config_hash"]
    assert {"numpy", "waterz"} <= set(scores["versions"])
    assert all(stage["voxels_per_second"] > 0 for stage in scores["stages"]["cells"].values())


def test_the_terminal_ends_with_the_scores_side_by_side_and_the_places(answered):
    scores, shown, out = answered
    *_, last_but_two, _, where_scores, where_report, in_the_viewer = shown.rstrip().splitlines()
    assert in_the_viewer == f"In the viewer: emsam view --out={out}"
    assert where_scores == f"Scores: {out}/scores.json"
    assert where_report == f"Report: {out}/report.html"
    baseline = scores["volumes"]["cells"]["baseline"]
    assert last_but_two.startswith("intensity baseline")
    assert [f"{baseline[kind]['voi']:.3f}" in last_but_two for kind in ("fixed", "oracle")] == [True, True]
    assert "fixed  " in shown
    assert "chosen on validation" in shown


def ask(study: Study, out: Path, **changed: Any) -> EvaluationRequest:
    """As eval.py would: test on z 20-39."""
    stored = {name: f"{study.folder}/{name}.zarr" for name in ("raw", "labels")}
    volume = {**stored, **{name: changed.pop(name) for name in ("labels", "mask", "rules") if name in changed}}
    test = DeclaredVolume(name="cells", **volume)
    held_out = changed.pop("held_out", "")
    validation = (dataclasses.replace(test, name="held out", roi=held_out),) if held_out else ()
    given = {"affinities": f"{study.folder}/affinities.zarr", "roi": "20:40,:,:", "methods": ("waterz_mean",)}
    return EvaluationRequest(out=str(out), test=(test,), validation=validation, **{**given, **changed})


def test_what_is_frozen_depends_on_validation_alone(study, answered, tmp_path):
    scores, *_ = answered
    other = study.truth.copy()
    other[20:] = np.random.default_rng(1).permutation(other.max() + 1)[other[20:]] % 7
    create_volume(tmp_path / "labels.zarr", other.shape, other.dtype, SIZE)[...] = other
    again = evaluate(ask(study, tmp_path / "out", labels=f"{tmp_path}/labels.zarr", held_out="8:20,:,:"), print)
    for name in ("waterz_mean", "baseline"):
        before, after = scores["recipes"][name], json.loads(json.dumps(again["recipes"][name]))
        assert after["chosen"]["score"] == before["chosen"]["score"]
        but = {"chosen": 0, "probability": 0}  # which the headline alone has
        assert {**after, **but} == {**before, **but}
    assert again["volumes"]["cells"]["waterz_mean"]["voi"] > scores["volumes"]["cells"]["waterz_mean"]["voi"]


def test_without_validation_thresholds_are_the_literatures(study, tmp_path):
    told: list[str] = []
    scores = evaluate(ask(study, tmp_path), told.append)
    assert "the literature's fixed 0.5" in "".join(told)
    entry = scores["volumes"]["cells"]["waterz_mean"]
    (labels,) = segmentations(study.affinities[:, 12:], [0.5], fragments=FragmentParameters("3d"))
    assert entry["threshold"] == 0.5
    assert entry["voi"] == pytest.approx(score_segmentation(labels, study.truth[20:])["voi"])


def test_sparse_truth_judges_the_whole_prediction_where_it_is_labelled(study, tmp_path):
    """A lone section and a stroke: all affinities are segmented, and labelled voxels alone are compared."""
    known = np.zeros(study.truth.shape, bool)
    known[27], known[33, 20:24] = True, True
    known &= study.truth > 0
    painted = np.where(known, study.truth, 0)
    create_volume(tmp_path / "painted.zarr", painted.shape, painted.dtype, SIZE)[...] = painted
    sparse = {"labels": f"{tmp_path}/painted.zarr", "rules": LabelRules(unlabelled=(0,))}
    entry = evaluate(ask(study, tmp_path / "out", **sparse), print)["volumes"]["cells"]["waterz_mean"]
    (labels,) = segmentations(study.affinities[:, 12:], [0.5], fragments=FragmentParameters("3d"))
    expected = score_segmentation(labels[known[20:]][None, None], study.truth[known][None, None])
    for name in ("voi_split", "voi_merge", "arand"):
        assert entry[name] == pytest.approx(expected[name])
    assert entry["ways"]["borders_ignored"]["voxels"] > 500


def test_a_stored_segmentation_with_a_mask_and_unlabelled_ids(study, tmp_path):
    labels = (study.truth // 2).astype(np.int32)  # pairs of cells are one
    mask = np.zeros(labels.shape, np.uint8)
    mask[:, :, 10:] = 1
    for name, values in (("found", labels), ("mask", mask)):
        create_volume(tmp_path / f"{name}.zarr", values.shape, values.dtype, SIZE)[...] = values
    request = ask(
        study,
        tmp_path / "out",
        affinities="",
        segmentation=f"{tmp_path}/found.zarr",
        mask=f"{tmp_path}/mask.zarr",
        rules=LabelRules(background=(0, 5), unlabelled=(3, 4)),
    )
    found = evaluate(request, print)["volumes"]["cells"]["segmentation"]
    expected = score_segmentation(labels[20:], study.truth[20:], mask=mask[20:], ignore_truth=(0, 3, 4, 5))
    assert (found["threshold"], found["sweep"]) == (None, [])
    for name in ("voi_split", "voi_merge", "arand"):
        assert found[name] == pytest.approx(expected[name])
    assert found["voi_split"] == pytest.approx(0, abs=1e-9)
    assert found["voi_merge"] > 0.3


def test_expected_run_length_along_skeletons(study, tmp_path):
    """A line along x, cut in two segments after 30 of its 48 nodes; another one lies above what is judged."""
    halves = np.ones((40, 48, 48), np.uint8)
    halves[..., 30:] = 2
    create_volume(tmp_path / "halves.zarr", halves.shape, halves.dtype, SIZE)[...] = halves
    for name, z in (("line", 255), ("above", 55)):
        nodes = [f"{x + 1} 0 {10 * x + 5} 105 {z} 1 {x or -1}\n" for x in range(48)]
        (tmp_path / f"{name}.swc").write_text("".join(nodes))
    halved = {"affinities": "", "segmentation": f"{tmp_path}/halves.zarr", "skeletons": str(tmp_path)}
    methods = evaluate(ask(study, tmp_path / "out", **halved), print)["volumes"]["cells"]
    found, expected = methods["segmentation"]["runs"], (290**2 + 170**2) / 470
    assert (found["erl"], found["erl_max"], found["split"]) == pytest.approx((expected, 470, 10 / 470))
    assert 0 < methods["baseline"]["runs"]["erl"] <= 470
    assert f"<td>{expected / 1000:.3f}</td><td>0.470</td>" in (tmp_path / "out/report.html").read_text()
    declared = DeclaredVolume(raw=f"{study.folder}/raw.zarr", labels=f"{study.folder}/labels.zarr", roi="20:40,:,:")
    made = read_subject(open_declared(declared)).with_skeletons("truth")
    assert len(made.skeletons) > 10
    assert made.score_runs(study.truth[20:])["runs"]["normalised_erl"] == pytest.approx(1)
    assert made.score_runs(halves[20:])["runs"]["correct"] == 0  # each half holds many cells


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"skeletons": "nowhere.csv"}, "expected skeletons as SWC or CSV, found what cannot be read"),
        ({"roi": "4:20,:,:"}, "expected affinities for all of 4:20"),
        ({"held_out": "8:21,:,:"}, "hold the same voxels of .* choose parts that don.t overlap, or let it through"),
        ({"affinities": ""}, "Expected one of --ckpt, --affinities and --segmentation, found none"),
        ({"labels": ""}, "has no labels"),
        ({"affinities": "nowhere.zarr"}, "there is no such file or folder"),
        ({"methods": ("watershed",)}, "The methods are waterz_q50"),
        ({"methods": ("mutex",), "held_out": "8:20,:,:"}, "None of the methods mutex can be used .* 3 channels"),
        ({"standings": "snemi"}, "ac3ac4, fib25"),
    ],
)
def test_errors_are_a_sentence(study, tmp_path, changed, sentence):
    with pytest.raises(UserError, match=sentence):
        evaluate(ask(study, tmp_path / "out", **changed))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"roi": "20:80,0:48,0:48"}, "expected z0:z1,y0:y1,x0:x1 within 0:40,0:48,0:48; found '20:80,0:48,0:48'."),
        ({"raw": "", "validation_roi": ""}, "--affinities needs --raw and --labels to be judged by"),
    ],
)
def test_the_command_line_says_it_and_fails(study, tmp_path, changed, sentence):
    done = run_eval(**study.flags(out=str(tmp_path / "out"), **changed))
    assert done.returncode == 1
    assert done.stderr.startswith("eval: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_sizes_that_would_move_the_truth_are_asked_for(study, tmp_path):
    np.save(tmp_path / "raw.npy", study.raw)
    np.save(tmp_path / "labels.npy", study.truth)
    out = str(tmp_path / "out")
    size = ",".join(str(2 * side) for side in SIZE)
    larger = {"labels": f"{tmp_path}/labels.npy", "labels_voxel_size": size, "roi": "", "validation_roi": ""}
    for changed, sentence in (
        ({"raw": f"{tmp_path}/raw.npy"}, "has no voxel size, and"),
        (larger, "labels.npy reaches beyond"),
    ):
        done = run_eval(**study.flags(out=out, **changed))
        assert done.returncode == 1
        assert sentence in done.stderr
        assert "voxel_size, or " in done.stderr or "--labels_voxel_size" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_flood_filling_network_on_fib25(fib25_folder, tmp_path):
    done = run_eval(
        raw=f"{fib25_folder}/fib25_training2.h5/raw",
        labels=f"{fib25_folder}/fib25_training2.h5/labels",
        segmentation=f"{fib25_folder}/fib25_training2_ffn.h5/labels",
        roi="150:250,0:250,0:250",
        standings="fib25",
        name="FIB-25",
        out=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())["volumes"]["FIB-25"]
    found = [round(scores["segmentation"][name], 3) for name in ("voi_split", "voi_merge", "arand")]
    assert found == [0.904, 0.937, 0.106]
    assert scores["baseline"]["oracle"]["voi"] == pytest.approx(2.28, abs=0.05)
    page = (tmp_path / "report.html").read_text()
    assert len(re.findall('alt="Errors in section', page)) == 3
    assert len(re.findall('class="kind (?:splits|merges)"', page)) == 10
    assert "flood-filling network" in page  # as known, beside the same labels as judged
    assert len(page) < 6e6


def test_a_full_disk_is_a_sentence(study: Study, tmp_path: Path):
    """In a namespace of its own, where anybody may mount a small disk; the report alone takes more."""
    own = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    mount = f"mount -t tmpfs -o size=64k tmpfs {tmp_path}"
    if not shutil.which("unshare") or subprocess.run([*own, mount], check=False, capture_output=True).returncode:
        pytest.skip("needs `unshare --map-root-user --mount` and to mount a tmpfs in it, which is not permitted here")
    volumes = " ".join(f"--{name}={study.folder}/labels.zarr" for name in ("labels", "segmentation"))
    run = f"{sys.executable} {ROOT}/eval.py --raw={study.folder}/raw.zarr {volumes} --out={tmp_path}/eval"
    script = f"{mount}; {run} || echo ended with $?; find {tmp_path} -name '*__lock' -o -name '.*'"
    done = subprocess.run([*own, script], check=True, capture_output=True, text=True, env=environment())
    assert done.stdout.splitlines()[-1] == "ended with 1"
    assert re.search(
        rf"^eval: {tmp_path}/eval/\S+ cannot be written: .*No space left on device.*\n\Z", done.stderr, re.M
    )
    assert "Traceback" not in done.stderr
