"""Where affinities come from: a stored volume, or a model that predicts them."""

import abc
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from emsam_jax.evaluation.request import Request
from emsam_jax.evaluation.stages import Clock
from emsam_jax.evaluation.subject import Subject, read_affinities
from emsam_jax.segmentation import Recipe
from emsam_jax.volumes import DeclaredVolume, Part, open_volume

Offsets = tuple[tuple[int, int, int], ...]


class Source(abc.ABC):
    """Affinities of any subject, and what there is to say about where they come from."""

    test: tuple[DeclaredVolume, ...] = ()
    validation: tuple[DeclaredVolume, ...] = ()
    training: tuple[Part, ...] = ()  # what the model was trained on, as far as that is known
    offsets: Offsets = ()  # of all channels; empty where only the three short ones are known
    standings: str = ""  # name of the table of known results
    step: int | None = None
    recipe: Recipe | None = None  # what was chosen earlier, for when there is no validation volume

    @abc.abstractmethod
    def read(self, subject: Subject) -> Shaped[np.ndarray, "c z y x"]: ...

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """For scores.json and the report; `config`, if there is one, is shown by itself."""

    def tell_reliability(self) -> dict[str, Any]:
        """By volume, of those that were read; what is only stored says not what it was trained for."""
        return {}

    def take_over(self, recipe: Recipe) -> None:
        """The recipe becomes the model's own; what is only stored has no place for it."""
        del recipe


class Stored(Source):
    """Affinities, or labels, that someone has written."""

    def __init__(self, request: Request, clock: Clock):
        self.url = request.affinities or request.segmentation
        self.volume = open_volume(self.url, channel="all" if request.affinities else None)
        self.test, self.validation, self.offsets = request.test, request.validation, request.offsets
        self.title = request.method_title or "/".join(Path(self.url).parts[-2:])
        self.clock = clock

    def read(self, subject: Subject) -> Shaped[np.ndarray, "c z y x"]:
        with self.clock.stage(subject.name, "read affinities", subject.box.voxels):
            return read_affinities(subject, self.volume)

    def describe(self) -> dict[str, Any]:
        return {"title": self.title, "stored": self.url}
