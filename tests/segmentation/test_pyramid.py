"""The pyramid of labels: stopped and damaged as the labels are, and the same in the end."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

from emsam_jax.blocks import run_in_turn
from emsam_jax.errors import UserError
from emsam_jax.segmentation import Recipe, ideal_affinities
from emsam_jax.segmentation.blockwise import Step, segment_blockwise
from emsam_jax.volumes import Format, Volume, create_volume, open_volume
from tests.segmentation.cells import draw_cells

SHAPE, BLOCK = (6, 16, 1200), (6, 16, 100)
RECIPE = Recipe("components", 0.5)
FORMATS: list[Format] = ["ome-zarr", "precomputed"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    """Affinities with odd voxels at the beginning, as seen from the world's 0."""
    path = tmp_path_factory.mktemp("affinities") / "affinities.zarr"
    affinities = ideal_affinities(draw_cells(3, SHAPE, 60)).astype(np.float32)
    create_volume(path, affinities.shape, "float32", (40, 4, 4), offset_zyx=(40, 12, 20))[...] = affinities
    return open_volume(path, channel="all")


def levels(out: Path) -> list[np.ndarray]:
    return [open_volume(out, level=level)[...] for level in range(len(open_volume(out).levels))]


@pytest.mark.parametrize("format", FORMATS)
def test_each_level_is_made_of_the_one_before(stored: Volume, format: Format, tmp_path: Path):  # noqa: A002
    """As TensorStore computes it for the whole level at once."""
    labels = segment_blockwise(stored, tmp_path / "out", RECIPE, BLOCK, format=format)
    found = levels(tmp_path / "out")
    assert len(np.unique(found[0])) > 50
    first = np.array([1, 3, 5]) if format == "precomputed" else np.array([0, 0, 0])
    factors = [(1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2)]
    for (fine, coarse), factor in zip(itertools.pairwise(found), factors, strict=True):
        expected = ts.downsample(ts.array(fine)[ts.d[:].translate_to[first]], factor, "mode")
        np.testing.assert_array_equal(coarse, np.asarray(expected.read().result()))
        first //= factor
    assert labels.levels == ((40, 4, 4), (40, 8, 8), (40, 16, 16), (40, 32, 32), (80, 64, 64))


class StoppedError(BaseException):
    pass


def stopping_within(name: str) -> Callable[[Step], None]:
    """One block of the stage is done, the next one has data but no entry."""

    def run(step: Step) -> None:
        if step.stage.name != name:
            run_in_turn(*step, progress=False)
            return
        done, begun, *_ = step.plan
        step.open_ledger().record(done, step.stage.run(done), 0.0)
        step.stage.run(begun)
        raise StoppedError

    return run


def entries(out: Path) -> dict[str, bytes]:
    return {f"{path.parts[-3]}/{path.name}": path.read_bytes() for path in (out / "ledger").glob("*/done/*")}


@pytest.mark.parametrize("format", FORMATS)
def test_goes_on_where_it_was_stopped_and_does_again_what_is_damaged(
    stored: Volume,
    format: Format,  # noqa: A002
    tmp_path: Path,
):
    def segment(out: Path, run: Callable[[Step], object] | None = None) -> list[np.ndarray]:
        segment_blockwise(stored, out, RECIPE, BLOCK, format=format, run=run)
        return levels(out)

    expected, out = segment(tmp_path / "undisturbed"), tmp_path / "out"
    for stage in ("labels", "pyramid-1"):
        with pytest.raises(StoppedError):
            segment(out, stopping_within(stage))
    assert [level.shape for level in levels(out)] == [level.shape for level in expected]  # viewers open it already
    before = entries(out)
    assert {name for name in before if name.startswith("pyramid")} == {"pyramid-1/0-0-0"}
    for found, level in zip(segment(out), expected, strict=True):
        np.testing.assert_array_equal(found, level)
    after = entries(out)
    assert {name: after[name] for name in before} == before
    made = Counter(name.split("/")[0] for name in after if name.startswith("pyramid"))
    assert made == {"pyramid-1": 5, "pyramid-2": 4, "pyramid-3": 3, "pyramid-4": 2}  # shards of a chunk, as the labels'

    torn = sorted((out / "8_8_40").glob("*.shard")) if format == "precomputed" else [out / "1/c/0/0/0"]
    torn[0].write_bytes(torn[0].read_bytes()[:-50])
    gone = sorted((out / "4_4_40").glob("*.shard")) if format == "precomputed" else [out / "0/c/0/0/3"]
    gone[0].unlink()
    for found, level in zip(segment(out), expected, strict=True):
        np.testing.assert_array_equal(found, level)
    again = {name.split("/")[0] for name, entry in entries(out).items() if entry != after[name]}
    assert again == {"labels", "pyramid-1"}


def test_another_format_in_the_same_place_is_refused(stored: Volume, tmp_path: Path):
    segment_blockwise(stored, tmp_path / "out", RECIPE, SHAPE)
    with pytest.raises(UserError, match="format 'ome-zarr' there, 'precomputed' here"):
        segment_blockwise(stored, tmp_path / "out", RECIPE, SHAPE, format="precomputed")
    assert not (tmp_path / "out" / "info").exists()


def test_an_offset_within_a_voxel_is_refused_for_precomputed(stored: Volume, tmp_path: Path):
    shifted = open_volume(stored.url, channel="all", offset_zyx=(40, 13, 20))
    with pytest.raises(UserError, match="precomputed wants an offset of whole voxels"):
        segment_blockwise(shifted, tmp_path / "out", RECIPE, SHAPE, format="precomputed")
    assert not (tmp_path / "out" / "fragments").exists()
