"""Pushes a trained model, its recipe, its scores and a card written from them to a folder or the Hugging Face hub.

    emsam push runs/mine models/mine --license=apache-2.0
    emsam push runs/mine hf:me/mine@v1 --dtype=float16

RUN is a run's folder (its best checkpoint) or that of one checkpoint, with the scores that emsam eval left in eval/.
What arrives is read by every --ckpt= and by emsam_jax.load. Config and scores name the volumes by their paths.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emsam_jax.command_line import FLAGS, define_arguments, flags, group
from emsam_jax.config import differences, from_dict, to_dict
from emsam_jax.errors import UserError
from emsam_jax.inference import FORMAT, MODEL_FILES, Trained, load_trained, measured_from, read_trained_params
from emsam_jax.segmentation import Recipe
from emsam_jax.sharing.model_card import Said, write_card
from emsam_jax.storage import MODEL, claim, commit_to_hub, is_on_hub, is_remote, normalise, write_whole

PACKAGES = ("emsam-jax", "flax", "jax", "safetensors")
_PARAMS, _FACTS, _RECIPE, _SCORES, _CARD = MODEL_FILES
Dtype = Literal["float32", "float16"]


@dataclasses.dataclass(frozen=True)
class PushRequest:
    run: str  # a run's folder, or a step's
    dest: str  # a folder, or hf:OWNER/NAME[@BRANCH]
    dtype: Dtype = "float32"
    scores: tuple[
        str, ...
    ] = ()  # of emsam eval: this model's, then other seeds'; empty: the run's own, if there are some
    said: Said = dataclasses.field(default_factory=Said)
    paths: tuple[tuple[str, str], ...] = ()  # parts of paths, and what stands for them in what is pushed
    private: bool = False  # where the repository is new


def push(request: PushRequest) -> str:
    """Writes the model at `dest`; returns where it is, on the hub with its commit."""
    trained = load_trained(request.run)
    scores = read_scores(request, trained)
    if not is_on_hub(request.dest):
        if is_remote(request.dest):
            raise UserError(f"{request.dest}: expected a folder or hf:OWNER/NAME, found another URL; copy it there.")
        folder = normalise(request.dest)
        claim(folder, MODEL)
        write_model(Path(folder), request, trained, scores)
        return folder
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), request, trained, scores)
        message = f"{trained.name}, step {trained.step}"
        return commit_to_hub(request.dest, Path(folder), MODEL_FILES, message, private=request.private)


def read_scores(request: PushRequest, trained: Trained) -> list[dict[str, Any]]:
    """Reads contents of scores.json; the first is refused where it is another model's."""
    beside = [Path(request.run, "eval", _SCORES), trained.path / "eval" / _SCORES]
    named = list(map(Path, request.scores)) or [path for path in beside if path.exists()][:1]
    found = [_read_json(path) for path in named]
    for path, scores in zip(named, found, strict=True):
        if not {"headline", "volumes", "recipes", "data", "config"} <= scores.keys() or "step" not in scores["model"]:
            raise UserError(f"{path}: expected a trained model's scores by emsam eval, found others; leave them out.")
    if found:
        judged, config = from_dict(found[0]["config"]), to_dict(trained.config)  # later fields have their defaults
        other = [name for name, *_ in differences(to_dict(judged), config) if not name.startswith("config.predict")]
        if found[0]["model"]["step"] != trained.step or other:
            what = " with another ".join((f"step {found[0]['model']['step']}", *other[:1]))
            raise UserError(
                f"{named[0]}: expected scores of step {trained.step} of {request.run}, found {what}; "
                "call emsam eval again."
            )
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected scores by emsam eval, found none ({type(error).__name__}).") from None
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise UserError(f"{path}: expected scores by emsam eval, found something else.")
    return found


