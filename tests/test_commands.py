"""Every command's help, and the ways in which commands end."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ["train.py", "eval.py", "segment.py", "convert/sam2_to_flax.py"]
MODULES = {
    f"-m emsam_jax.{path.replace('/', '.').removesuffix('.__main__')}": f"emsam_jax/{path}.py"
    for path in (
        *("demo", "data/sheet", "training/summary"),
        *("volumes/ingest/__main__", "volumes/verify/__main__", "volumes/synthetic/__main__"),
    )
}
DEFINED = re.compile(r'(?:DEFINE|define)_\w+\(\s*"(\w+)"')
SOURCES = {**{script: script for script in SCRIPTS}, **MODULES}


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


@pytest.mark.parametrize("command", SOURCES)
def test_help_is_a_page_of_purpose_examples_and_every_flag(command: str):
    done = call(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    page = done.stdout
    assert max(map(len, page.splitlines())) <= 100
    usage, purpose, examples, *_ = page.split("\n\n")
    assert usage.startswith(f"usage: python {command}")
    assert re.match(r"[A-Z]\w+s .+\.$", " ".join(purpose.split()))
    defined = DEFINED.findall((ROOT / SOURCES[command]).read_text())
    for flag in defined:
        entries = re.findall(rf"^  --(?:\[no\])?{flag}(?:=\S+)?(?:  +|\n +)(.+)", page, re.MULTILINE)
        assert len(entries) == 1, flag
        assert re.match("[A-Z]", entries[0]), f"--{flag}: {entries[0]}"
    shown = examples.splitlines()
    assert shown.pop(0) == "Examples:"
    assert len(shown) >= 2
    for example in shown:
        assert example.startswith(f"  python {command} ")
        assert set(re.findall(r" --(?:config\.)?(\w+)", example)) <= {*defined, "optim", "model", "data"}, example
    assert ("--config.FIELD=VALUE" in page) == ("config" in defined)


def test_pages_name_only_flags_that_exist():
    sources = [path for place in (".", "convert", "benchmarks", "emsam_jax") for path in (ROOT / place).glob("*.py")]
    sources += (ROOT / "emsam_jax").glob("*/**/*.py")
    defined = {flag for path in sources for flag in DEFINED.findall(path.read_text())}
    of_others = {"help", "gres", "nthreads", "port", "protocol", "resources"}  # absl's, Slurm's and Dask's
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        named = set(re.findall(r"(?<![\w-])--(?:no)?([a-z_]+)\b(?![-.])", page.read_text()))
        assert named <= defined | of_others, page


def test_a_mistyped_flag_and_a_stray_word_are_answered_in_a_sentence():
    for arguments, sentence in (
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
