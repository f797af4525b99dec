"""Configs from files and command lines, and what is said where one is wrong."""

import dataclasses
import json
import random
import re
import typing
from pathlib import Path

import pytest

from emsam_jax import configs
from emsam_jax.config import (
    Config,
    DataConfig,
    DeclaredVolume,
    EncoderConfig,
    ModelConfig,
    OptimConfig,
    differences,
    from_dict,
    load_config,
    to_dict,
)
from emsam_jax.config.limits import LIMITS
from emsam_jax.errors import UserError

FILE = """
from typing import Literal
from emsam_jax.config import Config, DataConfig, DeclaredVolume

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


def test_those_of_the_package_are_found_by_name_where_no_file_has_it(file, tmp_path, monkeypatch):
    shipped = Path(configs.__path__[0]) / "fib25.py"
    assert load_config("fib25:gpu") == load_config(f"{shipped}:gpu")
    monkeypatch.chdir(tmp_path)
    Path(file).rename("fib25")
    assert load_config("fib25").name == "frozen"


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
        ("optim=3", "config.optim: expected fields of OptimConfig, found '3'."),
        ("optim={}", "config.optim: expected fields of OptimConfig, found '{}'."),
        ("=3", "--config.=3: expected --config.field=value"),
        ("optim..steps=3", "--config.optim..steps=3: expected --config.field=value"),
        ("data.train[x].raw=3", "expected --config.field=value"),
        ("optim.steps=1e400", "config.optim.steps: expected a whole number, found inf."),
        ("optim.peak_lr=1" + "0" * 400, "config.optim.peak_lr: expected a number, found 1000"),
        ("data.patch=" + "[" * 5000, "config.data.patch: expected a list, found '[["),
        ("optim.steps=-3", "config.optim.steps: expected a number from 1 and up to 2.14748e+09, found -3."),
        ("optim.peak_lr=-1", "config.optim.peak_lr: expected a number above 0, found -1.0."),
        ("optim.ema=2", "config.optim.ema: expected a number from 0 and below 1, found 2.0."),
        ("optim.clip=-1", "config.optim.clip: expected a number above 0, found -1.0."),
        ("optim.weight_decay=nan", "config.optim.weight_decay: expected a number, found 'nan'."),
        ("seed=-1", "config.seed: expected a number from 0"),
        ("data.threads=0", "config.data.threads: expected a number from 1"),
        ("data.weights=0,0", "config.data.weights[0]: expected a number above 0, found 0.0."),
        ("checkpoint.keep=0", "config.checkpoint.keep: expected a number from 1"),
        ("checkpoint.every=0", "config.checkpoint.every: expected a number from 1"),
        ("log.every=0", "config.log.every: expected a number from 1"),
        ("log.pictures_every=0", "config.log.pictures_every: expected a number from 1"),
        ("loss.coarse=0", "config.loss.coarse: expected a number above 0, found 0.0."),
        ("loss.max_weight=0", "config.loss.max_weight: expected a number from 1"),
        ("predict.stride=0,1,1", "config.predict.stride[0]: expected a number above 0 and up to 1, found 0.0."),
        ("data.train[0].raw_voxel_size_zyx=40,0,4", "config.data.train[0].raw_voxel_size_zyx[1]: expected a number"),
        ("optim.steps", "--config.optim.steps: expected --config.field=value, such as"),
    ],
)
def test_mistakes_are_said_in_a_sentence(file, override, said):
    with pytest.raises(UserError) as caught:
        load_config(file, [f"--config.{override}"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(file, tmp_path):
    with pytest.raises(UserError, match=r"expected one of the variants frozen, finetuned; found 'thawed'\."):
        load_config(f"{file}:thawed")
    with pytest.raises(UserError, match=r"found none at 'nowhere\.py'; or one of ac34, baseline, cremi, demo, fib25\."):
        load_config("nowhere.py")
    with pytest.raises(UserError, match=r"found none at 'configs/fib52\.py'; did you mean 'fib25'\?"):
        load_config("configs/fib52.py:gpu")
    with pytest.raises(UserError, match="there is no such file"):
        load_config(str(tmp_path / "nowhere.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="expected JSON"):
        load_config(str(tmp_path / "broken.json"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="expected a function get_config"):
        load_config(str(tmp_path / "empty.py"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(:", "line 1: this config cannot be run: SyntaxError"),
        ("import nothing_such", "line 1: this config cannot be run: ModuleNotFoundError"),
        ("def get_config():\n    return 1 / 0\n", "line 2: this config cannot be run: ZeroDivisionError"),
        ("import sys\nsys.exit(0)", "line 2: this config cannot be run: SystemExit"),
        ("def get_config():\n    return {'optim': 3}\n", "expected get_config to return a Config, found a dict."),
        ("get_config = 3", "expected a function get_config"),
        (
            "from emsam_jax.config import Config\ndef get_config():\n    config = Config()\n"
            "    object.__setattr__(config, 'name', {1})\n    return config\n",
            "expected plain values in its fields",
        ),
    ],
)
def test_python_that_makes_no_config(text, said, tmp_path):
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        load_config(str(tmp_path / "config.py"))
    assert "\n" not in str(caught.value)


def test_json_that_makes_no_config(tmp_path):
    path = tmp_path / "config.json"
    for content, said in [
        (b"\xff\xfe{}", "expected JSON in UTF-8"),
        (b"[" * 200_000, "expected JSON, found something else"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "expected JSON, found something else"),
        (b'{"optim": {"peak_lr": NaN}}', "config.optim.peak_lr: expected a number above 0, found nan."),
        (b"[]", "config: expected fields of Config, found []."),
    ]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=re.escape(said)):
            load_config(str(path))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match="found none that can be read: Is a directory"):
        load_config(str(tmp_path / "folder.json"))


def numeric_fields(kind, path: str):
    """Paths of all fields that hold numbers, [] standing for the items of a list."""
    if dataclasses.is_dataclass(kind):
        for name, hint in typing.get_type_hints(kind).items():
            yield from numeric_fields(hint, f"{path}.{name}" if path else name)
    elif typing.get_origin(kind) is tuple:
        yield from numeric_fields(typing.get_args(kind)[0], f"{path}[]")
    elif kind in (int, float, int | float):
        yield path


def test_every_number_has_a_limit():
    assert set(numeric_fields(Config, "")) == set(LIMITS)


@pytest.mark.parametrize("cases", [150, pytest.param(1500, marks=pytest.mark.slow)])
def test_senseless_values_are_refused_or_taken_as_they_are(cases, file, tmp_path):
    """Each override gives a config that survives its JSON, or one sentence."""
    draw = random.Random(0)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(load_config(file))))
    file = str(tmp_path / "config.json")
    texts = ["name", "data.train", "data.train[0]", "model.offsets", "optim", "data.widening", "model.guidance"]
    fields = [name.replace("[]", "[0]") for name in LIMITS] + texts
    values = ["0", "-1", "1e999", "nan", "-inf", "", "None", "true", "3", "0.5", "[]", "{}", "()", "1,2,3", "[[1]]"]
    values += ["{[]: 1}", "a\nb", "x" * 2000, "[" + "1," * 2000 + "]", "1e308", "True", "-0.0", "b'a'", "lambda: 1"]
    values += ["'a'", "\\x00", "9" * 30, "1e-320", "__import__('os')", "{1:2}", "\N{SNOWMAN}", "0x10", "1j", "*"]
    refused = 0
    for _ in range(cases):
        override, config, said = f"--config.{draw.choice(fields)}={draw.choice(values)}", None, ""
        try:
            config = load_config(file, [override])
        except UserError as error:
            said = str(error)
        if config is None:
            refused += 1
            assert re.fullmatch(".{20,500}", said)
            continue
        assert from_dict(json.loads(json.dumps(to_dict(config), allow_nan=False))) == config
    assert cases // 3 < refused < cases


def test_a_config_survives_its_json():
    rules = dataclasses.replace(DeclaredVolume().rules, background=(0, 7), unlabelled=(2**64 - 3,))
    volume = DeclaredVolume(name="a", raw="a.zarr", raw_voxel_size_zyx=(40, 4.5, 4), rules=rules)
    config = Config(data=DataConfig(train=(volume,), weights=(1.0,)), model=ModelConfig(offsets=((-9, 0, 0),)))
    again = from_dict(to_dict(config))
    assert again == config


def test_differences_name_their_fields():
    one = Config(seed=1, model=ModelConfig(encoder=EncoderConfig(size="tiny")))
    other = dataclasses.replace(one, seed=2, model=ModelConfig())
    assert differences(to_dict(one), to_dict(other)) == [
        ("config.model.encoder.size", "tiny", "none"),
        ("config.seed", 1, 2),
    ]
