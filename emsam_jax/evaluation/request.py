"""What is to be evaluated."""

import dataclasses

from emsam_jax.evaluation.methods import METHODS
from emsam_jax.scores import Conventions
from emsam_jax.volumes import DeclaredVolume, VolumeError


@dataclasses.dataclass(frozen=True)
class Request:
    """Either a checkpoint, or stored affinities, or a stored segmentation; volumes left out are the checkpoint's."""

    out: str  # folder for scores.json, report.html, postprocess.json and the segmentations
    ckpt: str = ""  # a run's folder, or a step's
    predict: tuple[str, ...] = ()  # fields of its config.predict with other values, such as symmetries=16
    affinities: str = ""  # instead of a model's: [channels, z, y, x]
    segmentation: str = ""  # instead of affinities: labels that someone made
    test: tuple[DeclaredVolume, ...] = ()
    validation: tuple[DeclaredVolume, ...] = ()
    roi: str = ""  # z0:z1,y0:y1,x0:x1 in voxels of the raw, of every test volume
    recipe: str = ""  # a postprocess.json instead of choosing one
    methods: tuple[str, ...] = METHODS
    offsets: tuple[tuple[int, int, int], ...] = ()  # of the stored affinities' channels; for mutex
    conventions: Conventions = dataclasses.field(default_factory=Conventions)
    title: str = ""  # of the report
    method_title: str = ""  # what to call the stored affinities or the stored segmentation
    allow_overlap: bool = False  # training, validation and test volumes may hold the same voxels; the report says so
    standings: str = ""  # name of a table of known results to show beside
    update_checkpoint: bool = False  # it takes over the recipe of the method that is shown first
    threads: int = 1

    def __post_init__(self) -> None:
        given = [name for name in ("ckpt", "affinities", "segmentation") if getattr(self, name)]
        if len(given) != 1:
            raise VolumeError(
                "Expected one of --ckpt, --affinities and --segmentation, "
                f"found {' and '.join('--' + name for name in given) or 'none'}."
            )
        if self.update_checkpoint and not self.ckpt:
            raise VolumeError("--update_checkpoint changes the recipe of --ckpt: expected that, found none.")
        if self.predict and not self.ckpt:
            raise VolumeError(f"--predict={self.predict[0]}: expected --ckpt, which predicts, found --{given[0]}.")
        if not self.ckpt and not self.test:
            raise VolumeError(
                f"--{given[0]} needs --raw and --labels to be judged by; only a checkpoint names its own."
            )
