"""A model card says what was measured, what is missing, and the command by which the scores come out again."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import emsam_jax
from emsam_jax.errors import UserError
from emsam_jax.evaluation import EvaluationRequest, evaluate
from emsam_jax.sharing.model_card import Said
from emsam_jax.sharing.push import PushRequest, push
from tests.programs import environment

SAID = Said(license="cc-by-4.0", data="A phantom, drawn by numpy.")


@pytest.fixture(scope="module")
def judged(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with the scores of its test volume."""
    folder = shutil.copytree(run_folder, tmp_path_factory.mktemp("judged") / "run")
    evaluate(EvaluationRequest(f"{folder}/eval", ckpt=str(folder), methods=("waterz_mean",)), lambda line: None)
    return folder


def read_card(model: str) -> str:
    return Path(model, "README.md").read_text()


def test_a_card_without_scores_says_what_is_missing(run_folder, tmp_path):
    card = read_card(push(PushRequest(str(run_folder), str(tmp_path / "small"), dtype="float16")))
    assert card.startswith("---\nlibrary_name: emsam-jax\ntags:\n- ")
    assert "None were measured: no scores.json was pushed with this model." in card
    assert card.count("Not said by who pushed it.") == 3  # what the data are, their licence, the parameters'
    assert "Voxels: 40 x 8 x 8 nm (z, y, x). Grey values that became 0 and 1, of each volume: 33 to 190." in card
    assert "stored as float16 |" in card
    assert "waterz, threshold 0.4" in card
    assert Path(tmp_path, "small/model.safetensors").stat().st_size < 20_000


@pytest.mark.slow
def test_a_card_shows_what_eval_measured_and_paths_as_asked(judged, tmp_path):
    """With three seeds the means and Student's intervals: 1, 2 and 3 bits give 2 -+ 4.303 / sqrt(3)."""
    scores = json.loads((judged / "eval/scores.json").read_text())
    scores["config"]["predict"]["symmetries"] = 8  # judged otherwise than it was trained to predict
    del scores["config"]["model"]["fold"]  # by a version that did not have it
    seeds = []
    for bits in (1.0, 2.0, 3.0):
        scores["volumes"]["tissue 4:6,:,:"]["waterz_mean"]["ways"]["all"]["voi"] = bits
        seeds.append(str(tmp_path / f"{bits}.json"))
        Path(seeds[-1]).write_text(json.dumps(scores))
    place = str(judged.parents[1])
    request = PushRequest(str(judged), str(tmp_path / "a"), scores=tuple(seeds), said=SAID, paths=((place, "DATA"),))
    card = read_card(push(request))
    assert 'license: "cc-by-4.0"\n' in card
    assert "Data: A phantom, drawn by numpy." in card
    assert "| all voxels |" in card
    assert re.search(r"Means of 3 seeds.*?\| all voxels \|[^|]+\|[^|]+\| 2\.000 \(-0\.484 to 4\.484\) \|", card, re.S)
    assert re.search(r"\| \*\*waterz, mean \(our fragments\)\*\* \| 0\.\d+ \|.* VOI at 0\.5|oracle VOI", card)
    assert f"--ckpt={tmp_path}/a" in card
    assert json.loads((tmp_path / "a/config.json").read_text())["config"]["predict"]["symmetries"] == 8
    everything = "".join(path.read_text() for path in (tmp_path / "a").glob("*.json"))
    assert place not in everything + card.replace(str(tmp_path), "")


@pytest.mark.slow
def test_the_cards_command_reproduces_the_scores(judged, tmp_path):
    """On another machine: of the volumes that the config names, only the test volume is there."""
    model = push(PushRequest(str(judged), str(tmp_path / "small")))
    command = re.findall(r"```bash\n(emsam eval .*?)\n```", read_card(model), re.S)[-1].replace("\\\n", "")
    _, *line = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", "emsam_jax", *line, f"--out={tmp_path}/again", "--methods=waterz_mean"],
        cwd=tmp_path,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    before, after = (
        json.loads(Path(path, "scores.json").read_text()) for path in (judged / "eval", tmp_path / "again")
    )
    for name in ("voi", "arand", "threshold"):
        (one,), (other,) = ([m["waterz_mean"][name] for m in each["volumes"].values()] for each in (before, after))
        assert one == other


@pytest.mark.slow
def test_scores_of_another_model_are_refused(judged, run_folder, tmp_path):
    scores = json.loads((judged / "eval/scores.json").read_text())
    scores["model"]["step"] = 7
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    request = PushRequest(str(run_folder), str(tmp_path / "small"), scores=(str(tmp_path / "scores.json"),))
    with pytest.raises(UserError, match=r"expected scores of step 3 of .*, found step 7; call emsam eval again"):
        push(request)
    with pytest.raises(UserError, match=r"expected scores by emsam eval, found none \(FileNotFoundError\)"):
        push(dataclasses.replace(request, scores=(str(tmp_path / "no.json"),)))
    assert not (tmp_path / "small/README.md").exists()


@pytest.mark.parametrize("name", ["fib25", "no_labels"])
def test_the_shipped_models_are_what_their_cards_say(name: str):
    folder = Path(__file__).parents[2] / "models" / name
    model = emsam_jax.load(str(folder))
    scores = json.loads((folder / "scores.json").read_text())
    found = scores["volumes"]["FIB-25 150:250"][scores["headline"]]
    card = (folder / "README.md").read_text()
    assert f"| {found['voi']:.3f} | {found['arand']:.3f} |" in card
    assert model.recipe.threshold == scores["recipes"][scores["headline"]]["threshold"]
    assert (folder / "model.safetensors").stat().st_size < 2.2e6
