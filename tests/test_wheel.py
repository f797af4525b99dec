"""What is released: the version, the images, and the wheel, which works alone in an environment of its own."""

import json
import re
import shlex
import shutil
import signal
import site
import subprocess
import sys
import tomllib
import urllib.request
import zipfile
from pathlib import Path

import pytest

from emsam_jax.commands import MODULES
from emsam_jax.config import load_config
from emsam_jax.volumes import open_volume
from emsam_jax.volumes.synthetic import synthetic_volume
from tests.prepare.conftest import write_cremi, write_sections
from tests.programs import PATIENCE, ROOT, environment

IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
QUICKLY = [
    f"--override=--config.{change}"
    for change in (
        "model.encoder.size=none",
        "model.channels=4,8",
        "optim.steps=4",
        "validation.every=4",
        "predict.stride=1,1,1",
    )
]


def copied(image: str) -> list[str]:
    """Files and folders of the repository that an image is made of."""
    return [name for names in re.findall(r"^COPY (.+) \S+$", image, re.MULTILINE) for name in names.split()]


def test_the_version_is_one():
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest, *_ = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert cited == newest == PROJECT["version"]


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_images_are_made_of_what_there_is_by_the_commands_of_the_page(image: Path):
    text, page = image.read_text(), (ROOT / "docs/commands.md").read_text()
    commands = re.findall(r"^# (docker .+)$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert f"\n{command}\n" in page
    build, call = commands
    assert f"--file={image.relative_to(ROOT)} " in build
    (tag,) = re.findall(r"--tag=(\S+)", build)
    assert call.partition(f" {tag} ")[2].split()[0] in MODULES
    assert all((ROOT / name).exists() for name in copied(text))
    (extras,) = re.findall(r"/emsam\[(.+)\]", text)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    (program,) = json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[0])
    assert program in PROJECT["scripts"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what the images copy, and from nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in copied(IMAGES[0].read_text()):
        source, target = ROOT / name, folder / "source" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}"]
    subprocess.run([*build, folder / "source"], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def emsam(wheel: Path):
    """Calls `emsam` as it is installed: dependencies are those of this environment, the package is the wheel's."""
    folder = wheel.parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    (packages,) = folder.glob("lib/*/site-packages")
    # A folder that a .pth file names is searched, but its own .pth files, such as an editable install's, are not read.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    users = environment()
    del users["PYTHONPATH"]

    def call(*arguments: str, within: Path = folder, expected: int = 0) -> str:
        done = subprocess.run(
            [folder / "bin/emsam", *arguments], cwd=within, env=users, check=False, capture_output=True, text=True
        )
        assert done.returncode == expected, done.stdout + done.stderr
        return done.stdout if expected == 0 else done.stderr

    return folder, call, users


def open_in(within: Path, viewer: list[str], users: dict[str, str]) -> bytes:
    """What a browser gets at the URL that a viewer prints; then the viewer is told to end."""
    unbuffered = {**users, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        viewer, cwd=within, env=unbuffered, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    try:
        url = process.stdout.readline().removeprefix("Open ").strip()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=PATIENCE) as page:
            return page.read()
    finally:
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, said.splitlines()[-1]) == (0, "Closed."), errors


def test_the_wheel_holds_the_whole_package(wheel: Path):
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if not name.split("/")[0].endswith(".dist-info")}
    files = (path for path in (ROOT / "emsam_jax").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert names == {path.relative_to(ROOT).as_posix() for path in files}
    assert any(name.startswith("emsam_jax/view/templates/") for name in names)


@pytest.mark.slow
def test_the_wheel_works_alone(emsam):
    folder, call, _ = emsam
    assert call("--version") == f"emsam-jax {PROJECT['version']}\n"
    assert re.findall(r"^  (\w+) ", call("--help"), re.MULTILINE) == list(MODULES)
    assert "did you mean 'train'?" in call("trian", expected=1)
    assert "did you mean 'fib25'?" in call("train", "--config=fib52:gpu", "--plan", expected=1)
    said = call("demo", "--divide=3", *QUICKLY)
    assert "\n$ emsam train --config=demo " in said
    assert "\n$ emsam eval --ckpt=runs/demo" in said
    assert json.loads((folder / "runs/demo/demo.json").read_text())["voi"] > 0
    assert str(ROOT) not in said
    raw = "--raw=runs/demo/test/raw.zarr"
    said = call("segment", "--ckpt=runs/demo", raw, "--out=neurons.zarr", "--method=waterz", "--threshold=0.5")
    assert "\nLabels: " in said


@pytest.mark.slow
@pytest.mark.parametrize("form", ["hdf", "tif", "png"])
def test_anyones_volume_by_the_commands_that_each_names_next(form, emsam, tmp_path):
    """In an empty folder, with nothing edited: raw to what a browser opens, of CREMI's layout and of sections."""
    folder, call, users = emsam
    volume, size = synthetic_volume((28, 64, 64), 0, (40.0, 8.0, 8.0)), []
    if form == "hdf":
        places = [write_cremi(tmp_path / "sample_A.hdf", volume)]
    else:
        labels = volume.labels.astype("u2")
        places = [write_sections(tmp_path / "raw", volume.raw, form), write_sections(tmp_path / "ids", labels, form)]
        size = ["--voxel_size=40,8,8"]
    said = call("prepare", *places, *size, "--hours=0.0005", within=tmp_path)
    assert "s and" in said, said  # a trial was made
    config = load_config(str(tmp_path / "experiment.py"))
    assert config.optim.steps == 10
    train, judge, segment = (shlex.split(line) for line in re.findall(r"^  emsam (.+)$", said, re.MULTILINE))
    assert "Trained for 10 steps" in call(*train, within=tmp_path)
    call(*judge, within=tmp_path)
    scores = json.loads((tmp_path / "runs/experiment/eval/scores.json").read_text())
    assert list(scores["volumes"]) == [config.data.test[0].name]
    (view,) = re.findall(r"^In the viewer: emsam (.+)$", call(*segment, within=tmp_path), re.MULTILINE)
    neurons = open_volume(tmp_path / "runs/experiment-neurons.zarr")
    assert (neurons.shape, neurons.voxel_size_zyx) == (volume.raw.shape, (40, 8, 8))
    assert neurons[...].max() > 1
    assert b"neuroglancer" in open_in(tmp_path, [str(folder / "bin/emsam"), *shlex.split(view)], users)
