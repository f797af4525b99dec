"""Command lines and recipes drawn at random: each ends in a sentence and a failure, or does what it says."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.segmentation import FragmentParameters, Recipe
from emsam_jax.volumes import create_volume, open_volume
from tests import called_in_turn
from tests.damage import damage_json
from tests.programs import environment

SHAPE, SIZE = (4, 12, 16), (8.0, 8.0, 8.0)
GREY = np.random.default_rng(0).integers(1, 256, SHAPE, dtype=np.uint8)
NUMBERS = "0 -1 1 2 3 7 0.5 nan -inf 1e999 1e-320 999999999999999999999999999999".split
TRIPLES = "1,1,1 0,0,0 -1,2,3 4,4,4 2,8,8 1,2 1e9,1e9,1e9 99999,99999,99999 nan,1,1 8,8,8.5 1,2,3,4 a,b,c ,,".split
REGIONS = "0:2,0:8,0:8 0:0,:,: 9:1,:,: :,:,: -1:2,:,: 0:99,0:99,0:99 0:2 :: a:b 0:4,0:12,8:16".split
WORDS = "true all mean mode words precomputed [] {} { ' -- = .. ../.. /proc/nowhere /dev/null gs:// memory://x".split
POOLS = (NUMBERS(), TRIPLES(), REGIONS(), [*WORDS(), "", "\n", "\N{SNOWMAN}", "a" * 300])


class Command(NamedTuple):
    module: str
    arguments: Callable[[Path, int], list[str]]  # of a call that does what it should; (folder of volumes, case)
    flags: tuple[str, str, str, str]  # that take numbers, three of them, a region, words
    right: Callable[[Path, int], None] = lambda folder, case: None  # of a call that succeeds


def is_whole(folder: Path, case: int) -> None:
    volume = open_volume(folder / f"ingested/{case}", channel="all")
    np.testing.assert_array_equal(volume[...].reshape(SHAPE), GREY)
    assert all(0 < side < np.inf for side in volume.voxel_size_zyx)
    assert np.isfinite(volume.offset_zyx).all()


COMMANDS = [
    Command(
        "emsam_jax.volumes.ingest.__main__",
        lambda folder, case: [f"{folder}/raw.zarr", f"{folder}/ingested/{case}"],
        ("level channel cache_mib", "voxel_size offset chunk shard", "", "format pyramid overwrite allow_gaps check"),
        is_whole,
    ),
    Command(
        "emsam_jax.volumes.verify.__main__",
        lambda folder, case: [f"{folder}/raw.zarr", f"{folder}/labels.zarr", "--out="],
        ("raw_level labels_level background unlabelled", "voxel_size labels_voxel_size labels_offset", "", "out"),
    ),
    Command(
        "emsam_jax.volumes.synthetic.__main__",
        lambda folder, case: [f"--out={folder}/made/{case}", "--shape=2,16,16"],
        ("seed defects", "shape voxel_size", "", "picture"),
    ),
    Command(
        "emsam_jax.commands.segment",
        lambda folder, case: [f"--affinities={folder}/affinities.zarr", f"--out={folder}/segmented", "--dry_run"],
        (
            "threshold guard_size guard_threshold workers memory",
            "block voxel_size",
            "roi",
            "raw mask recipe method graph format predict ckpt affinities out status",
        ),
    ),
    Command(
        "emsam_jax.commands.eval",
        lambda folder, case: [
            *(f"--raw={folder}/raw.zarr", f"--labels={folder}/labels.zarr", f"--segmentation={folder}/labels.zarr"),
            f"--out={folder}/judged/{case}",
        ],
        (
            "threads background unlabelled",
            "voxel_size labels_voxel_size labels_offset",
            "roi validation_roi",
            "recipe methods mask ckpt affinities predict out raw labels segmentation unsegmented standings",
        ),
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    create_volume(folder / "raw.zarr", SHAPE, "uint8", SIZE)[...] = GREY
    create_volume(folder / "labels.zarr", SHAPE, "uint32", SIZE)[...] = (1 + np.indices(SHAPE)[2] // 6).astype(
        np.uint32
    )
    create_volume(folder / "affinities.zarr", (3, *SHAPE), "float32", SIZE)[...] = np.float32(0.7)
    return folder


def draw_flag(command: Command, draw: random.Random) -> str:
    """Mostly with a value of its kind."""
    names = [(name, pool) for flags, pool in zip(command.flags, POOLS, strict=True) for name in flags.split()]
    name, pool = draw.choice(names)
    return f"--{name}={draw.choice(pool if draw.random() < 0.8 else draw.choice(POOLS))}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.module.removesuffix(".__main__"))
@pytest.mark.parametrize("cases", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_flags(cases: int, command: Command, folder: Path, tmp_path: Path):
    draw = random.Random(command.module)
    calls = [
        command.arguments(folder, case) + [draw_flag(command, draw) for _ in range(draw.choice((1, 1, 2)))]
        for case in range(cases)
    ]
    (tmp_path / "cases.json").write_text(json.dumps(calls))
    done = subprocess.run(
        [sys.executable, called_in_turn.__file__, command.module, str(tmp_path / "cases.json")],
        env=environment(),
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=60 + 20 * cases,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == cases, (calls[len(answers)], done.stderr[-2000:])
    for case, (arguments, (status, said, seconds, peak)) in enumerate(zip(calls, answers, strict=True)):
        assert seconds < 10, arguments  # of computing: other processes may keep it waiting
        assert peak < 1024, arguments
        assert "Traceback" not in said, (arguments, said)
        if status == 0:
            command.right(folder, case)
        elif not command.module.startswith("emsam_jax.volumes.verify") or said:  # which prints its findings
            assert 20 < len(said.strip()) < 1500, (arguments, said)
    assert any(status for status, *_ in answers)


@pytest.mark.parametrize("cases", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_recipes(cases: int):
    draw = random.Random(0)
    clean_up = {"min_size": 3, "fill": True, "voxel_size_zyx": [8, 8, 8]}
    sound: dict[str, Any] = json.loads(Recipe(fragments=FragmentParameters("3d")).to_json())
    content = json.dumps({**sound, "clean_up": clean_up, "chosen": {"score": 1.5}}).encode()
    assert Recipe.parse(content, "here").clean_up.min_size == 3
    refused = 0
    for _ in range(cases):
        damaged = damage_json(draw, content)
        recipe, said = None, ""
        try:
            recipe = Recipe.parse(damaged, "here")
        except UserError as error:
            said = str(error)
        if recipe is None:
            refused += 1
            assert re.fullmatch(r"here: .{20,1500}[.]", said), damaged
        else:
            assert Recipe.parse(recipe.to_json(), "here") == recipe, damaged
    assert cases // 3 < refused < cases
