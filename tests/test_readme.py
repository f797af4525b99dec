"""Every command and every line of Python in the README and in docs/ runs as it stands there, and every link leads on.

The commands of docs/scaling.md need a cluster; a test of their own gives them a stand-in.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.scores import read_skeletons
from emsam_jax.segmentation import append_edit, ideal_affinities, new_edit
from emsam_jax.segmentation.blockwise import read_edits_report
from emsam_jax.volumes import create_volume, open_volume
from tests.programs import ROOT, environment

# The README last: what it shows of a page, the page has run.
PAGES = [*sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "scaling.md"), ROOT / "README.md"]
# A block that cannot run anywhere says why, in the line above it.
NOT_RUN = re.compile(r"^<!-- not run: [^\n]+ -->\n```.*?^```", re.MULTILINE | re.DOTALL)
TEXT = "\n".join(NOT_RUN.sub("", page.read_text()) for page in PAGES)
COMMANDS = list(
    dict.fromkeys(
        line.split("#")[0].strip()
        for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
        for line in block.splitlines()
    )
)
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
PROGRAMS = [command for command in COMMANDS if command.startswith(("python ", "emsam "))]
MENTIONED = re.findall(r"`(?:EMSAM_DATA=\S+ )?python (benchmarks/\w+\.py)`", TEXT)
# Small stand-ins for what takes long.
QUICKLY = {
    "benchmarks/parity.py": ["--quick", "--sizes=tiny", "--versions=sam2"],
    "benchmarks/encoder.py": ["--sizes=tiny", "--sections=1", "--side=64", "--repeats=1"],
    "benchmarks/convert.py": ["--size=tiny"],
}
RUN_BY_THEIR_ROOMS_TESTS = {
    f"benchmarks/{name}.py"
    for name in (
        "segmentation",
        "scores",
        "loader",
        "train_step",
        "predict",
        "blockwise",
        "engine",
        "scaling",
        "worker_memory",
        "choosing",
        "corrections",
        "pixel_classifier",
        "objects",
    )
}


# Downloads are checked by their digest: here the stand-in's is the official one.
WITH_STAND_IN = """
import hashlib, importlib, pathlib, runpy
official = importlib.import_module("emsam_jax.porting.download").OFFICIAL
for name in official:
    if (file := pathlib.Path("cache", f"{name}.pt")).exists():
        official[name] = official[name]._replace(sha256=hashlib.sha256(file.read_bytes()).hexdigest())
