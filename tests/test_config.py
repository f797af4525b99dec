"""Configs from files and command lines, and what is said where one is wrong."""

import dataclasses
from pathlib import Path

import pytest

from emsam_jax.config import Config, DataConfig, OptimConfig
from emsam_jax.config_file import (
    ConfigError,
    differences,
    from_dict,
    load_config,
    split_overrides,
    to_dict,
)
from emsam_jax.model import EncoderConfig, ModelConfig
from emsam_jax.volumes import DeclaredVolume

FILE = """
from typing import Literal
from emsam_jax.config import Config, DataConfig
from emsam_jax.volumes import DeclaredVolume

def get_config(variant: Literal["frozen", "finetuned"] = "frozen") -> Config:
    return Config(name=variant, data=DataConfig(train=(DeclaredVolume(raw="a.zarr"), DeclaredVolume(raw="b.zarr"))))
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "experiment.py"
    path.write_text(FILE)
    return str(path)


def test_variants(file):
    assert load_config(file).name == "frozen"
    assert load_config(f"{file}:finetuned").name == "finetuned"


def test_overrides_have_the_fields_type(file):
    found = load_config(
        file,
        [
            "--config.optim.peak_lr=5e-5",
            "--config.optim.steps=1e3",
            "--config.data.train[1].raw=gs://bucket/em.zarr",
            "--config.data.patch=18,160,160",
            "--config.model.encoder.size=none",
            "--config.model.encoder.frozen=false",
            "--config.model.channels=(28, 36)",
            "--config.data.augmentation.slip=1",
            "--config.name=",
            "--config.optim.steps=2000",
        ],
    )
    assert found.optim == OptimConfig(peak_lr=5e-5, steps=2000)
    assert type(found.optim.steps) is int
    assert [volume.raw for volume in found.data.train] == ["a.zarr", "gs://bucket/em.zarr"]
    assert found.data.patch == (18, 160, 160)
    assert found.model == ModelConfig(encoder=EncoderConfig(size="none", frozen=False), channels=(28, 36))
    assert found.data.augmentation.slip == 1.0
    assert type(found.data.augmentation.slip) is float
    assert found.name == ""


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.peek_lr=1", "config.optim has no field 'peek_lr'; did you mean 'peak_lr'?"),
        ("optim.steps=many", "config.optim.steps: expected a whole number, found 'many'."),
        ("optim.steps=1.5", "config.optim.steps: expected a whole number, found 1.5."),
        ("optim.steps=true", "config.optim.steps: expected a whole number, found True."),
        ("optim.peak_lr=fast", "config.optim.peak_lr: expected a number, found 'fast'."),
        ("model.coarse=2", "config.model.coarse: expected true or false, found 2."),
        ("model.guidance=strong", "config.model.guidance: expected one of attention, one_gate, uncertainty"),
        ("data.train[7].raw=a", "config.data.train has 2 items, numbered from 0; found [7]."),
        ("data.patch=8,8", "config.data.patch: expected 3 values, found 2"),
        ("data.patch[0].z=8", "config.data.patch[0] is a single value and has no field 'z'."),
        ("optim=3", "config.optim: expected fields of OptimConfig, found 3."),
        ("optim.steps", "--config.optim.steps: expected --config.field=value."),
    ],
)
def test_mistakes_are_said_in_a_sentence(file, override, said):
    with pytest.raises(ConfigError) as caught:
        load_config(file, [f"--config.{override}"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(file, tmp_path):
    with pytest.raises(ConfigError, match=r"expected one of the variants frozen, finetuned; found 'thawed'\."):
        load_config(f"{file}:thawed")
    with pytest.raises(ConfigError, match=r"found none at 'nowhere\.py'"):
        load_config("nowhere.py")
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config(str(tmp_path / "nowhere.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match="expected JSON"):
        load_config(str(tmp_path / "broken.json"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match="expected a function get_config"):
        load_config(str(tmp_path / "empty.py"))


def test_a_config_survives_its_json():
    rules = dataclasses.replace(DeclaredVolume().rules, background=(0, 7), unlabelled=(2**64 - 3,))
    volume = DeclaredVolume(name="a", raw="a.zarr", raw_voxel_size_zyx=(40, 4.5, 4), rules=rules)
    config = Config(data=DataConfig(train=(volume,), weights=(1.0,)), model=ModelConfig(offsets=((-9, 0, 0),)))
    again = from_dict(to_dict(config))
    assert again == config


def test_differences_name_their_fields():
    one = Config(seed=1, model=ModelConfig(encoder=EncoderConfig(size="none")))
    other = dataclasses.replace(one, seed=2, model=ModelConfig())
    assert differences(to_dict(one), to_dict(other)) == [
        ("config.model.encoder.size", "none", "base_plus"),
        ("config.seed", 1, 2),
    ]


def test_overrides_are_told_from_flags():
    line = ["train.py", "--config=a.py", "--config.seed=1", "--workdir=w"]
    assert split_overrides(line) == (["train.py", "--config=a.py", "--workdir=w"], ["--config.seed=1"])
