"""What is to be segmented, how, and by whom."""

import dataclasses

from emsam_jax.segmentation.blockwise import Guard
from emsam_jax.volumes import DeclaredVolume, VolumeError
from emsam_jax.volumes.box import Voxel


@dataclasses.dataclass(frozen=True)
class Request:
    """Either a checkpoint and a raw volume, or stored affinities, or an earlier run's graph."""

    out: str  # labels; beside them the tables, the fragments, the affinities and the ledger
    ckpt: str = ""  # a run's folder, or a step's
    raw: DeclaredVolume = dataclasses.field(default_factory=DeclaredVolume)  # with its mask and region of interest
    affinities: str = ""  # instead of a model's: [channels, z, y, x]
    recipe: str = ""  # a postprocess.json; empty: the checkpoint's, or else waterz with the mean
    method: str = ""  # instead of the recipe's
    threshold: float | None = None  # instead of the recipe's
    guard: Guard | None = None  # of merges of two large objects
    graph: str = ""  # an earlier output whose fragments and edges are used again, by its recipe: another threshold
    block: Voxel | None = None  # voxels z, y, x of the segmentation; None: a shard of the output
    scheduler: str = ""  # address of a Dask scheduler; empty: processes of this machine
    workers: int = 0  # how many of those; 0: one a core
    memory: str = "auto"  # of each
    dashboard: str = ""  # where Dask shows what it does, such as :8787
    check: bool = True  # when going on, read what is done and compare it with its checksum
    progress: bool = True

    def __post_init__(self) -> None:
        given = [name for name in ("ckpt", "affinities", "graph") if getattr(self, name)]
        if not self.out:
            raise VolumeError("Expected --out, the labels' place, found none.")
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none"
            raise VolumeError(f"Expected one of --ckpt, --affinities and --graph, found {found}.")
        if self.ckpt and not self.raw.raw:
            raise VolumeError("Expected --raw, the volume that --ckpt is to segment, found none.")
        if not self.ckpt and (self.raw.raw or self.raw.roi):
            raise VolumeError(f"--{given[0]} is segmented as it is: expected no --raw and no --roi, found one.")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise VolumeError(f"--threshold: expected a number between 0 and 1, found {self.threshold:g}.")