runpy.run_module("emsam_jax", run_name="__main__")
"""
RUN_BELOW = ["demo", "prepare", "verify", "ingest", "convert", "train", "eval", "segment", "objects", "push", "export"]
SMALL = ["model.encoder.size=none", "model.channels=4,8", "predict.stride=1,1,1"]
STEPS = ["optim.steps=5", "validation.every=5"]


def emsam(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "emsam_jax", *arguments]


def run(command: list[str], folder: Path, *, expected: int = 0) -> str:
    users = environment(MPLBACKEND="Agg", XDG_CACHE_HOME=str(folder / "cache"))
    users.pop("EMSAM_DATA", None)  # a user has not our volumes
    done = subprocess.run(command, cwd=folder, env=users, check=False, capture_output=True, text=True)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout if expected == 0 else done.stderr


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs/scaling.md"], ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path):
    for target, _, heading in re.findall(r"\]\((?!http)([^)#]*)(#([^)]*))?\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, heading


def test_the_readme_fits_on_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_blocks_run_or_say_why_not():
    kinds = re.findall(r"^```(\w*)\n(?:.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert set(kinds) <= {"bash", "python", "json", "text"}
    for command in COMMANDS:
        program, *words = command.split()
        assert program in ("make", "python") or (program == "emsam" and words[0] in RUN_BELOW), command


def test_make_targets_exist():
    targets = [command.split("make ")[1] for command in COMMANDS if "make " in command]
    assert {"demo", "test", "test-all", "lint", "docs", "bench"} == set(targets)
    subprocess.run(["make", "-n", *targets], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which `make demo` ran, smaller, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    recipe = subprocess.run(["make", "-n", "demo"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (demo,) = (line.split("-m ")[1] for line in recipe.splitlines() if "emsam_jax.demo" in line)
    flags = [f"--override=--config.{change}" for change in (*SMALL, *STEPS)]
    return folder, run([sys.executable, "-m", *shlex.split(demo), "--divide=2", *flags], folder)


@pytest.mark.slow
def test_the_demo_leaves_scores_and_a_report(demonstrated):
    folder, said = demonstrated
    found = json.loads((folder / "runs/demo/demo.json").read_text())
    scores = json.loads((folder / "runs/demo/eval/scores.json").read_text())
    (methods,) = scores["volumes"].values()
    assert found["voi"] == methods[scores["headline"]]["voi"]
    assert found["baseline_voi"] == min(row["voi"] for row in methods["baseline"]["sweep"])
    assert f"{found['voi']:.3f}" in said
    assert f"{found['baseline_voi']:.3f}" in said
    assert (folder / "runs/demo/eval/report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_commands_on_the_demos_run(demonstrated):
    folder, _ = demonstrated
    for command in PROGRAMS:
        _, program, *flags = shlex.split(command)
        if program == "prepare":
            assert "Next:\n  emsam train --config=experiment." in run(emsam(program, *flags), folder)
        elif program == "verify" and "demo" in command:
            run(emsam(program, *flags), folder)
            assert (folder / "runs/verify.png").stat().st_size > 5_000
        elif program == "train" and ("demo" in command or "experiment" in command):
            flags += [f"--config.{change}" for change in (*SMALL, *STEPS)]
            expected = "patches/s" if "--plan" in flags else "Trained for 5 steps"
            assert expected in run(emsam(program, *flags), folder)
        elif program == "train":
            assert "sample_A" in run(emsam(program, *flags), folder, expected=1)
        elif program == "eval" and "--ckpt" in command:
            assert "Report: " in run(emsam(program, *flags), folder)
        elif program == "objects":
            assert "measured in" in run(emsam(program, *flags), folder)
        elif program in ("push", "export"):
            run(emsam(program, *flags), folder)
        elif program == "segment":
            if "--edits" in command:
                join_first_and_last(folder, **dict(flag.lstrip("-").split("=") for flag in flags))
            said = run(emsam(program, *flags), folder)
            expected = {"--status": "labels: 1 of 1 blocks done", "--dry_run": "Nothing was written."}
            assert next((text for flag, text in expected.items() if flag in command), "Labels: ") in said
    assert not read_edits_report(str(folder / "runs/way/corrected.zarr")).impossible
    assert read_skeletons(str(folder / "runs/way/objects/swc/1.swc"))
    (exported,) = (code for code in PYTHON if "export.deserialize" in code)
    run([sys.executable, "-c", f"{exported}\nassert affinities.shape == (2, 3, 8, 96, 96)"], folder)


def join_first_and_last(folder: Path, *, graph: str, edits: str, **_: str) -> None:
    """Says that the first and the last voxel of a segmentation's objects are of one neuron."""
    labels = open_volume(folder / graph)
    voxels = np.argwhere(labels[...] > 0)[[0, -1]]
    places = voxels * labels.voxel_size_zyx + labels.offset_zyx
    append_edit(str(folder / edits), new_edit("join", [tuple(map(float, place)) for place in places], author="a test"))


