"""A request: what is to be segmented, how, and by whom."""

import dataclasses

from emsam_jax.blocks.dask import Workers
from emsam_jax.config import DeclaredVolume
from emsam_jax.errors import UserError
from emsam_jax.segmentation.blockwise import Guard
from emsam_jax.volumes import Format, Voxel


@dataclasses.dataclass(frozen=True)
class SegmentationRequest:
    """Either a checkpoint and a raw volume, or stored affinities, or an earlier run's graph."""

    out: str  # labels; below them the tables, the fragments, the affinities and the ledger
    ckpt: str = ""  # a run's folder, or a step's
    predict: tuple[str, ...] = ()  # fields of its config.predict with other values, such as symmetries=16
    raw: DeclaredVolume = dataclasses.field(default_factory=DeclaredVolume)  # with its mask and region of interest
    affinities: str = ""  # instead of a model's: [channels, z, y, x]
    recipe: str = ""  # a postprocess.json; empty: the checkpoint's, or else waterz with the mean
    method: str = ""  # instead of the recipe's
    threshold: float | None = None  # instead of the recipe's
    guard: Guard | None = None  # of merges of two large objects
    graph: str = ""  # an earlier output whose fragments and edges are used again, by its recipe: another threshold
    edits: str = ""  # a file of corrections, edits.jsonl, that the labels are to fulfil
    format: Format = "ome-zarr"  # of the labels
    queue: int = 1000  # decisions that queue.csv lists, those first where a mistake would cost most; 0: no file
    keep_affinities: bool = True  # otherwise what a model predicted is deleted once edges and fragments are made of it
    block: Voxel | None = None  # voxels z, y, x of the segmentation; None: a shard of the output
    workers: Workers = dataclasses.field(default_factory=Workers)
    gpu: bool = False  # only workers that declare the resource GPU predict; otherwise so if some are there
    check: bool = True  # when resuming, compare finished blocks with their checksums
    progress: bool = True

    def __post_init__(self) -> None:
        given = [name for name in ("ckpt", "affinities", "graph") if getattr(self, name)]
        if not self.out:
            raise UserError("Expected --out, the labels' place, found none.")
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none"
            raise UserError(f"Expected one of --ckpt, --affinities and --graph, found {found}.")
        if self.ckpt and not self.raw.raw:
            raise UserError("Expected --raw, the volume that --ckpt is to segment, found none.")
        if not self.ckpt and (self.raw.raw or self.raw.roi):
            raise UserError(f"--{given[0]} is segmented as it is: expected no --raw and no --roi, found one.")
        of_prediction = [f"predict={field}" for field in self.predict]
        of_prediction += ["voxel_size"] if self.raw.raw_voxel_size_zyx else []
        of_prediction += ["invert"] if self.raw.intensity.invert else []
        of_prediction += [] if self.keep_affinities else ["nokeep_affinities"]
        if of_prediction and not self.ckpt:
            raise UserError(f"--{of_prediction[0]}: expected --ckpt, which predicts, found --{given[0]}.")
        if self.graph and self.raw.mask:
            raise UserError("--graph leaves out what its own run left out: expected no --mask, found one.")
        if self.block and min(self.block) < 1:
            raise UserError(f"--block: expected numbers above 0, found {','.join(map(str, self.block))}.")
        if self.queue < 0:
            raise UserError(f"--queue: expected 1 or more, or 0 for none; found {self.queue}.")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UserError(f"--threshold: expected a number between 0 and 1, found {self.threshold:g}.")
