"""All settings that turn affinities into neurons, as a small JSON that is kept with a checkpoint."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from emsam_jax.errors import UserError
from emsam_jax.segmentation.agglomeration import SCORERS
from emsam_jax.segmentation.cleaning import CleanUp
from emsam_jax.segmentation.fragments import KINDS, FragmentParameters
from emsam_jax.segmentation.methods import AS_IT_IS, METHODS, PER_SECTION, segmentations
from emsam_jax.segmentation.probability import FEATURES, Logistic, MergeProbability
from emsam_jax.storage import write_whole

_MOST = 1 << 20  # voxels: more than any volume is long
Check = Callable[[Any, str], Any]  # (value, the field's name) -> the value as a recipe has it


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Method, threshold and parameters, as `segment_affinities` takes them."""

    method: str = "waterz"
    threshold: float = 0.5
    fragments: FragmentParameters = PER_SECTION
    scorer: str = "mean"
    strides: tuple[int, int, int] = (2, 2, 2)  # voxels between the long-range edges that mutex takes
    clean_up: CleanUp = AS_IT_IS
    chosen: dict[str, Any] = dataclasses.field(default_factory=dict)  # where, at which step, with which score
    probability: MergeProbability | None = None  # that both sides of a merge decision belong together

    def segment(self, affinities: np.ndarray, **options: Any) -> UInt64[np.ndarray, "z y x"]:
        """Labels by this recipe; options are `mask`, `threads` and, for mutex, the affinities' `offsets`."""
        return next(self.segmentations(affinities, [self.threshold], **options))

    def segmentations(
        self, affinities: np.ndarray, thresholds: Sequence[float], **options: Any
    ) -> Iterator[UInt64[np.ndarray, "z y x"]]:
        """Labels for each of the increasing thresholds; `fragments` may be given, made as the recipe says."""
        names = ("fragments", "scorer", "strides", "clean_up")
        own = {name: getattr(self, name) for name in names}
        return segmentations(affinities, thresholds, self.method, **{**own, **options})

    @property
    def cuts(self) -> bool:
        """Whether its method starts from fragments."""
        return self.method in ("waterz", "multicut")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    def write(self, path: str | Path) -> None:
        write_whole(path, self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> "Recipe":
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise UserError(
                f"{path}: expected a post-processing recipe, found that it cannot be read ({error.strerror}); "
                "emsam eval writes one as postprocess.json."
            ) from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str | bytes, path: str) -> "Recipe":
        """`path` is where the text comes from. A field that is no recipe's, or no possible value, is refused."""
        try:
            fields = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested without end
            raise UserError(f"{path}: expected a recipe as JSON, found none: {error}.") from None
        try:
            return cls(**_check_fields(fields, _FIELDS, ""))
        except _FieldError as error:
            raise UserError(f"{path}: {error}; emsam eval writes a recipe as postprocess.json.") from None


class _FieldError(ValueError):
    """What a field should hold, and what it holds."""


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _check_fields(found: Any, known: dict[str, Check], prefix: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _FieldError(f"{prefix.rstrip('.') or 'the recipe'}: expected an object with names, found {_short(found)}")
    for name in found:
        if name not in known:
            raise _FieldError(f"expected the fields {', '.join(known)}, found {_short(prefix + name)}")
    return {name: known[name](value, prefix + name) for name, value in found.items()}


def _one_of(values: tuple[str, ...]) -> Check:
    def check(value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in values:
            raise _FieldError(f"{name}: expected one of {', '.join(values)}, found {_short(value)}")
        return value

    return check


def _number(low: int | float, high: int | float, *, whole: bool = False, within: bool = False) -> Check:
    """From low to high; `within`: neither of the two."""
    kinds, words = (int, "a whole number") if whole else (int | float, "a number")
    said = f"{words} {'between' if within else 'from'} {low:g} {'and' if within else 'to'} {high:g}"

    def check(value: Any, name: str) -> Any:
        fits = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
        if not fits or not math.isfinite(value) or (within and value in (low, high)):
            raise _FieldError(f"{name}: expected {said}, found {_short(value)}")
        return value if whole else float(value)

    return check


def _several(each: Check, of: Sequence[str]) -> Check:
    def check(value: Any, name: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(of):
            raise _FieldError(f"{name}: expected {len(of)} numbers ({', '.join(of)}), found {_short(value)}")
        return tuple(each(one, f"{name}[{i}]") for i, one in enumerate(value))

    return check


def _truth(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise _FieldError(f"{name}: expected true or false, found {_short(value)}")
    return value


def _chosen(value: Any, name: str) -> dict[str, Any]:
    """Words about where the recipe comes from; of these only the score decides anything."""
    if not isinstance(value, dict):
        raise _FieldError(f"{name}: expected an object with names, found {_short(value)}")
    if value.get("score") is not None:
        _number(0, 1e9)(value["score"], f"{name}.score")
    return value


def _probability(value: Any, name: str) -> MergeProbability | None:
    if value is None:
        return None

    def check_one(found: Any, name: str) -> Logistic:
        return Logistic(**_check_all(found, _LOGISTIC, name))

    return MergeProbability(**_check_all(value, dict.fromkeys(("joined", "apart"), check_one), name))


def _check_all(found: Any, known: dict[str, Check], name: str) -> dict[str, Any]:
    """Checks fields of which none may be missing."""
    checked = _check_fields(found, known, f"{name}.")
    if len(checked) < len(known):
        raise _FieldError(f"{name}: expected the fields {', '.join(known)}, found {', '.join(checked) or 'none'}")
    return checked


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:80] + "..."


_SIZE = _number(0, 1 << 53, whole=True)
_FRAGMENTS: dict[str, Check] = {
    "kind": _one_of(KINDS),
    "boundary_threshold": _number(0, 1),
    "seed_distance": _number(0, 1000, whole=True),
    "sigma": _number(0, 1000),
    "min_size": _SIZE,
}
_CLEAN_UP: dict[str, Check] = {
    "min_size": _SIZE,
    "fill": _truth,
    "voxel_size_zyx": _several(_number(0, 1e9, within=True), "zyx"),
}
_COEFFICIENT = _number(-1e9, 1e9)
_LOGISTIC: dict[str, Check] = {
    "bias": _COEFFICIENT,
    **dict.fromkeys(("weights", "low", "high"), _several(_COEFFICIENT, FEATURES)),
    "least": _number(0, 0.5),
}
_FIELDS: dict[str, Check] = {
    "method": _one_of(METHODS),
    "threshold": _number(0, 1, within=True),
    "fragments": lambda value, name: FragmentParameters(**_check_fields(value, _FRAGMENTS, f"{name}.")),
    "scorer": _one_of(tuple(SCORERS)),
    "strides": _several(_number(1, _MOST, whole=True), "zyx"),
    "clean_up": lambda value, name: CleanUp(**_check_fields(value, _CLEAN_UP, f"{name}.")),
    "chosen": _chosen,
    "probability": _probability,
}
