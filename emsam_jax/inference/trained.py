"""Loads a trained model: of a run's folder its best step by validation, or its newest; a step's own; one pushed."""

import dataclasses
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emsam_jax.config import Config, from_dict, override
from emsam_jax.errors import UserError
from emsam_jax.inference.calibrated import Calibrated, calibrate
from emsam_jax.inference.model_folder import find_model_folder, is_model_folder, read_model_folder
from emsam_jax.model import FACTS_FILE, merge_fgnet, read_arrays, read_facts, read_params
from emsam_jax.volumes import Part, part_from

CHECKPOINTS, ENCODER_FOLDER, RECIPE_FILE = "checkpoints", "encoder", "postprocess.json"
CALIBRATION_FILE = "calibration.json"  # what validation found to be wrong with a step's log odds
PARAMS, EMA, OPTIMIZER, FACTS = "params", "ema", "optimizer", "facts"
_PREFIX = "encoder."
_ANOTHER_VERSION = ": another version of this software wrote it, so train again; "
_COUNTERS = ("step", "samples", "skipped", "skipped_in_row")
_FACTS = ("config", "data", "encoder", "measured", "checksums", *_COUNTERS)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a run measures of its training volumes before the first step. Each of its checkpoints keeps it."""

    voxel_size_zyx: tuple[float, float, float] = (1.0, 1.0, 1.0)  # nm
    ranges: tuple[tuple[float, float], ...] = ()  # of each training volume, the raw values that become 0 and 1
    positives: tuple[float, ...] = ()  # share of the affinities that are 1, by channel
    prior: tuple[float, ...] = ()  # log odds that the loss's class weights add to the logits, by channel
    parts: tuple[Part, ...] = ()  # what of which files the training sees


@dataclasses.dataclass(frozen=True)
class Trained:
    model: Calibrated  # with the running mean of the parameters
    config: Config
    step: int
    recipe: Path | None  # postprocess.json, where this step was validated
    path: Path  # the step's own folder, or that of a model that travels
    measured: Measured
    name: str  # the experiment's, or else the folder's
    pushed: bool  # whose volumes may be elsewhere; or a run's


class _Stored(NamedTuple):
    params: dict[str, np.ndarray]  # the running mean of all, a frozen encoder's too
    config: Config
    step: int
    measured: Measured
    shift: tuple[float, ...]  # of the log odds, by channel; empty: none was measured
    folder: Path
    name: str


def load_trained(path: str | Path, predict: Sequence[str] = ()) -> Trained:
    """Loads a model from a run, a step, a folder that `sharing` wrote, or the hub (hf:OWNER/NAME@REVISION).

    `predict` overrides fields of its `config.predict`, such as symmetries=16.
    """
    params, config, step, measured, shift, folder, name = _read(path)
    config = override(config, [f"predict.{field}" for field in predict])
    model = calibrate(merge_fgnet(config.model, params, {}), measured.prior, shift)
    recipe = folder / RECIPE_FILE
    known = recipe if recipe.exists() else None
    return Trained(model, config, step, known, folder, measured, name, pushed=is_model_folder(folder))


def _read(path: str | Path) -> _Stored:
    folder = find_model_folder(path)
    if folder is not None:
        return _read_model(folder)
    folder = find_step(path)
    facts = read_step_facts(folder)
    params = {**read_item(folder, EMA, facts), **_read_frozen(folder, facts)}
    config = from_dict(facts["config"])
    name = config.name or folder.parent.parent.name
    return _Stored(params, config, facts["step"], measured_from(facts), read_shift(folder), folder, name)


def _read_model(folder: Path) -> _Stored:
    params, facts = read_model_folder(folder)
    try:
        config, measured = from_dict(facts["config"]), measured_from(facts)
        shift = tuple(map(float, facts["shift"]))
        if min(measured.voxel_size_zyx) <= 0 or not math.isfinite(sum((*measured.voxel_size_zyx, *shift))):
            raise ValueError
        return _Stored(params, config, int(facts["step"]), measured, shift, folder, str(facts["name"]))
    except UserError as error:
        raise UserError(f"{folder}: {str(error).rstrip('.')}: another version of this software wrote it.") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        raise UserError(f"{folder}: expected readable facts in its config.json, found damaged ones.") from None


def measured_from(facts: Mapping[str, Any]) -> Measured:
    found = facts["measured"]
    z, y, x = (float(size) for size in found["voxel_size_zyx"])
    return Measured(
        (z, y, x),
        tuple((float(low), float(high)) for low, high in found["ranges"]),
        tuple(map(float, found["positives"])),
        tuple(map(float, found["prior"])),
        tuple(map(part_from, found["parts"])),
    )


def read_shift(folder: Path) -> tuple[float, ...]:
    """Reads the shift of log odds, by channel, that this step's validation measured; empty where there was none."""
    path = folder / CALIBRATION_FILE
    try:
        return tuple(float(odds) for odds in json.loads(path.read_text())["shift"])
    except FileNotFoundError:
        return ()
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: expected `shift`, a number a channel; remove it to go without.") from None


