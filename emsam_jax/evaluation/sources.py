"""Where affinities come from: a stored volume, or a model that predicts them."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Shaped

from emsam_jax.evaluation.request import Request
from emsam_jax.evaluation.stages import Clock
from emsam_jax.evaluation.subject import Subject, read_affinities
from emsam_jax.segmentation import Recipe
from emsam_jax.volumes import DeclaredVolume, open_volume

Offsets = tuple[tuple[int, int, int], ...]


class Source(Protocol):
    """Affinities of any subject, and what there is to say about where they come from."""

    @property
    def test(self) -> tuple[DeclaredVolume, ...]:
        """Volumes to judge when the request names none."""
        ...

    @property
    def validation(self) -> tuple[DeclaredVolume, ...]: ...

    @property
    def offsets(self) -> Offsets:
        """Of all channels; empty where only the three short ones are known."""
        ...

    @property
    def standings(self) -> str:
        """Name of the table of known results."""
        ...

    @property
    def step(self) -> int | None: ...

    @property
    def recipe(self) -> Recipe | None:
        """What was chosen earlier, for when there is no validation volume."""
        ...

    def read(self, subject: Subject) -> Shaped[np.ndarray, "c z y x"]: ...

    def describe(self) -> dict[str, Any]:
        """For scores.json and the report."""
        ...


class Stored:
    """Affinities, or labels, that someone has written."""

    test = validation = ()
    step = recipe = None
    standings = ""

    def __init__(self, request: Request, clock: Clock):
        self.url = request.affinities or request.segmentation
        self.volume = open_volume(self.url, channel="all" if request.affinities else None)
        self.offsets = request.offsets
        self.title = request.method_title or "/".join(Path(self.url).parts[-2:])
        self.clock = clock

    def read(self, subject: Subject) -> Shaped[np.ndarray, "c z y x"]:
        with self.clock.stage(subject.name, "read affinities", subject.box.voxels):
            return read_affinities(subject, self.volume)

    def describe(self) -> dict[str, Any]:
        return {"title": self.title, "stored": self.url}
