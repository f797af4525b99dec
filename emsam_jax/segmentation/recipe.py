"""All that decides how affinities become neurons, as a small JSON that is kept with a checkpoint."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from emsam_jax.segmentation.checks import SegmentationError
from emsam_jax.segmentation.cleaning import CleanUp
from emsam_jax.segmentation.fragments import FragmentParameters
from emsam_jax.segmentation.segment import AS_IT_IS, PER_SECTION, segment_affinities


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Method, threshold and parameters, as `segment_affinities` takes them."""

    method: str = "waterz"
    threshold: float = 0.5
    fragments: FragmentParameters = PER_SECTION
    scorer: str = "mean"
    offsets: tuple[tuple[int, int, int], ...] | None = None  # voxels, of each channel; for mutex
    strides: tuple[int, int, int] = (2, 2, 2)  # voxels between the long-range edges that mutex takes
    clean_up: CleanUp = AS_IT_IS
    chosen: dict[str, Any] = dataclasses.field(default_factory=dict)  # where, at which step, with which score

    def segment(self, affinities: np.ndarray, **options: Any) -> UInt64[np.ndarray, "z y x"]:
        """Labels by this recipe; options are `mask` and `threads`."""
        return segment_affinities(affinities, self.method, self.threshold, **self.parameters(), **options)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def write(self, path: str | Path) -> None:
        Path(path).write_text(self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> "Recipe":
        try:
            text = Path(path).read_text()
        except OSError as error:
            raise SegmentationError(
                f"{path}: expected a post-processing recipe, found that it cannot be read ({error.strerror}); "
                "eval.py writes one as postprocess.json."
            ) from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str | bytes, path: str) -> "Recipe":
        """`path` is where the text comes from."""
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise TypeError(f"found a {type(fields).__name__}")
            nested = {"fragments": FragmentParameters, "clean_up": _read_clean_up}
            for name, make in nested.items():
                if name in fields:
                    fields[name] = make(**fields[name])
            if fields.get("offsets") is not None:
                fields["offsets"] = tuple(tuple(offset) for offset in fields["offsets"])
            if "strides" in fields:
                fields["strides"] = tuple(fields["strides"])
            recipe = cls(**fields)
            _check_types(recipe)
            return recipe
        except (TypeError, json.JSONDecodeError) as error:
            raise SegmentationError(
                f"{path} must hold a post-processing recipe as the tuner writes it, but does not: {error}."
            ) from error

    def parameters(self) -> dict[str, Any]:
        """The options that `segmentations` takes."""
        names = ("fragments", "scorer", "offsets", "strides", "clean_up")
        return {name: getattr(self, name) for name in names}


def _check_types(recipe: Recipe) -> None:
    for name, kind in (("method", str), ("scorer", str), ("threshold", float | int), ("chosen", dict)):
        if not isinstance(found := getattr(recipe, name), kind):
            raise TypeError(f"its {name} is {found!r}")


def _read_clean_up(**fields: Any) -> CleanUp:
    if "voxel_size_zyx" in fields:
        fields["voxel_size_zyx"] = tuple(fields["voxel_size_zyx"])
    return CleanUp(**fields)
