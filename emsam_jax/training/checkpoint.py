"""Saves and restores checkpoints of a run, by Orbax, in the background: the newest ones and the best one are kept.

RUN/checkpoints/STEP holds `params` and `ema` (flat: dotted name -> array), `optimizer`, and `facts` (step, data
position, config, ...). What is frozen is written once, to RUN/encoder; each step's facts name its hash.
"""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from emsam_jax.config import Config, differences, from_dict, to_dict
from emsam_jax.errors import UserError
from emsam_jax.inference import (
    CHECKPOINTS,
    EMA,
    ENCODER_FOLDER,
    FACTS,
    OPTIMIZER,
    PARAMS,
    Measured,
    check_item,
    checksum_of_facts,
    checksums,
    finished_steps,
    measured_from,
    read_encoder,
    read_step_facts,
    validation_score,
)
from emsam_jax.model import ENCODER, Params, content_hash, stored_arrays, writing_image_encoder
from emsam_jax.training.sharding import everywhere, gather, put
from emsam_jax.training.state import TrainState, abstract_state

# What may differ when a run resumes: it changes neither what is learned nor from which data, but for rounding and
# which branches drop path leaves out.
FREE = (
    *("name", "standings", "fsdp", "checkpoint", "log", "validation", "predict"),
    *("data.validation", "data.test", "data.threads", "data.prefetch"),
    *("optim.accumulate", "optim.bad_steps"),
    *("model.remat", "model.encoder.remat", "model.encoder.attention"),
)


class Best:
    """Keeps the best step by validation, and those whose validation is under way."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.awaited: set[int] = set()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        del context
        scores = {info.step: validation_score(self.folder / str(info.step)) for info in checkpoints}
        known = {step: score for step, score in scores.items() if score is not None}
        best = min(known, key=lambda step: (known[step], -step)) if known else None
        return [info.step == best or info.step in self.awaited for info in checkpoints]


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """Leaving the context waits until what is being written is whole."""

    def __init__(
        self,
        workdir: Path,
        config: Config,
        measured: Measured | None = None,
        fingerprints: Mapping[str, str] | None = None,
    ):
        """`measured` of the training volumes may follow, but before the first step is saved. `fingerprints`: of those
        volumes, by what they are called in a message.
        """
        self.workdir, self.config = workdir, config
        self.measured = measured or Measured()
        self.steps_before = config.optim.steps  # as the run that is resumed was asked for
        self.folder = workdir / CHECKPOINTS
        self.best = Best(self.folder)
        self._facts = {"config": to_dict(config), "data": dict(fingerprints or {}), "encoder": None}
        self._manager = ocp.CheckpointManager(
            self.folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation.AnyPreservationPolicy(
                    [preservation.LatestN(config.checkpoint.keep), self.best]
                ),
                cleanup_tmp_directories=True,
            ),
        )

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def newest(self) -> int | None:
        return self._manager.latest_step()

    def wait(self) -> None:
        """Waits until the last saved step is whole."""
        self._manager.wait_until_finished()

    def keep_frozen(self, frozen: Params) -> None:
        """Writes the frozen encoder at a run's start; replaces one that a run without any checkpoint left behind."""
        if not frozen:
            return
        params = {name.removeprefix(ENCODER): value for name, value in gather(frozen).items()}
        self._facts["encoder"] = content_hash(params)
        if jax.process_index() == 0:
            encoder = self.config.model.encoder
            facts = {"size": encoder.size, "features": encoder.features}
            with writing_image_encoder(self.workdir / ENCODER_FOLDER, params, facts):
                pass

    def save(self, step: int, state: TrainState) -> None:
        """Saves a step; returns as soon as the values are copied from the devices."""
        items = {PARAMS: state.params, EMA: state.ema, OPTIMIZER: _flat(state.optimizer)}
        facts: dict[str, Any] = {
            **self._facts,
            "measured": dataclasses.asdict(self.measured),
            "step": step,
            "samples": step * self.config.optim.batch,
            "skipped": int(state.skipped),
            "skipped_in_row": int(state.skipped_in_row),
            "versions": {"jax": jax.__version__, "orbax": ocp.__version__},
            "checksums": {item: checksums(gather(values)) for item, values in items.items()},
        }
        arrays = {item: ocp.args.StandardSave(values) for item, values in items.items()}
        whole = ocp.args.JsonSave({**facts, "checksum": checksum_of_facts(facts)})
        self._manager.save(step, args=ocp.args.Composite(**arrays, **{FACTS: whole}), force=True)

    def restore(self, step: int, mesh: Mesh) -> tuple[TrainState, Params]:
        """Restores a step, sharded over this mesh; refuses a config that would have led elsewhere."""
        folder = self.folder / str(step)
        facts = read_step_facts(folder)
        saved = to_dict(from_dict(facts["config"]))  # fields that came later have their defaults
        check_same(saved, to_dict(self.config), folder, step)
        self.steps_before = facts["config"]["optim"]["steps"]
        for name, fingerprint in self._facts["data"].items():
            if facts["data"].get(name) != fingerprint:
                raise UserError(
                    f"{name}: expected the voxels and labels that {folder} was trained on, found others; put them "
                    "back, or take another --workdir."
                )
        shapes, frozen_shapes = abstract_state(self.config, mesh)
        wanted = {PARAMS: shapes.params, EMA: shapes.ema, OPTIMIZER: _flat(shapes.optimizer)}
        with stored_arrays(folder):
            items = self._manager.restore(
                step,
                args=ocp.args.Composite(**{name: ocp.args.StandardRestore(item) for name, item in wanted.items()}),
            )
        for name in wanted:
            check_item(folder, name, gather(items[name]), facts)
        self._facts["encoder"], self.measured = facts["encoder"], measured_from(facts)
        frozen = put(mesh, read_encoder(self.workdir, facts["encoder"])) if frozen_shapes else {}

        def counter(number: int) -> jax.Array:
            return jax.device_put(jnp.asarray(number, jnp.int32), everywhere(mesh))

        leaves = [items[OPTIMIZER][name] for name in _flat(shapes.optimizer)]
        optimizer = jax.tree.unflatten(jax.tree.structure(shapes.optimizer), leaves)
        state = TrainState(
            counter(step),
            items[PARAMS],
            optimizer,
            items[EMA],
            counter(facts["skipped"]),
            counter(facts["skipped_in_row"]),
        )
        return state, frozen

    def last_before(self, step: int) -> Path | None:
        """Returns the newest checkpoint up to a step."""
        self.wait()
        found = [folder for folder in finished_steps(self.folder) if int(folder.name) <= step]
        return found[-1] if found else None


def check_same(saved: dict[str, Any], wanted: dict[str, Any], folder: Path, step: int) -> None:
    """Refuses another config; more steps are allowed, and fewer, but not fewer than are done."""

    def free(field: str, now: Any) -> bool:
        name = field.removeprefix("config.")
        longer = name == "optim.steps" and now >= step
        return longer or any(name == one or name.startswith(f"{one}.") for one in FREE)

    changed = [found for found in differences(saved, wanted) if not free(found[0], found[2])]
    if changed:
        named = "; ".join(f"{name} was {_short(old)} and is now {_short(new)}" for name, old, new in changed)
        raise UserError(
            f"{folder} was trained with another config: {named}. Take the old values to resume, or another --workdir "
            f"with --config.init_from={folder} to start from its parameters."
        )


def _short(value: Any, limit: int = 120) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "..."


def _flat(optimizer: Any) -> dict[str, Any]:
    """Returns the leaves by their index, which does not depend on optax's own types."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(optimizer)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
