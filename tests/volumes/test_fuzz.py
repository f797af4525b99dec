"""Metadata and headers of all formats, damaged at random: each opens and reads, or is refused with a sentence."""

import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emsam_jax.errors import UserError
from emsam_jax.volumes import open_volume
from tests.damage import damage_bytes, damage_json
from tests.volumes import writers

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers that write, and of libraries that read damage

GIB = 1 << 20  # of ru_maxrss, KiB
METADATA = ("zarr.json", ".zarray", ".zattrs", "attributes.json", "info", "spec.json")


def png_sections(folder: Path, values: np.ndarray) -> str:
    (folder / "png").mkdir()
    for z, section in enumerate(values[:4]):
        Image.fromarray(section).save(folder / f"png/{z}.png")
    return "png"


@pytest.mark.parametrize("cases", [12, pytest.param(50, marks=pytest.mark.slow)])  # of each writer
@pytest.mark.parametrize("write", [*writers.WRITERS, png_sections], ids=lambda write: write.__name__)
def test_damage_is_read_or_refused(
    cases: int, write: Callable[[Path, np.ndarray], str], tmp_path: Path, grey: np.ndarray
):
    path = tmp_path / write(tmp_path, grey.astype(np.uint64) if write is writers.precomputed_compressed else grey)
    files = [file for file in tmp_path.rglob("*") if file.name in METADATA]
    files = files or sorted(file for file in tmp_path.rglob("*") if file.is_file())[:2]
    sound = {file: file.read_bytes() for file in files}
    random_ = random.Random(f"{write.__name__}{cases}")
    refused, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(cases):
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
