"""Validates by what users care about: whole regions predicted, segmented, and scored over thresholds.

The accelerator predicts, with the running mean of the parameters, and again where affinities of 0.5 turn out not to
mean 50%; the rest runs in the background, and its result comes some steps later, to metrics.jsonl, TensorBoard, and as
the step's calibration.json and postprocess.json.
"""

import contextlib
import dataclasses
import json
import multiprocessing
import time
from collections import deque
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Shaped

from emsam_jax.blocks import Block, Plan, is_masked, plan_blocks
from emsam_jax.config import Config, DeclaredVolume
from emsam_jax.errors import UserError
from emsam_jax.inference import (
    CALIBRATION_FILE,
    ODDS,
    RECIPE_FILE,
    Calibrated,
    Counts,
    Measured,
    Predictor,
    calibrate,
    count_affinities,
    describe_reliability,
    find_shift,
    finished_steps,
    intensity_as_trained,
    read_trained_params,
    settings_from,
    validation_score,
)
from emsam_jax.model import merge_fgnet
from emsam_jax.storage import remove, write_whole
from emsam_jax.training import scoring
from emsam_jax.training.checkpoint import Checkpoints
from emsam_jax.training.log import Log
from emsam_jax.training.preemption import Notice, Preempted
from emsam_jax.training.scoring import ScoringJob
from emsam_jax.volumes import Specimen, open_declared

FAILED_FILE = "validation_failed.json"  # in a step's folder: why it has no score
_CALIBRATED = 0.05  # log odds, 0.0125 at a half: by how little affinities may be wrong and are left as they are
_LOOK_EVERY = 0.2  # seconds, while nothing else is left to do


