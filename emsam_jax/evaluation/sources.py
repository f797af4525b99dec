"""A request for an evaluation, and the source of its affinities: a stored volume, or a model."""

import abc
import dataclasses
from pathlib import Path
from typing import Any

from emsam_jax.config import DeclaredVolume
from emsam_jax.errors import UserError
from emsam_jax.evaluation.clock import Clock
from emsam_jax.evaluation.compared import METHODS
from emsam_jax.evaluation.subject import Example, Subject, read_example
from emsam_jax.scores import Conventions
from emsam_jax.segmentation import Recipe, check_stored
from emsam_jax.storage import is_on_hub
from emsam_jax.volumes import Part, Voxel, open_volume

Offsets = tuple[tuple[int, int, int], ...]


@dataclasses.dataclass(frozen=True)
class EvaluationRequest:
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
    conventions: Conventions = dataclasses.field(default_factory=Conventions)
    title: str = ""  # of the report
    method_title: str = ""  # what to call the stored affinities or the stored segmentation
    allow_overlap: bool = False  # training, validation and test volumes may hold the same voxels; the report says so
    standings: str = ""  # name of a table of published results to show
    update_checkpoint: bool = False  # it takes over the recipe of the method that is shown first
    skeletons: str = ""  # SWC files or a CSV, for the expected run length; or "truth", to make them from it
    threads: int = 1

    def __post_init__(self) -> None:
        given = [name for name in ("ckpt", "affinities", "segmentation") if getattr(self, name)]
        if len(given) != 1:
            raise UserError(
                "Expected one of --ckpt, --affinities and --segmentation, "
                f"found {' and '.join('--' + name for name in given) or 'none'}."
            )
        if self.threads < 1:
            raise UserError(f"--threads: expected 1 or more, found {self.threads}.")
        if self.update_checkpoint and (not self.ckpt or is_on_hub(self.ckpt)):
            raise UserError(
                f"--update_checkpoint changes the recipe of --ckpt: expected a folder, found {self.ckpt or 'none'}."
            )
        if self.predict and not self.ckpt:
            raise UserError(f"--predict={self.predict[0]}: expected --ckpt, which predicts, found --{given[0]}.")
        if not self.ckpt and not self.test:
            raise UserError(f"--{given[0]} needs --raw and --labels to be judged by; only a checkpoint names its own.")


class AffinitySource(abc.ABC):
    """Affinities of any subject, and facts about their origin."""

    test: tuple[DeclaredVolume, ...] = ()
    validation: tuple[DeclaredVolume, ...] = ()
    training: tuple[Part, ...] = ()  # what the model was trained on, as far as that is known
    offsets: tuple[Voxel, ...] = ()  # of the channels that it reads; empty: only the three short ones are known
    standings: str = ""  # name of the table of known results
    step: int | None = None
    recipe: Recipe | None = None  # what was chosen earlier, for when there is no validation volume

    @abc.abstractmethod
    def read(self, subject: Subject) -> Example: ...

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns facts for scores.json and the report; `config`, if there is one, is shown by itself."""

    def tell_reliability(self) -> dict[str, Any]:
        """By volume, of those that were read; what is only stored says not what it was trained for."""
        return {}

    def take_over(self, recipe: Recipe) -> None:
        """The recipe becomes the model's own; what is only stored has no place for it."""
        del recipe


class Stored(AffinitySource):
    """Affinities, or labels, that someone has written."""

    def __init__(self, request: EvaluationRequest, clock: Clock):
        self.url = request.affinities or request.segmentation
        self.volume = open_volume(self.url, channel="all" if request.affinities else None)
        self.test, self.validation, self.offsets = request.test, request.validation, self.volume.offsets
        if request.affinities:
            check_stored(self.volume)
            if (channels := self.volume.shape[0]) > 3 and not self.offsets:
                clock.show(f"  {self.url} says of none of its {channels} channels what it joins: the first 3 are used.")
        self.title = request.method_title or "/".join(Path(self.url).parts[-2:])
        self.clock = clock

    def read(self, subject: Subject) -> Example:
        with self.clock.stage(subject.name, "read affinities", subject.box.voxels):
            return read_example(subject, self.volume)

    def describe(self) -> dict[str, Any]:
        return {"title": self.title, "stored": self.url}