def write_model(folder: Path, request: PushRequest, trained: Trained, scores: Sequence[dict[str, Any]]) -> None:
    """Writes the files of MODEL_FILES; facts last, since they hold the hash of the parameters."""
    from safetensors.numpy import save

    measured = renamed(dataclasses.asdict(trained.measured), request.paths)
    config = renamed(to_dict(trained.config), request.paths)
    if scores:  # the model predicts as it was judged
        config["predict"] = scores[0]["config"]["predict"]
    trained = dataclasses.replace(trained, measured=measured_from({"measured": measured}), config=from_dict(config))
    with np.errstate(over="ignore"):
        params = {name: np.asarray(value, request.dtype) for name, value in read_trained_params(trained.path).items()}
    too_large = [name for name, value in params.items() if not np.isfinite(value).all()]
    if too_large:
        raise UserError(f"--dtype={request.dtype}: {too_large[0]} has values beyond its range; push float32.")
    content = save(params, {"format": FORMAT})
    parameters = {
        "dtype": request.dtype,
        "count": sum(value.size for value in params.values()),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    facts = {
        "format": FORMAT,
        "name": trained.name,
        "step": trained.step,
        "parameters": parameters,
        "measured": measured,
        "shift": np.asarray(trained.model.shift).tolist(),
        "config": config,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    told = [renamed(one, request.paths) for one in scores]
    recipe = _recipe_of(trained, told)
    card = write_card(trained, request.dest, parameters=parameters, recipe=recipe, scores=told, said=request.said)
    write_whole(folder / _PARAMS, content)
    for file, text in (
        (_RECIPE, recipe.to_json() if recipe else None),
        (_SCORES, json.dumps(told[0], indent=1) + "\n" if told else None),
        (_CARD, card),
        (_FACTS, json.dumps(facts, indent=1) + "\n"),
    ):
        if text is None:
            (folder / file).unlink(missing_ok=True)
        else:
            write_whole(folder / file, text)


def _recipe_of(trained: Trained, scores: Sequence[dict[str, Any]]) -> Recipe | None:
    """Returns the recipe by which the scores were measured; without scores, the checkpoint's."""
    if scores and scores[0]["headline"] in scores[0]["recipes"]:
        return Recipe.parse(json.dumps(scores[0]["recipes"][scores[0]["headline"]]), _SCORES)
    return Recipe.read(trained.recipe) if trained.recipe else None


def renamed(value: Any, paths: Sequence[tuple[str, str]]) -> Any:
    """Replaces each first text by its second in JSON's values, at any depth."""
    if isinstance(value, dict):
        return {name: renamed(each, paths) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(each, paths) for each in value]
    if isinstance(value, str):
        for old, new in paths:
            value = value.replace(old, new)
    return value


def define_flags() -> None:
    define_arguments("RUN", "DEST")
    with group("What is pushed"):
        flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Stored type; float16 halves the file.")
        flags.DEFINE_multi_string(
            "scores",
            [],
            "Scores by emsam eval, `FILE`: this model's, in place of those in its eval/; repeated, then other seeds', "
            "of whose means the card gives the intervals.",
        )
        flags.DEFINE_multi_string(
            "path", [], "`FROM=TO`: TO stands for FROM wherever a path in what is pushed has it. May be repeated."
        )
    with group("What the card says, besides what was measured"):
        flags.DEFINE_string("license", "", "Licence of the parameters, `NAME` as the hub knows it, such as apache-2.0.")
        flags.DEFINE_string("data", "", "Training data, `TEXT`: what they are and where they come from.")
        flags.DEFINE_string("data_license", "", "Licence of the training data, `TEXT`.")
        flags.DEFINE_string("about", "", "What the model is for, `TEXT`.")
    with group("Destination (the hub)"):
        flags.DEFINE_bool("private", False, "Make a new repository private.")


def request(arguments: Sequence[str]) -> PushRequest:
    paths = [text.partition("=") for text in FLAGS.path]
    for old, sign, _ in paths:
        if not (old and sign):
            raise UserError(f"--path={old}: expected FROM=TO, found no sign = within.")
    return PushRequest(
        run=arguments[0],
        dest=arguments[1],
        dtype=FLAGS.dtype,
        scores=tuple(FLAGS.scores),
        said=Said(FLAGS.license, FLAGS.data, FLAGS.data_license, FLAGS.about),
        paths=tuple((old, new) for old, _, new in paths),
        private=FLAGS.private,
    )


def main(arguments: list[str]) -> None:
    where = push(request(arguments))
    print(f"Model: {where}\nUse it as --ckpt={where}, or by emsam_jax.load({where!r}).")
