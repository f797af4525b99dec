"""What a dry run foretells, beside what the run then took."""

from pathlib import Path

import numpy as np
import pytest

from emsam_jax.blocks.dask import Workers
from emsam_jax.errors import UserError
from emsam_jax.segment_volume import SegmentationRequest, forecast_run, segment_volume
from emsam_jax.segment_volume.forecast import Forecast, stored_bytes
from emsam_jax.segmentation import ideal_affinities
from emsam_jax.volumes import create_volume
from tests.segmentation.cells import draw_cells

BLOCK = (8, 32, 32)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Forecast, Path]:
    """Of affinities of 15 blocks, the last ones of each row narrower; and the run's output."""
    folder = tmp_path_factory.mktemp("forecast")
    affinities = ideal_affinities(draw_cells(3, (40, 32, 88), 110)).astype(np.float32)
    create_volume(folder / "affinities.zarr", affinities.shape, "float32", (40, 4, 4))[...] = affinities
    request = SegmentationRequest(
        out=str(folder / "out.zarr"),
        affinities=str(folder / "affinities.zarr"),
        block=BLOCK,
        workers=Workers(1),
        progress=False,
    )
    forecast = forecast_run(request)
    assert [path.name for path in folder.iterdir()] == ["affinities.zarr"]  # nothing was written
    segment_volume(request)
    return forecast, folder / "out.zarr"


def test_blocks_are_those_of_the_run(told: tuple[Forecast, Path]):
    forecast, out = told
    done = {path.name: len(list(path.glob("done/?-?-?"))) for path in (out / "ledger").iterdir() if path.is_dir()}
    assert (done["fragments"], done["graph"], done["labels"], done["pyramid-1"]) == (15, 1, 15, 3)
    assert {cost.stage: cost.blocks for cost in forecast.costs} == done
    assert all(cost.seconds > 0 for cost in forecast.costs)


def test_sizes_are_about_those_of_the_run(told: tuple[Forecast, Path]):
    forecast, out = told
    assert forecast.edges == pytest.approx(len(np.load(out / "edges.npy")), rel=0.3)
    assert forecast.stored["fragments"] == pytest.approx(stored_bytes(out / "fragments/0"), rel=0.3)
    levels = sum(stored_bytes(path) for path in out.iterdir() if path.name.isdigit())
    assert forecast.stored["labels"] == pytest.approx(levels, rel=0.6)  # of so small shards
    everything = stored_bytes(out)
    assert sum(forecast.stored.values()) == pytest.approx(everything, rel=0.3)
    assert 50 << 20 < forecast.worker_bytes < 1 << 30
    assert "15  8 x 32 x 32" in str(forecast)


def test_an_earlier_graph_has_nothing_to_sample(tmp_path: Path):
    with pytest.raises(UserError, match="expected --ckpt or --affinities, found --graph"):
        forecast_run(SegmentationRequest(out=str(tmp_path / "out"), graph=str(tmp_path)))