@pytest.mark.slow
def test_a_trained_model_and_the_notebook_run_on_the_demos(demonstrated):
    folder, _ = demonstrated
    (loaded,) = (code for code in PYTHON if "emsam_jax.load" in code)
    run([sys.executable, "-c", f"{loaded}\nassert (finer == labels).all() and labels.shape == (16, 96, 96)"], folder)
    cells = json.loads((ROOT / "docs/first_steps.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert len([line for line in code.splitlines() if line]) <= 15
    run([sys.executable, "-c", f"{code}\nassert scores['voi'] > 0; figure.savefig('looked.png')"], folder)
    assert (folder / "looked.png").stat().st_size > 5_000


@pytest.fixture
def at_hand(tmp_path: Path) -> Path:
    """A folder with what the pages take to be there: volumes, and affinities of theirs."""
    cells = np.indices((16, 48, 48)) // np.array([12, 12, 12])[:, None, None, None]
    truth = (cells[1] * 4 + cells[2] + 1).astype(np.uint32)
    borders = find_borders(truth)
    noise = np.random.default_rng(0).normal(0, 10, truth.shape)
    np.save(tmp_path / "raw.npy", np.clip(180 - 100 * borders + noise, 0, 255).astype(np.uint8))
    create_volume(tmp_path / "labels.zarr", truth.shape, truth.dtype, voxel_size_zyx=(40, 4, 4))[...] = truth
    np.savez(tmp_path / "ideal.npz", affinities=ideal_affinities(truth), truth=truth)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    return tmp_path


def find_borders(truth: np.ndarray) -> np.ndarray:
    return np.any([np.roll(truth, 1, axis) != truth for axis in (1, 2)], axis=0)


@pytest.mark.slow
def test_volumes_and_segmentation_run_in_order(at_hand):
    programs = [shlex.split(command) for command in PROGRAMS]
    for program, *words in programs:
        if program == "python":
            run([sys.executable, *words], at_hand)
        elif words[0] in ("ingest", "verify") and "demo" not in words[1]:
            run(emsam(*words), at_hand)
    for _, *words in programs:
        if any(word.startswith("--segmentation") for word in words):
            run(emsam(*words), at_hand)
    setting = "import numpy as np; affinities, truth = np.load('ideal.npz').values()\n"
    elsewhere = (
        "load_image_encoder",
        "emsam_jax.load",
        "export.deserialize",
        "get_config",
    )  # tests/test_guide.py runs configs
    others = (code for code in PYTHON if not any(name in code for name in elsewhere))
    volumes, segmentation, batches, beside, first = others
    run([sys.executable, "-c", f"{volumes}\nassert raw.voxel_size_zyx == (40, 4, 4)"], at_hand)
    judged = "assert score_segmentation(labels, truth)['voi'] < 0.5, score_segmentation(labels, truth)"
    run([sys.executable, "-c", f"{setting}{first}\nassert scores['voi'] < 0.5, scores"], at_hand)
    run([sys.executable, "-c", f"{setting}{first}\n{beside}"], at_hand)
    run([sys.executable, "-c", f"{setting}{segmentation}\n{judged}"], at_hand)
    run([sys.executable, "-c", f"{batches}\nassert batch.affinities.shape == (2, 8, 32, 32, 3)"], at_hand)
    for command in re.findall(r"`python -m (emsam_jax\.\S+ --\w+=\w+\.png)`", TEXT):
        run([sys.executable, "-m", *command.split()], at_hand)
    for picture in ("verify.png", "sheet.png", "synthetic.png"):
        assert (at_hand / picture).stat().st_size > 5_000


@pytest.mark.slow
def test_encoder_and_benchmarks_run_in_order(at_hand, request):
    pytest.importorskip("torch", reason="torch is not installed (the [convert] extra)")
    make_checkpoint = request.getfixturevalue("make_checkpoint")
    _, checkpoint = make_checkpoint("tiny")
    shutil.copy(checkpoint, at_hand / "sam2.1_hiera_large.pt")  # the size is read off the tensors
    cache = at_hand / "cache"
    cache.mkdir()
    shutil.copy(checkpoint, cache / "sam2.1_hiera_tiny.pt")  # tests/porting/test_download.py fetches for real
    for command in PROGRAMS:
        _, program, *flags = shlex.split(command)
        if program == "convert":
            run([sys.executable, "-c", WITH_STAND_IN, program, *flags, f"--cache={cache}"], at_hand)
    (encoder,) = (code for code in PYTHON if "load_image_encoder" in code)
    checked = f"{encoder}\nassert [f.shape[3] for f in features.fpn] == [256] * 3"
    run([sys.executable, "-W", "error", "-c", checked], at_hand)
    assert QUICKLY.keys() | RUN_BY_THEIR_ROOMS_TESTS == set(MENTIONED)
    for program, flags in QUICKLY.items():
        run([sys.executable, program, *flags, f"--out={at_hand}/results"], at_hand)
    assert len(list((at_hand / "results").glob("*.json"))) == len(QUICKLY)
