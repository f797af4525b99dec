"""Each fault planted once; on real volumes exactly what is true of them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from scipy import ndimage

from emsam_jax.config import DeclaredVolume, LabelRules
from emsam_jax.errors import UserError
from emsam_jax.volumes import Specimen, Volume, create_volume, open_declared, open_volume
from emsam_jax.volumes.verify import quick_findings
from emsam_jax.volumes.verify.report import sections_to_show, verify

REAL = Path(os.environ.get("EMSAM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))

Make = Callable[..., Volume]
Faults = tuple[list[str], list[str]]


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Cells of a Voronoi diagram in 30x60x60 voxels."""
    shape = (30, 60, 60)
    seeds = np.random.default_rng(0).uniform(0, shape, (60, 3))
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)[..., None, :]
    return 1 + ((points - seeds) ** 2).sum(-1).argmin(-1).astype(np.uint64)


@pytest.fixture(scope="module")
def em(truth: np.ndarray) -> np.ndarray:
    """Bright cells, dark where two meet, and noise."""
    differ = ndimage.maximum_filter(truth, (1, 3, 3)) != ndimage.minimum_filter(truth, (1, 3, 3))
    noise = np.random.default_rng(1).normal(0, 20, truth.shape)
    return np.clip(np.where(differ, 90, 160) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def create(name: str, values: np.ndarray, size: tuple = (40, 4, 4), offset: tuple = (0, 0, 0)) -> Volume:
        volume = create_volume(tmp_path / name, values.shape, values.dtype, size, offset_zyx=offset)
        volume[:] = values
        return volume

    return create


def faults(
    raw: Volume, labels: Volume | None = None, mask: Volume | None = None, rules: LabelRules | None = None
) -> Faults:
    findings, _ = verify(raw, labels, mask, rules=rules)
    texts = {severity: [f.text for f in findings if f.severity == severity] for severity in ("error", "warning")}
    return texts["error"], texts["warning"]


def only(texts: list[str], part: str) -> None:
    assert len(texts) == 1, texts
    assert part in texts[0]


def test_sound_volume_has_no_findings(make: Make, em: np.ndarray, truth: np.ndarray):
    assert faults(make("raw", em), make("labels", truth)) == ([], [])


def test_swapped_shape(make: Make, em: np.ndarray, truth: np.ndarray):
    errors, _ = faults(make("raw", em), make("labels", truth.transpose(2, 1, 0)))
    only(errors, "its axes are swapped")


def test_no_overlap(make: Make, em: np.ndarray, truth: np.ndarray):
    errors, _ = faults(make("raw", em), make("labels", truth, offset=(0, 4000, 0)))
    only(errors, "they share no voxel")


def test_reaching_beyond_the_raw(make: Make, em: np.ndarray, truth: np.ndarray):
    raw, labels = make("raw", em[:20]), make("labels", truth)
    errors, _ = faults(raw, labels)
    only(errors, "reaches beyond")
    assert "--labels_offset" in errors[0]
    Specimen(raw, labels, roi="0:20,:,:")  # whoever says where is taken at his word


def test_sizes_of_one_alone_are_asked_for(tmp_path: Path, make: Make, em: np.ndarray, truth: np.ndarray):
    """Taken as 1 nm, the raw met a tenth of such labels, and was scored on it."""
    np.save(tmp_path / "raw.npy", em)
    labels = make("labels", truth, (40, 10, 10))
    errors, _ = faults(open_volume(tmp_path / "raw.npy"), labels)
    only(errors, "raw.npy has no voxel size, and")
    assert "--voxel_size, or raw_voxel_size_zyx" in errors[0]
    with pytest.raises(UserError, match="give the raw's"):
        open_declared(DeclaredVolume(raw=str(tmp_path / "raw.npy"), labels=labels.url))
    np.save(tmp_path / "truth.npy", truth)
    raw = make("raw", em)
    assert faults(raw, open_volume(tmp_path / "truth.npy"))[0] == []  # the raw's is taken
    declared = DeclaredVolume(raw=raw.url, labels=str(tmp_path / "truth.npy"), labels_voxel_size_zyx=(80, 8, 8))
    with pytest.raises(UserError, match="reaches beyond"):
        open_declared(declared)


def test_no_flip_is_offered_where_sizes_disagree(make: Make, em: np.ndarray, truth: np.ndarray):
    errors, warnings = faults(make("raw", em), make("labels", truth[:, ::-1], (40, 4, 3)))
    assert errors == []
    assert any("no multiples of each other" in text for text in warnings)


def test_voxel_sizes_that_do_not_fit(make: Make, em: np.ndarray, truth: np.ndarray):
    _, warnings = faults(make("raw", em), make("labels", truth, (40, 6, 6)))
    assert any("the sizes are no multiples of each other" in text for text in warnings)


def test_no_voxel_size(tmp_path: Path, em: np.ndarray, truth: np.ndarray):
    np.save(tmp_path / "raw.npy", em)
    np.save(tmp_path / "labels.npy", truth)
    errors, warnings = faults(open_volume(tmp_path / "raw.npy"), open_volume(tmp_path / "labels.npy"))
    assert not errors
    only(warnings, "No voxel size in")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipped_labels(axis: int, make: Make, em: np.ndarray, truth: np.ndarray):
    errors, _ = faults(make("raw", em), make("labels", np.flip(truth, axis)))
    only(errors, f"fits the labels better when they are flipped along {'zyx'[axis]}:")


def test_transposed_labels(make: Make, em: np.ndarray, truth: np.ndarray):
    errors, _ = faults(make("raw", em), make("labels", truth.transpose(0, 2, 1)))
    only(errors, "better when they are transposed to z, x, y:")


def test_labels_of_another_place(make: Make, em: np.ndarray, truth: np.ndarray):
    errors, warnings = faults(make("raw", em), make("labels", np.roll(truth, (9, 17, 23), (0, 1, 2))))
    assert not errors
    assert any("hardly darker on the borders" in text for text in warnings)


def test_inverted_contrast(make: Make, em: np.ndarray, truth: np.ndarray):
    errors, warnings = faults(make("raw", 255 - em), make("labels", truth))
    assert not errors
    only(warnings, "declare intensity.invert")


def test_constant_sections(make: Make, em: np.ndarray, truth: np.ndarray):
    values = em.copy()
    values[[4, 22]] = 77
    errors, warnings = faults(make("raw", values), make("labels", truth))
    assert not errors
    only(warnings, "sections of one value only: 4, 22.")


def test_empty_raw(make: Make, em: np.ndarray, truth: np.ndarray):
    errors, _ = faults(make("raw", 0 * em), make("labels", truth))
    only(errors, "is empty: each of its sections has one value only")


def test_nan(make: Make, em: np.ndarray, truth: np.ndarray):
    values = em.astype(np.float32)
    values[2, 3, 4:6] = np.nan
    errors, _ = faults(make("raw", values), make("labels", truth))
    only(errors, "found 2 voxels of NaN or infinity")


def test_negative_ids(make: Make, em: np.ndarray, truth: np.ndarray):
    ids = truth.astype(np.int64)
    ids[ids == 9] = -9
    errors, _ = faults(make("raw", em), make("labels", ids))
    assert any(f"found {(ids < 0).sum()} voxels of negative ids, the lowest -9" in text for text in errors)
    assert faults(make("raw2", em), make("labels2", ids), rules=LabelRules(unlabelled=(-9,))) == ([], [])


def test_float_ids(make: Make, em: np.ndarray, truth: np.ndarray):
    errors, _ = faults(make("raw", em), make("labels", truth.astype(np.float32)))
    only(errors, "expected labels of whole numbers, found float32")


def test_disconnected_labels(make: Make, em: np.ndarray, truth: np.ndarray):
    ids = truth.copy()
    far = np.unique(truth[:8])[0], np.setdiff1d(truth, truth[:16])[0]
    ids[ids == far[1]] = far[0]
    errors, warnings = faults(make("raw", em), make("labels", ids))
    assert not errors
    only(warnings, f"1 of {len(np.unique(ids))} labels are disconnected; the largest: {far[0]} (2 pieces).")


def test_nothing_labelled(make: Make, em: np.ndarray, truth: np.ndarray):
    mask = make("mask", np.zeros(truth.shape, np.uint8))
    errors, _ = faults(make("raw", em), make("labels", truth), mask)
    only(errors, "no voxel is labelled")


def test_share_of_unlabelled_voxels(make: Make, em: np.ndarray, truth: np.ndarray):
    mask = np.ones(truth.shape, np.uint8)
    mask[:, :15] = 0
    _, facts = verify(make("raw", em), make("labels", truth), make("mask", mask))
    assert any("25.0% of 108000 voxels are unlabelled" in fact for fact in facts)


def test_sections_that_nobody_labelled(make: Make, em: np.ndarray, truth: np.ndarray):
    ids = truth.copy()
    ids[1:29] = 0
    raw, labels = make("raw", em), make("labels", ids)
    _, warnings = faults(raw, labels)
    assert any("sections of background only: 1, 2," in text and "and 18 more" in text for text in warnings)
    _, warnings = faults(raw, labels, rules=LabelRules(background=(), unlabelled=(0,)))
    assert not any("background only" in text for text in warnings)


def test_sparse_truth_far_from_where_one_looks_first(make: Make, tmp_path: Path, em: np.ndarray, truth: np.ndarray):
    """One painted section of many, found by the search, checked and drawn."""
    raw, ids = np.tile(em, (6, 1, 1)), np.zeros((180, 60, 60), np.uint64)
    ids[49] = truth[49 % 30]
    volume, rules = make("raw", raw), LabelRules(background=(), unlabelled=(0,))
    assert faults(volume, make("labels", ids), rules=rules)[0] == []
    picture = str(tmp_path / "a.png")
    findings, facts = verify(volume, make("flipped", ids[:, :, ::-1]), rules=rules, picture=picture)
    only([finding.text for finding in findings if finding.severity == "error"], "flipped along x")
    assert sections_to_show(Specimen(volume, open_volume(tmp_path / "labels")), (ids > 0).sum((1, 2))) == [49, 49, 49]
    assert any("99.4% of 648000 voxels are unlabelled" in fact for fact in facts)


def test_sparse_truth_is_told_and_not_held_against(make: Make, em: np.ndarray, truth: np.ndarray):
    """Objects in pieces are no fault where nobody labelled what lies between."""
    raw, rules = make("raw", em), LabelRules(unlabelled=(0,))
    for name, sections, known in (("lone", [5, 20], "z 0.00%, y 6.67%, x 6.67%"), ("two", [5, 6], "z 3.45%, y 6.67%")):
        ids = np.zeros_like(truth)
        ids[sections] = truth[sections]
        findings, facts = verify(raw, make(name, ids), rules=rules)
        assert findings == []
        (told,) = (fact for fact in facts if "Sparse truth" in fact)
        assert (
            f"2 of 30 sections ({sections[0]}, {sections[1]}): affinities to neighbours are known for {known}" in told
        )
        assert ("paint two sections side by side" in told) == (name == "lone")


def test_one_object_fills_everything(make: Make, em: np.ndarray, truth: np.ndarray):
    ids = np.where(truth > 12, np.uint64(12), truth)
    _, warnings = faults(make("raw", em), make("labels", ids))
    assert any("one object (12) fills 8" in text for text in warnings)


def test_quick_part_finds_a_flip_too_in_its_region_alone(make: Make, em: np.ndarray, truth: np.ndarray):
    assert quick_findings(Specimen(make("raw", em), make("labels", truth))) == []
    half = np.concatenate([truth[:15, ::-1], truth[15:]])
    raw, labels = make("raw2", em), make("labels2", half)
    found = quick_findings(Specimen(raw, labels, roi="0:15,:,:"))
    only([finding.text for finding in found if finding.severity == "warning"], "flipped along y")
    assert quick_findings(Specimen(raw, labels, roi="15:30,:,:")) == []


def test_command_prints_a_report_draws_and_exits(make: Make, em: np.ndarray, truth: np.ndarray, tmp_path: Path):
    for name, values in (("raw", em), ("labels", truth), ("bad", truth[:, ::-1])):
        make(name, values)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "emsam_jax.volumes.verify", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    sound = run("raw", "labels", "--out=a.png")
    assert sound.returncode == 0, sound.stderr
    assert "Warnings: none\nErrors: none" in sound.stdout
    picture = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    assert np.ptp(picture[: len(picture) // 2], axis=-1).max() == 0  # grey above, colours below
    assert np.ptp(picture[len(picture) // 2 :], axis=-1).max() > 0.2
    faulty = run("raw", "bad")
    assert faulty.returncode == 1
    assert "Errors: 1\n  - The raw fits the labels better" in faulty.stdout
    absent = run("raw", "nothing")
    assert absent.returncode == 1
    assert "there is no such file or folder" in absent.stderr
    assert "Traceback" not in absent.stderr
    for out in ("none/a.png", ".", "a.words"):
        refused = run("raw", "labels", f"--out={out}")
        assert refused.returncode == 1
        assert "(--out" in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason=f"needs the small real volumes in {REAL}")
@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("fib25_training2.h5", ["7 of 525 labels are disconnected; the largest: 18 (2 pieces)"]),
        ("gala_train.h5", ["No voxel size in"]),
    ],
)
def test_real_volumes(file: str, expected: list[str]):
    errors, warnings = faults(open_volume(REAL / file / "raw"), open_volume(REAL / file / "labels"))
    assert errors == []
    assert len(warnings) == len(expected)
    for part, text in zip(expected, warnings, strict=True):
        assert part in text
