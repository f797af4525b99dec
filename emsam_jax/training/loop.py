"""The training loop: data, step, log, save."""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from emsam_jax.blocks import RunLock
from emsam_jax.config import Config, check_patch, to_dict
from emsam_jax.errors import UserError
from emsam_jax.model import Params
from emsam_jax.storage import TRAINING, check_free, claim, write_whole
from emsam_jax.training.checkpoint import Checkpoints
from emsam_jax.training.log import BadStepsError, Log
from emsam_jax.training.losses import class_weights
from emsam_jax.training.optimizer import optim_of, schedule
from emsam_jax.training.pictures import make_sampler
from emsam_jax.training.preemption import Notice, Preempted
from emsam_jax.training.sharding import check_batch, gather, make_mesh
from emsam_jax.training.start_page import start_page
from emsam_jax.training.state import TrainState, new_state
from emsam_jax.training.step import compile_train_step
from emsam_jax.training.stream import Stream
from emsam_jax.training.validation import Validator
from emsam_jax.volumes import open_shared, refuse_overlap


def train(
    config: Config,
    workdir: str | Path,
    devices: Sequence[Any] | None = None,
    *,
    allow_overlap: bool = False,
    given: Sequence[str] = (),
) -> None:
    """Trains to the last step, from the newest checkpoint in `workdir` if there is one.

    Training, validation and test volumes that share voxels are refused, unless that is allowed. A new `workdir` may
    hold these volumes and what is `given`, such as the config's file, but no other files.
    """
    workdir = Path(workdir).absolute()
    place = str(workdir), TRAINING, _sources(config)
    if jax.process_index() == 0:
        check_free(*place, given=given)
    mesh = make_mesh(config.fsdp, devices)
    check_batch(config, mesh)
    check_patch(config.model, config.data.patch, "config.data.patch")
    data = config.data
    split = open_shared({"training": data.train, "validation": data.validation, "test": data.test})
    overlaps = refuse_overlap(split, allowed=allow_overlap)
    stream = Stream(config)
    if jax.process_index() == 0:
        claim(*place, given=given)
    begun = stream.fingerprints()
    with _alone(workdir), Checkpoints(workdir, config, fingerprints=begun) as checkpoints, Notice() as notice:
        first = checkpoints.newest() or 0
        state, frozen = _state(config, mesh, checkpoints, stream)
        _write_config(config, workdir)
        measured = checkpoints.measured
        train_step = compile_train_step(config, mesh, state, class_weights(measured.positives, config.loss))
        sample = make_sampler(config, mesh, measured.prior)
        with Log(config, workdir, first) as log, Validator(config, workdir, checkpoints, log) as validator:
            origin = _origin(config, checkpoints)
            seen = {"mesh": mesh, "stream": stream, "params": state.params, "frozen": frozen}
            log.say(start_page(config, workdir, origin=origin, overlaps=overlaps, measured=measured, **seen))
            validator.catch_up()
            try:
                for step, batch in zip(
                    range(first + 1, config.optim.steps + 1), stream.batches(mesh, first), strict=False
                ):
                    state, metrics = train_step(state, frozen, batch)
                    log.step(step, metrics)
                    stop, last = notice.reached(step), step == config.optim.steps
                    if last or step % config.log.pictures_every == 0:
                        log.flush()
                        log.sample(step, sample(state.params, frozen, batch))
                        log.resume()
                    if stop or last or step % config.checkpoint.every == 0 or validator.due(step):
                        log.flush()
                        checkpoints.save(step, state)
                        if validator.due(step) and not stop:
                            validator.start(step, gather({**state.ema, **frozen}))
                        log.resume()
                    validator.collect()
                    if stop and (not last or validator.due(step)):
                        checkpoints.wait()
                        log.say(f"Asked to stop: step {step} is saved. The same command resumes there.")
                        raise Preempted(step)
            except BadStepsError as error:
                raise UserError(_advice(error, checkpoints)) from None
            validator.finish(config.optim.steps, notice)
            log.say(f"Trained for {config.optim.steps} steps: {checkpoints.folder}, {log.curves()}")


def _sources(config: Config) -> list[str]:
    volumes = (*config.data.train, *config.data.validation, *config.data.test)
    return [url for volume in volumes for url in (volume.raw, volume.labels, volume.mask) if url]


def _alone(workdir: Path) -> contextlib.AbstractContextManager[Any]:
    """Allows one run at a time in a workdir; its first process holds the lock for all."""
    return RunLock(str(workdir)) if jax.process_index() == 0 else contextlib.nullcontext()


def _state(config: Config, mesh: Mesh, checkpoints: Checkpoints, stream: Stream) -> tuple[TrainState, Params]:
    newest = checkpoints.newest()
    if newest is not None:
        return checkpoints.restore(newest, mesh)
    checkpoints.measured = stream.measure(mesh)
    state, frozen = new_state(config, mesh)
    checkpoints.keep_frozen(frozen)
    return state, frozen


def _origin(config: Config, checkpoints: Checkpoints) -> str:
    newest = checkpoints.newest()
    if newest is not None:
        return f"resuming after step {newest} from {checkpoints.folder / str(newest)}{_longer(config, checkpoints)}"
    return f"starting from {config.init_from}" if config.init_from else "starting from scratch"


def _longer(config: Config, checkpoints: Checkpoints) -> str:
    """Describes the effect on the learning rate of more steps than were first asked for."""
    newest, before = checkpoints.newest() or 0, checkpoints.steps_before
    if before == config.optim.steps:
        return ""
    then, now = (
        np.asarray(schedule(dataclasses.replace(optim_of(config), steps=steps))(newest)).item()
        for steps in (before, config.optim.steps)
    )
    return (
        f"\n           {config.optim.steps} steps where {before} were asked for: the cosine is that of "
        f"{config.optim.steps} steps from here on, and the learning rate goes from {then:.2e} to {now:.2e}"
    )


def _write_config(config: Config, workdir: Path) -> None:
    if jax.process_index() == 0:
        write_whole(workdir / "config.json", json.dumps(to_dict(config), indent=2) + "\n")


def _advice(error: BadStepsError, checkpoints: Checkpoints) -> str:
    good = checkpoints.last_before(error.step - error.in_row)
    where = f"the last good checkpoint is {good}" if good else "there is no checkpoint from before them"
    return f"{error}; {where}. Lower config.optim.peak_lr or look at the data, and start from it by config.init_from."
