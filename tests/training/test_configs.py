"""Every config that comes with the project makes a model and a step."""

import typing
from pathlib import Path

import jax
import pytest

import emsam_jax.configs
from emsam_jax.config_file import load_config
from emsam_jax.training.initial import abstract_state
from emsam_jax.training.sharding import make_mesh
from emsam_jax.training.step import make_train_step
from emsam_jax.training.stream import abstract_batch, make_target

FILES = sorted(Path(emsam_jax.configs.__path__[0]).glob("[!_]*.py"))


def variants(file: Path) -> list[str]:
    import runpy

    known = runpy.run_path(str(file))["get_config"].__annotations__.get("variant")
    return [f"{file}:{name}" for name in typing.get_args(known)] or [str(file)]


@pytest.mark.parametrize("path", [path for file in FILES for path in variants(file)], ids=lambda path: Path(path).name)
def test_it_builds(path):
    config = load_config(path)
    state, frozen = abstract_state(config, make_mesh(1, jax.devices()[:1]))
    after, metrics = jax.eval_shape(make_train_step(config), state, frozen, abstract_batch(config))
    assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(lambda leaf: leaf.shape, state)
    assert metrics["loss"].shape == ()
    assert ("loss_coarse" in metrics) is (config.model.encoder.size != "none")
    assert bool(frozen) is (config.model.encoder.frozen and config.model.encoder.size != "none")
    window = make_target(config).window(config.data.augmentation)
    assert all(side >= patch for side, patch in zip(window, config.data.patch, strict=True))


def test_the_file_says_its_command_and_where_the_data_come_from():
    for file in FILES:
        head = file.read_text().split('"""')[1]
        assert f"python train.py --config=emsam_jax/configs/{file.name}" in head, file
        assert "Data: " in head, file
        assert "Result: " in head, file
