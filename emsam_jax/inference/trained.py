"""A trained model from a run's folder: RUN, its best step by validation or else its newest, or a step's own folder."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emsam_jax.config import Config
from emsam_jax.config_file import from_dict
from emsam_jax.model import EncoderError, FGNet, merge_fgnet
from emsam_jax.model.image_encoder import FACTS_FILE, read_arrays, read_params

CHECKPOINTS, ENCODER_FOLDER, RECIPE_FILE = "checkpoints", "encoder", "postprocess.json"
PARAMS, EMA, OPTIMIZER, FACTS = "params", "ema", "optimizer", "facts"
_PREFIX = "encoder."


class CheckpointError(ValueError):
    """Something about a checkpoint that a user can put right, said in one sentence."""


@dataclasses.dataclass(frozen=True)
class Trained:
    model: FGNet  # with the running mean of the parameters
    config: Config
    step: int
    recipe: Path | None  # postprocess.json, where this step was validated
    path: Path  # the step's own folder
    voxel_size_zyx: tuple[float, float, float]  # nm, of the volumes it was trained on


def load_trained(path: str | Path) -> Trained:
    folder = find_step(path)
    facts = read_step_facts(folder)
    config = from_dict(facts["config"])
    recipe = folder / RECIPE_FILE
    return Trained(
        merge_fgnet(config.model, read_arrays(folder / EMA), _read_frozen(folder, facts)),
        config,
        facts["step"],
        recipe if recipe.exists() else None,
        folder,
        tuple(facts["voxel_size_zyx"]),
    )


def read_trained_params(path: str | Path) -> dict[str, np.ndarray]:
    """The running mean of all parameters, a frozen encoder's too, by their dotted names."""
    folder = find_step(path)
    return {**read_arrays(folder / EMA), **_read_frozen(folder, read_step_facts(folder))}


def find_step(path: str | Path) -> Path:
    """The folder of the step that `path` names, or of the one that stands for the run there."""
    path = Path(path).absolute()
    if (path / FACTS).exists():
        return path
    steps = finished_steps(path / CHECKPOINTS)
    if not steps:
        reason = "it holds no finished checkpoint" if path.exists() else "there is no such folder"
        raise CheckpointError(f"{path}: expected a run's folder, or that of one of its checkpoints, but {reason}.")
    scores = {step: score for step in steps if (score := validation_score(step)) is not None}
    return min(scores, key=lambda step: (scores[step], -int(step.name))) if scores else steps[-1]


def finished_steps(checkpoints: Path) -> list[Path]:
    """Folders of whole checkpoints, in order; one whose writing was cut short has another name."""
    found = [folder for folder in checkpoints.glob("*") if folder.name.isdigit() and (folder / FACTS).exists()]
    return sorted(found, key=lambda folder: int(folder.name))


def validation_score(folder: Path) -> float | None:
    """Smoothed VOI by the validation of this step, lower is better; None where training never validated it."""
    try:
        score = json.loads((folder / RECIPE_FILE).read_text())["chosen"]["score"]
        if score is None or math.isfinite(score):
            return None if score is None else float(score)
    except FileNotFoundError:
        return None
    except (KeyError, OverflowError, TypeError, ValueError):
        pass
    raise CheckpointError(
        f"{folder / RECIPE_FILE}: expected a number or null as chosen.score; remove the file to leave it out."
    )


def read_step_facts(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / FACTS / "metadata").read_text())
    except (OSError, ValueError):
        raise CheckpointError(f"{folder}: expected readable facts in it; the checkpoint is damaged.") from None


def content_hash(params: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(params):
        digest.update(f"{name} {params[name].shape} {params[name].dtype};".encode())
        digest.update(np.ascontiguousarray(params[name]).data)
    return digest.hexdigest()


def read_encoder(run: Path, expected: str) -> dict[str, np.ndarray]:
    """The frozen image encoder's parameters, by their names in the model, if they are those of this hash."""
    folder = run / ENCODER_FOLDER
    if not (folder / FACTS_FILE).exists():
        raise CheckpointError(
            f"{folder}: expected the frozen image encoder of this run there, found none; copy it back."
        )
    params = {_PREFIX + name: value for name, value in read_params(folder).items()}
    if content_hash(params) != expected:
        raise EncoderError(
            f"{folder}: expected the image encoder that this run was trained with (hash {expected[:12]}), "
            "found another; copy the right one back."
        )
    return params


def _read_frozen(folder: Path, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    if facts["encoder"] is None:
        return {}
    beside = (folder / ENCODER_FOLDER).exists()
    return read_encoder(folder if beside else folder.parent.parent, facts["encoder"])
