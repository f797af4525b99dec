"""Each command that writes, given volumes to read and a place to write to."""

from pathlib import Path

import numpy as np

from emsam_jax import demo
from emsam_jax.config import Config, DeclaredVolume
from emsam_jax.evaluation import EvaluationRequest, evaluate
from emsam_jax.model import writing_image_encoder
from emsam_jax.segmentation import Recipe
from emsam_jax.segmentation.blockwise import segment_blockwise
from emsam_jax.training.loop import train
from emsam_jax.volumes import create_volume, open_volume
from emsam_jax.volumes.ingest.conversion import ingest
from emsam_jax.volumes.synthetic import write_synthetic
from emsam_jax.volumes.synthetic.tissue import Synthetic

SHAPE, SIZE = (8, 32, 32), (8.0, 8.0, 8.0)
GREY = np.random.default_rng(0).integers(1, 256, SHAPE, dtype=np.uint8)


def ingest_zarr(made: Path, out: Path) -> None:
    ingest(open_volume(made / "raw.zarr"), str(out))


def ingest_precomputed(made: Path, out: Path) -> None:
    ingest(open_volume(made / "raw.zarr"), str(out), format="precomputed")


def ingest_over(made: Path, out: Path) -> None:
    ingest(open_volume(made / "raw.zarr"), str(out), overwrite=True)


def ingest_precomputed_over(made: Path, out: Path) -> None:
    ingest(open_volume(made / "raw.zarr"), str(out), format="precomputed", overwrite=True)


def create(made: Path, out: Path) -> None:
    create_volume(out, SHAPE, "uint8", SIZE)


def create_over(made: Path, out: Path) -> None:
    create_volume(out, SHAPE, "uint8", SIZE, format="precomputed", overwrite=True)


def synthetic(made: Path, out: Path) -> None:
    write_synthetic(Synthetic(GREY, GREY.astype(np.uint32), SIZE), str(out))


def segment(made: Path, out: Path) -> None:
    segment_blockwise(open_volume(made / "affinities.zarr", channel="all"), out, Recipe())


def judge(made: Path, out: Path) -> None:
    test = DeclaredVolume(name="v", raw=f"{made}/raw.zarr", labels=f"{made}/labels.zarr")
    evaluate(EvaluationRequest(out=str(out), segmentation=f"{made}/labels.zarr", test=(test,)), show=lambda text: None)


def train_there(made: Path, out: Path) -> None:
    train(Config(), out)


def demonstrate(made: Path, out: Path) -> None:
    demo.claim_folder(out)


def convert(made: Path, out: Path) -> None:
    with writing_image_encoder(out, {"a": GREY}, {"size": "tiny"}):
        pass
