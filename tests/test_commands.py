"""Every command's help, and the ways in which commands end."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from emsam_jax.commands import MODULES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "emsam_jax"
SCRIPTS = {"train.py": "train", "eval.py": "eval", "segment.py": "segment", "convert/sam2_to_flax.py": "convert"}
ON_THEIR_OWN = ["data.sheet", "training.summary", "volumes.synthetic.__main__"]  # pages of no `emsam NAME`
DEFINED = re.compile(r'(?:(?:DEFINE|define)_\w+\(\s*"|define_(?=config\(\)))(\w+)')
PAGES = {
    **{f"emsam {name}": module for name, module in MODULES.items()},
    **{f"python -m emsam_jax.{module.removesuffix('.__main__')}": module for module in ON_THEIR_OWN},
}


def call(*arguments: str, folder: Path = ROOT, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_outside_the_environment_each_says_how_to_get_in(script):
    done = call("-S", script, path="")  # without what is installed
    assert done.returncode == 1
    assert "not installed here. Activate the environment" in done.stderr
    assert done.stderr.count("\n") == 1


def emsam(*arguments: str) -> subprocess.CompletedProcess[str]:
    return call("-m", "emsam_jax", *arguments)


def source(module: str) -> str:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text()


def test_the_commands_are_the_pages_that_there_are():
    texts = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    pages = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path, text in texts.items()
        if "\ndef define_flags() -> None:\n" in text
    }
    assert sorted(pages) == sorted([*MODULES.values(), *ON_THEIR_OWN])
    done = emsam("--help")
    assert done.returncode == 0
    entries = re.findall(r"^  (\w+)  +(\S.+(?:\n {12}.+)*)", done.stdout, re.MULTILINE)
    said = {name: " ".join(text.split()) for name, text in entries}
    assert list(said) == list(MODULES)  # in the order of the work
    for name, module in MODULES.items():
        assert source(module).startswith(f'"""{said[name]}\n'), name
    assert emsam().stdout == done.stdout


def test_scripts_and_modules_are_the_same_code():
    for script, name in SCRIPTS.items():
        assert re.findall(r'call\("(\w+)"\)', (ROOT / script).read_text()) == [name]
    for called, name in (("train.py", "train"), ("-m emsam_jax.volumes.ingest", "ingest")):
        page = emsam(name, "--help").stdout
        assert call(*called.split(), "--help").stdout == page.replace(f"emsam {name}", f"python {called}")


@pytest.mark.parametrize("command", PAGES)
def test_help_is_a_page_of_purpose_examples_and_every_flag(command: str):
    done = call(*shlex.split(command.replace("emsam ", "python -m emsam_jax "))[1:], "--help")
    assert done.returncode == 0, done.stderr
    page = done.stdout
    assert max(map(len, page.splitlines())) <= 100
    usage, purpose, examples, *_ = page.split("\n\n")
    assert usage.startswith(f"usage: {command} ")
    assert re.match(r"[A-Z]\w+s .+\.$", " ".join(purpose.split()))
    defined = [flag for flag in DEFINED.findall(source(PAGES[command])) if flag.islower()]
    for flag in defined:
        entries = re.findall(rf"^  --(?:\[no\])?{flag}(?:=\S+)?(?:  +|\n +)(.+)", page, re.MULTILINE)
        assert len(entries) == 1, flag
        assert re.match("[A-Z]", entries[0]), f"--{flag}: {entries[0]}"
    shown = examples.splitlines()
    assert shown.pop(0) == "Examples:"
    assert len(shown) >= 2
    for example in shown:
        assert example.startswith(f"  {command} ")
        assert set(re.findall(r" --(?:config\.)?(\w+)", example)) <= {*defined, "optim", "model", "data"}, example
    assert ("--config.FIELD=VALUE" in page) == ("config" in defined)


def test_pages_name_only_flags_that_exist():
    sources = [*(ROOT / "benchmarks").glob("*.py"), *PACKAGE.rglob("*.py")]
    defined = {flag for path in sources for flag in DEFINED.findall(path.read_text())}
    of_others = {"help", "version"} | {"gres", "nthreads", "port", "protocol", "resources"}  # Slurm's and Dask's
    of_others |= {"file", "gpus", "rm", "tag", "volume"}  # Docker's
    of_others |= {"signal", "requeue", "worker", "command"}  # of sbatch and gcloud
    of_others |= {"mode", "verify_dataset_integrity", "c"}  # of other tools for neurons
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        named = set(re.findall(r"(?<![\w-])--(?:no)?([a-z_]+)\b(?![-.])", page.read_text()))
        assert named <= defined | of_others, page


def test_what_is_mistyped_is_answered_in_a_sentence_with_the_nearest_that_there_is():
    for arguments, sentence in (
        (["-m", "emsam_jax", "trian"], "emsam: there is no command 'trian'; did you mean 'train'? (see emsam --help)"),
        (["-m", "emsam_jax", "--config=a.py"], "emsam: there is no command '--config=a.py'; expected one of prepare, "),
        (
            ["-m", "emsam_jax", "train", "--optim.steps=1"],
            "train: Unknown command line flag 'optim.steps'. Did you mean: config.optim.steps? ",
        ),
        (
            ["-m", "emsam_jax", "train", "--cofnig.seed=1"],
            "train: Unknown command line flag 'cofnig.seed'. Did you mean: config.seed? ",
        ),
        (["train.py", "--confg=a.py"], "train: Unknown command line flag 'confg'. Did you mean: config? (see --help)"),
        (["train.py", "--workdir=a"], "train: Expected --config=FILE.py[:VARIANT], found none (see --help)."),
        (["train.py", "runs/a", "--config=a.py"], "train: unexpected argument 'runs/a'"),
        (["-m", "emsam_jax.volumes.verify"], "verify: expected RAW [LABELS] [MASK], found none (see --help)"),
    ):
        done = call(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith(sentence)
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("UserError('--a: expected b.')", 1, "fails: --a: expected b.\n"),
        ("StoppedError('Stopped by SIGTERM.')", 75, "fails: Stopped by SIGTERM.\n"),
        (
            "OSError(28, 'No space left on device')",
            1,
            "fails: o.zarr cannot be written or read: No space left on device.\n",
        ),
        (
            "FileNotFoundError(2, 'No such file', 'a.zarr')",
            1,
            "fails: a.zarr cannot be written or read: No such file.\n",
        ),
    ],
)
def test_errors_end_a_command_with_a_sentence_and_their_exit_code(error: str, code: int, said: str, tmp_path: Path):
    (tmp_path / "fails.py").write_text(
        "from emsam_jax.command_line import flags, run\n"
        "from emsam_jax.errors import StoppedError, UserError\n"
        "flags.DEFINE_string('out', 'o.zarr', '')\n"
        f"def main(_):\n    raise {error}\n"
        "run(main, 'Fails.')\n"
    )
    done = call("fails.py", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)