def read_trained_params(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the running mean of all parameters, a frozen encoder's too, by their dotted names."""
    return _read(path).params


def find_step(path: str | Path) -> Path:
    """Returns the folder of the step that `path` names, or of the step that represents the run there."""
    path = Path(path).absolute()
    if (path / FACTS).exists():
        return path
    steps = finished_steps(path / CHECKPOINTS)
    if not steps:
        reason = "it holds no finished checkpoint" if path.exists() else "there is no such folder"
        raise UserError(f"{path}: expected a run's folder, or that of one of its checkpoints, but {reason}.")
    scores = {step: score for step in steps if (score := validation_score(step)) is not None}
    return min(scores, key=lambda step: (scores[step], -int(step.name))) if scores else steps[-1]


def finished_steps(checkpoints: Path) -> list[Path]:
    """Lists the folders of whole checkpoints, in order; an unfinished one has another name."""
    found = [folder for folder in checkpoints.glob("*") if folder.name.isdigit() and (folder / FACTS).exists()]
    return sorted(found, key=lambda folder: int(folder.name))


def validation_score(folder: Path) -> float | None:
    """Reads the smoothed VOI of this step's validation, lower is better; None where it was never validated."""
    try:
        score = json.loads((folder / RECIPE_FILE).read_text())["chosen"]["score"]
        if score is None or math.isfinite(score):
            return None if score is None else float(score)
    except FileNotFoundError:
        return None
    except (KeyError, OverflowError, TypeError, ValueError, RecursionError):
        pass
    raise UserError(
        f"{folder / RECIPE_FILE}: expected a number or null as chosen.score; remove the file to leave it out."
    )


def read_step_facts(folder: Path) -> dict[str, Any]:
    """Reads a step's facts, checked by type and range: they may come from anywhere, and may be damaged."""
    facts: dict[str, Any] = {}
    try:
        facts = json.loads((folder / FACTS / "metadata").read_text())
        missing = [name for name in (*_FACTS, "checksum") if name not in facts]
        if missing:
            raise UserError(
                f"expected `{missing[0]}` among its facts, found none{_ANOTHER_VERSION}{_instead_of(folder)}"
            )
        if facts.pop("checksum") != checksum_of_facts(facts):
            raise ValueError
        try:
            from_dict(facts["config"])
        except UserError as error:  # what is whole was a config when it was written
            raise UserError(f"{str(error).rstrip('.')}{_ANOTHER_VERSION}{_instead_of(folder)}") from None
        z, y, x = measured_from(facts).voxel_size_zyx
        counters = [facts[name] for name in _COUNTERS]
        sums = [facts["checksums"][item] for item in (PARAMS, EMA, OPTIMIZER)]
        sound = (
            min(z, y, x) > 0
            and math.isfinite(z + y + x)
            and all(type(number) is int and number >= 0 for number in counters)
            and all(isinstance(found, dict) for found in sums)
            and isinstance(facts["encoder"], str | None)
        )
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise UserError(f"{folder}: expected readable facts in it, found damaged ones; {_instead_of(folder)}")
    return facts


def read_item(folder: Path, item: str, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    """Reads `params` or `ema` of a step, and checks each array's checksum."""
    try:
        values = read_arrays(folder / item)
    except UserError as error:
        raise UserError(f"{error}; {_instead_of(folder)}") from None
    check_item(folder, item, values, facts)
    return values


def check_item(folder: Path, item: str, values: Mapping[str, np.ndarray], facts: dict[str, Any]) -> None:
    expected, found = facts["checksums"][item], checksums(values)
    changed = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if changed:
        raise UserError(
            f"{folder / item}: expected the arrays that were saved, found {len(changed)} changed, such as "
            f"{changed[0]}: the checkpoint is damaged; {_instead_of(folder)}"
        )


def checksums(values: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Computes the CRC-32 of each array's type, shape and values."""
    found = {}
    for name, value in values.items():
        array = np.ascontiguousarray(value)
        begun = zlib.crc32(f"{array.dtype} {np.shape(value)}".encode())
        found[name] = zlib.crc32(array.reshape(-1).view(np.uint8).data, begun)
    return found


def checksum_of_facts(facts: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())


def _instead_of(folder: Path) -> str:
    others = [step for step in finished_steps(folder.parent) if step != folder]
    return f"take another step, such as {others[-1]}, or remove this one." if others else "there is no other step."


def read_encoder(run: Path, expected: str) -> dict[str, np.ndarray]:
    """Reads the frozen image encoder's parameters, by their names in the model, and checks their hash."""
    folder = run / ENCODER_FOLDER
    if not (folder / FACTS_FILE).exists():
        raise UserError(f"{folder}: expected the frozen image encoder of this run there, found none; copy it back.")
    if read_facts(folder)["hash"] != expected:
        raise UserError(
            f"{folder}: expected the image encoder that this run was trained with (hash {expected[:12]}), "
            "found another; copy the right one back."
        )
    return {_PREFIX + name: value for name, value in read_params(folder).items()}


def _read_frozen(folder: Path, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    if facts["encoder"] is None:
        return {}
    beside = (folder / ENCODER_FOLDER).exists()
    return read_encoder(folder if beside else folder.parent.parent, facts["encoder"])
