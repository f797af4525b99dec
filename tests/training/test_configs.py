"""Every config that comes with the project trains, and says what it takes."""

import dataclasses
import json
import runpy
import shlex
import typing
from pathlib import Path

import jax
import numpy as np
import pytest

import emsam_jax.configs
from emsam_jax.config import (
    CheckpointConfig,
    Config,
    DeclaredVolume,
    LogConfig,
    Selection,
    check_patch,
    check_weights,
    load_config,
    to_dict,
)
from emsam_jax.inference import Measured
from emsam_jax.model import read_arrays, warn_of_padding
from emsam_jax.model.fgnet import HIERAS
from emsam_jax.model.padding import padding_shares
from emsam_jax.training.sharding import make_mesh
from emsam_jax.training.start_page import start_page
from emsam_jax.training.state import abstract_state
from emsam_jax.training.stream import Stream
from emsam_jax.volumes.synthetic import synthetic_volume

FILES = sorted(Path(emsam_jax.configs.__path__[0]).glob("[!_]*.py"))


def variants(file: Path) -> list[str]:
    known = runpy.run_path(str(file))["get_config"].__annotations__.get("variant")
    return [f"{file}:{name}" for name in typing.get_args(known)] or [str(file)]


PATHS = [path for file in FILES for path in variants(file)]
each_config = pytest.mark.parametrize("path", PATHS, ids=lambda path: Path(path).name)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> dict[bool, DeclaredVolume]:
    """By whether voxels are isotropic; as few as a patch of `shrunk` takes."""
    made = {}
    for isotropic, shape, size in ((False, (8, 96, 96), (40.0, 8.0, 8.0)), (True, (40, 40, 40), (10.0, 10.0, 10.0))):
        folder, volume = tmp_path_factory.mktemp("volume"), synthetic_volume(shape, 0, size)
        np.save(folder / "raw.npy", volume.raw)
        np.save(folder / "labels.npy", volume.labels)
        made[isotropic] = DeclaredVolume(
            raw=f"{folder}/raw.npy", labels=f"{folder}/labels.npy", raw_voxel_size_zyx=size
        )
    return made


def shrunk(config: Config, volume: DeclaredVolume) -> Config:
    """With few voxels and channels, and a toy in place of SAM2, whose weights are not at hand."""
    encoder = config.model.encoder
    if encoder.size != "none":
        encoder = dataclasses.replace(encoder, size="toy", weights="random" if encoder.weights else "")
    model = dataclasses.replace(config.model, encoder=encoder, projected=4, channels=(4, 4))
    side = 32 // encoder.upsample
    data = dataclasses.replace(
        config.data,
        train=(volume,),
        validation=(),
        test=(),
        weights=(),
        patch=(4, side, side),
        threads=2,
        selection=Selection(largest=1.0),
    )
    return dataclasses.replace(
        config,
        init_from="",
        model=model,
        data=data,
        optim=dataclasses.replace(config.optim, batch=1, steps=2),
        checkpoint=CheckpointConfig(every=1),
        log=LogConfig(every=1),
    )


@pytest.mark.slow
@each_config
def test_it_trains_two_steps(path, volumes, start_run, rows_of, tmp_path):
    config = load_config(path)
    encoder, config = config.model.encoder, shrunk(config, volumes[config.model.isotropic])
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    code, _, err = start_run(tmp_path / "run", f"--config={tmp_path / 'config.json'}").end()
    assert code == 0, err
    assert (tmp_path / "run/encoder").exists() is (encoder.frozen and encoder.size != "none")
    rows = rows_of(tmp_path / "run")
    assert [(row["step"], row["skipped"]) for row in rows] == [(1, 0), (2, 0)]
    for row in rows:
        assert np.isfinite(row["loss"])
        assert ("loss_coarse" in row) is (encoder.size != "none")
    first, second = (read_arrays(tmp_path / f"run/checkpoints/{step}/params") for step in (1, 2))
    last = "refined_decoder.logits.kernel"
    assert np.abs(first[last] - second[last]).max() > 0


@each_config
def test_patches_fit_the_model_and_fill_sam2s_windows(path):
    config = load_config(path)
    encoder, (_, y, x) = config.model.encoder, config.data.patch
    check_patch(config.model, config.data.patch)
    check_weights(encoder)
    if encoder.size not in ("none", "toy"):
        assert max(padding_shares(HIERAS[encoder.size], y * encoder.upsample, x * encoder.upsample)) <= 0.25


def test_a_run_begins_with_its_encoder_and_the_share_of_padding(volumes, tmp_path):
    config = load_config(
        str(FILES[0].with_name("ac34.py")), ["--config.data.patch=4,96,96", "--config.model.encoder.size=tiny"]
    )
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, train=(volumes[False],)))
    mesh = make_mesh(1, jax.devices()[:1])
    state, frozen = abstract_state(config, mesh)
    seen = {"mesh": mesh, "stream": Stream(config), "params": state.params, "frozen": frozen, "measured": Measured()}
    page = start_page(config, tmp_path, origin="from scratch", **seen)
    assert "encoder  SAM2's Hiera tiny, weights of weights/sam2.1_hiera_b+, frozen\n" in page
    assert f"warning  {warn_of_padding(config.model, config.data.patch)}\n" in page
    assert "82%" in page


def test_fine_tuning_starts_from_the_run_that_the_header_makes(monkeypatch):
    """The commands of each header, in their order, with the environment that stands before them."""
    found = 0
    for file in FILES:
        made = []
        for line in file.read_text().split('"""')[1].splitlines():
            words = shlex.split(line) if "emsam train" in line else []
            if not words:
                continue
            flags = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
            with monkeypatch.context() as patch:
                for name, value in (word.split("=") for word in words[: words.index("emsam")]):
                    patch.setenv(name, value)
                config = load_config(flags["config"])
            if config.init_from:
                assert config.init_from == made[-1], line
                found += 1
            made.append(flags["workdir"])
        assert made, file
    assert found == 4  # ac34, fib25, two samples of CREMI


def test_the_file_says_where_the_data_come_from():
    for file in FILES:
        head = file.read_text().split('"""')[1]
        assert "Data: " in head, file
        assert "Result: " in head, file
