"""Reads a model that travels: a folder, or a repository of the Hugging Face hub, that `sharing` wrote.

It holds all parameters (`model.safetensors`, the running mean, a frozen encoder's too) and what predicting needs
(`config.json`); where they are known, the recipe (`postprocess.json`), what was scored (`scores.json`) and a model card
(`README.md`).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from emsam_jax.errors import UserError, parsing
from emsam_jax.storage import fetch_from_hub, is_on_hub

FORMAT = "emsam_jax model 1"
MODEL_PARAMS, MODEL_FACTS = "model.safetensors", "config.json"
MODEL_FILES = (MODEL_PARAMS, MODEL_FACTS, "postprocess.json", "scores.json", "README.md")
_FACTS = ("name", "step", "config", "measured", "shift", "parameters")
_AGAIN = "push the run again, or take another revision."


def find_model_folder(path: str | Path) -> Path | None:
    """Returns the folder of a model that travels, fetched where it is on the hub; None where `path` is none."""
    if is_on_hub(str(path)):
        return fetch_from_hub(str(path), MODEL_FILES)
    folder = Path(path).absolute()
    return folder if is_model_folder(folder) else None


def is_model_folder(folder: Path) -> bool:
    return (folder / MODEL_PARAMS).exists()


def read_model_folder(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the parameters, float32 by their dotted names, and the facts; checks that neither is damaged."""
    from safetensors.numpy import load

    facts = _read_facts(folder / MODEL_FACTS)
    file = folder / MODEL_PARAMS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: expected the model's parameters, found none ({error.strerror}); {_AGAIN}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != facts["parameters"]["sha256"]:
        raise UserError(
            f"{file}: expected the parameters that {MODEL_FACTS} names, with the SHA-256 "
            f"{facts['parameters']['sha256']}, found {found} ({len(content)} bytes): one of the two is damaged or "
            f"another model's; {_AGAIN}"
        )
    with parsing(str(file), "parameters in safetensors"):
        return {name: value.astype(np.float32, copy=False) for name, value in load(content).items()}, facts


def _read_facts(file: Path) -> dict[str, Any]:
    """Reads what is no array; the types of what is in `config` and `measured` are checked as for a run's steps."""
    facts: dict[str, Any] = {}
    try:
        facts = json.loads(file.read_bytes())
        known = facts["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        known = None
    if known != FORMAT:
        raise UserError(
            f"{file}: expected the facts of a model that this software pushed ({FORMAT}), found "
            f"{'none' if known is None else json.dumps(known)[:80]}."
        )
    missing = [name for name in _FACTS if name not in facts]
    if missing or not isinstance(facts["parameters"], dict) or not isinstance(facts["parameters"].get("sha256"), str):
        raise UserError(f"{file}: expected `{(*missing, 'parameters.sha256')[0]}` in it, found none; {_AGAIN}")
    return facts