class Validator(contextlib.AbstractContextManager["Validator"]):
    """Every process predicts its share of the blocks; the first one scores and logs."""

    def __init__(self, config: Config, workdir: Path, checkpoints: Checkpoints, log: Log):
        self.config, self.checkpoints, self.log = config, checkpoints, log
        self.folder = workdir / "validating"
        self._volumes = tuple(_as_trained(volume, config, checkpoints.measured) for volume in config.data.validation)
        self._specimens = [open_declared(volume) for volume in self._volumes] if self.every else []
        self._plans = tuple(_plan(specimen, config) for specimen in self._specimens)
        # As users will predict, but for symmetries, which cost time and change little from step to step.
        chosen = dataclasses.replace(config.predict, symmetries=1, coarse=False)
        self._settings = settings_from(dataclasses.replace(config, predict=chosen), progress=False)
        self._waiting: deque[ScoringJob] = deque()
        self._process: BaseProcess | None = None

    def __exit__(self, *_: object) -> None:
        """Stops what is running; it is done again when the run resumes."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join()

    @property
    def every(self) -> int:
        """Returns the steps between validations; 0: never."""
        return self.config.validation.every if self.config.data.validation else 0

    def due(self, step: int) -> bool:
        """Returns whether to validate after this step; after the last step too."""
        return self.every > 0 and (step % self.every == 0 or step == self.config.optim.steps)

    def catch_up(self) -> None:
        """Validates the checkpoints whose validation was under way when the run was stopped, but none that failed."""
        for folder in finished_steps(self.checkpoints.folder):
            step, failed = int(folder.name), folder / FAILED_FILE
            if not self.due(step) or validation_score(folder) is not None:
                continue
            if failed.exists():
                self.log.say(f"The validation of step {step} failed, as {failed} says: remove it to try again.")
            else:
                self.log.say(f"The validation of step {step} had not ended: it is done again.")
                self.start(step, read_trained_params(folder))

    def start(self, step: int, params: Mapping[str, Any]) -> None:
        """Predicts now; scores in the background. `params` are all of the model's, as numpy arrays."""
        started = time.monotonic()
        voxels = sum(plan.region.voxels for plan in self._plans)
        self.log.say(f"step {step}: predicting {voxels / 1e6:.3g} million voxels for validation")
        job = self._make_job(step)
        network, prior = merge_fgnet(self.config.model, params, {}), self.checkpoints.measured.prior
        counts = self._predict(job, calibrate(network, prior))
        shift = find_shift(counts).tolist()
        if max(map(abs, shift)) > _CALIBRATED:
            counts = self._predict(job, calibrate(network, prior, shift))
        else:
            shift = [0.0] * len(shift)
        _meet(f"predicted {step}")
        self.checkpoints.best.awaited.add(step)
        if jax.process_index() == 0:
            found = {"shift": shift, **describe_reliability(counts)}
            write_whole(job.folder / CALIBRATION_FILE, json.dumps(found))
            self._waiting.append(job)
            self.log.say(f"step {step}: validation predicted in {time.monotonic() - started:.1f} s")
            self.collect()

    def _predict(self, job: ScoringJob, model: Calibrated) -> Counts:
        """Predicts this process's share of the blocks; returns how reliable all of them are."""
        counts = np.zeros((len(self.config.model.offsets), 2, len(ODDS)), np.int64)
        for number, (specimen, plan) in enumerate(zip(self._specimens, self._plans, strict=True)):
            # Made anew: what is compiled is kept, and between validations nothing is left on the devices.
            predictor = Predictor(model, self._settings, plan)
            for place, block in enumerate(plan):
                if place % jax.process_count() == jax.process_index():
                    found = _predict(predictor, specimen, block)
                    counts += count_affinities(found, specimen, block.box, self.config)
                    np.save(job.block_file(number, block.name), found)
        if jax.process_count() == 1:
            return counts
        return multihost_utils.process_allgather(counts.astype(np.int32)).sum(0, dtype=np.int64)

    def collect(self) -> None:
        """Collects what has ended, and starts what waits; never waits itself."""
        if self._process is not None and not self._process.is_alive():
            self._process = None
            self._take(self._waiting.popleft())
        if self._process is None and self._waiting:
            self._process = multiprocessing.get_context("spawn").Process(
                target=scoring.score, args=(self._waiting[0],), daemon=True
            )
            self._process.start()

    def finish(self, step: int, notice: Notice) -> None:
        """Waits for what is running."""
        while self._waiting:
            if notice.given:
                raise Preempted(step)
            self.collect()
            time.sleep(_LOOK_EVERY)

    def _make_job(self, step: int) -> ScoringJob:
        folder, validation = self.folder / str(step), self.config.validation
        if jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            remove(str(folder), scoring.FILES)
        _meet(f"validation {step}")
        return ScoringJob(
            folder,
            step,
            self._volumes,
            self._plans,
            validation.scorers,
            validation.fragments,
        )

    def _take(self, job: ScoringJob) -> None:
        """Writes the row first, then the recipe, which marks this validation as done."""
        result = job.folder / scoring.RESULT_FILE
        scores: dict[str, Any] = (
            json.loads(result.read_text()) if result.exists() else {"error": "its process was ended"}
        )
        self.checkpoints.wait()
        step = self.checkpoints.folder / str(job.step)
        if "error" in scores:
            self.log.say(f"step {job.step}: no validation: {scores['error']}")
            write_whole(step / FAILED_FILE, json.dumps(scores) + "\n")
        else:
            reliable = json.loads((job.folder / CALIBRATION_FILE).read_text())
            scores |= {name: reliable[name] for name in ("true_at_half", "calibration_error")}
            self.log.row({"step": job.step, **{f"validation_{name}": value for name, value in scores.items()}})
            self.log.picture(job.step, "validation/raw_segmentation_truth", np.load(job.folder / scoring.PICTURE_FILE))
            self.log.say(
                f"step {job.step}: VOI {scores['voi']:.3f} (split {scores['voi_split']:.3f}, merge "
                f"{scores['voi_merge']:.3f}), ARAND {scores['arand']:.3f} at threshold {scores['threshold']:g}; "
                f"of affinities near 0.5, {_shares(scores['true_at_half'])} are 1"
                + (f". {scores['warning']}" if "warning" in scores else "")
            )
            for name, kept in ((CALIBRATION_FILE, CALIBRATION_FILE), (scoring.RECIPE_FILE, RECIPE_FILE)):
                (job.folder / name).replace(step / kept)
        self.checkpoints.best.awaited.discard(job.step)
        remove(str(job.folder), scoring.FILES)
        with contextlib.suppress(OSError):  # others' files are in it
            job.folder.rmdir()


def _as_trained(declared: DeclaredVolume, config: Config, measured: Measured) -> DeclaredVolume:
    return dataclasses.replace(declared, intensity=intensity_as_trained(declared, config.data.train, measured))


def _plan(specimen: Specimen, config: Config) -> Plan:
    if specimen.labels is None:
        raise UserError(f"config.data.validation: {specimen.name} has no labels to be scored by; declare `labels`.")
    return plan_blocks(specimen.raw.box, specimen.labelled_region, config.predict.block, (1, 1, 1))


def _predict(predictor: Predictor, specimen: Specimen, block: Block) -> Shaped[np.ndarray, "c z y x"]:
    if is_masked(specimen, block.box):
        return np.zeros((predictor.channels, *block.box.shape), np.float16)
    return predictor.predict_block(specimen.without_region(), block.box)


def _shares(channels: Sequence[float | None]) -> str:
    return " ".join("-" if share is None else f"{share:.0%}" for share in channels)


def _meet(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
