"""Metadata and headers of all formats, damaged at random: each opens and reads, or is refused with a sentence."""

import json
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emsam_jax.errors import UserError
from emsam_jax.volumes import open_volume
from tests.volumes import writers

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers that write, and of libraries that read damage

CASES = int(os.environ.get("EMSAM_FUZZ", "12"))  # of each writer
GIB = 1 << 20  # of ru_maxrss, KiB
EVIL: list[Any] = [
    *(None, True, -1, 0, 1, 2, 3.5, 1e400, float("nan"), -(10**6), 10**6, 2**31, 2**70, 10**400),
    *("", "words", "../../..", "\x00", "file:///etc/passwd", "evil", "é" * 300, "1", "zyx"),
    *([], {}, [[]], [0], [0, 0, 0], [-1, 2, 3], ["a", "b", "c"], [1, 2], [10**6] * 3, [2**62] * 3, [None] * 3, [{}]),
    *({"name": 3}, {"a": {"b": [1]}}, [{"name": 1}, {"name": 2}, {"name": 3}], [float("nan")] * 3),
]
METADATA = ("zarr.json", ".zarray", ".zattrs", "attributes.json", "info", "spec.json")


def png_sections(folder: Path, values: np.ndarray) -> str:
    (folder / "png").mkdir()
    for z, section in enumerate(values[:4]):
        Image.fromarray(section).save(folder / f"png/{z}.png")
    return "png"


def damage_json(random_: random.Random, content: bytes) -> bytes:
    """One value, wherever it stands, becomes another, or is gone; now and then the text itself is damaged."""
    if random_.random() < 0.15:
        return damage_bytes(random_, content)
    whole = json.loads(content)
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            visit(value[key])

    visit(whole)
    if not places or random_.random() < 0.05:
        return json.dumps(random_.choice(EVIL)).encode()
    holder, key = random_.choice(places)
    if random_.random() < 0.15:
        del holder[key]
    else:
        holder[key] = random_.choice(EVIL)
    return json.dumps(whole).encode()


def damage_bytes(random_: random.Random, content: bytes) -> bytes:
    """Some bytes of the first and last kilobyte, where headers lie; or the end is missing."""
    data = bytearray(content)
    if random_.random() < 0.1:
        return bytes(data[: random_.randrange(len(data))])
    for _ in range(random_.choice((1, 1, 2, 8))):
        near = random_.randrange(min(1024, len(data)))
        at = near if random_.random() < 0.7 else len(data) - 1 - near
        data[at] = random_.choice((0, 255, 128, random_.randrange(256), data[at] ^ 1 << random_.randrange(8)))
    return bytes(data)


@pytest.mark.parametrize("write", [*writers.WRITERS, png_sections], ids=lambda write: write.__name__)
def test_damage_is_read_or_refused(write: Callable[[Path, np.ndarray], str], tmp_path: Path, grey: np.ndarray):
    path = tmp_path / write(tmp_path, grey.astype(np.uint64) if write is writers.precomputed_compressed else grey)
    files = [file for file in tmp_path.rglob("*") if file.name in METADATA]
    files = files or sorted(file for file in tmp_path.rglob("*") if file.is_file())[:2]
    sound = {file: file.read_bytes() for file in files}
    random_ = random.Random(write.__name__)
    refused, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(CASES):
        file = random_.choice(files)
        damage = damage_json if file.name in METADATA else damage_bytes
        content = damage(random_, sound[file])
        file.write_bytes(content)
        start = time.monotonic()
        try:
            volume = open_volume(path, channel=random_.choice((None, 0, "all")))
            assert volume.dtype.kind in "biufV"
            assert min(volume.voxel_size_zyx) > 0
            assert np.isfinite(volume.offset_zyx).all()
            shape = volume.shape[-3:]
            part = tuple(slice(0, min(side, 4)) for side in shape)
            assert volume[(..., *part)].shape[-3:] == tuple(s.stop - s.start for s in part)
        except UserError as problem:
            refused += 1
            text = str(problem)
            assert "\n" not in text, (case, file, content)
            assert len(text) < 1500, (case, file, content)
        except Exception as error:
            raise AssertionError(f"case {case} of {file.name}: {content[:2000]!r}") from error
        assert time.monotonic() - start < 10, (case, file, content)
        file.write_bytes(sound[file])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + GIB
    assert open_volume(path).shape == grey[: 4 if write is png_sections else None].shape
    assert refused
