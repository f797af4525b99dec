"""Predicts affinities of a whole volume by a trained model, or times a few windows of it; imports jax."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distributed import Client

from emsam_jax.blocks import Plan
from emsam_jax.errors import UserError
from emsam_jax.inference import (
    Output,
    Prediction,
    PredictionBound,
    Trained,
    bound_prediction,
    declare_as_trained,
    load_trained,
    predict_affinities,
    settings_from,
)
from emsam_jax.inference.on_workers import predict_on_workers
from emsam_jax.segment_volume.request import SegmentationRequest
from emsam_jax.segment_volume.source import choose_recipe, present
from emsam_jax.segmentation import Recipe
from emsam_jax.targets import TargetDevices, devices_of
from emsam_jax.volumes import Box, Specimen, Volume, Voxel, open_declared
from emsam_jax.volumes.verify import check_present

_WINDOWS = 4  # side by side; the first one's time, which holds compiling, is not counted


def load(request: SegmentationRequest) -> Trained:
    return load_trained(request.ckpt, request.predict)


def predict(request: SegmentationRequest, trained: Trained, connect: Callable[[], Client] | None) -> Volume:
    """Predicts at `affinities` below the output; on the workers that `connect` leads to, or else in this process."""
    declared, out = declare_as_trained(request.raw, trained), f"{request.out.rstrip('/')}/affinities"
    settings = settings_from(trained.config, check=request.check, progress=request.progress)
    specimen = open_declared(declared)
    present(specimen.raw, specimen.region)
    if connect is None:
        return predict_affinities(trained.model, specimen, out, settings)
    return predict_on_workers(connect(), trained, declared, out, settings, gpu=request.gpu)


class SampledPrediction(NamedTuple):
    affinities: Volume
    whole: Box
    recipe: Recipe
    blocks: int  # of the whole prediction
    block: Voxel
    seconds: float
    warnings: list[str]


def sample_prediction(request: SegmentationRequest, out: Path) -> SampledPrediction:
    """Times the prediction of a few windows, and scales by the number of windows of the whole."""
    trained = load(request)
    named = request.recipe or trained.recipe
    recipe = choose_recipe(request, Recipe.read(named) if named else None)
    specimen, settings, plan = plan_prediction(request, trained, f"{out}-whole")
    warnings = check_present(specimen.raw, specimen.region)
    offsets = trained.config.model.offsets
    z, y, x = settings.window
    small = dataclasses.replace(settings, block=(z, y, x))
    region = specimen.region.middle((z, y, _WINDOWS * x))
    done: list[float] = [time.monotonic()]

    def watch(stage: str, result: Any) -> None:
        if stage == "written":
            done.append(time.monotonic())

    affinities = predict_affinities(trained.model, specimen, out, small, region=region, watch=watch)
    counted = done[1:] if len(done) > 2 else done
    sampled = Output(str(out), specimen, small, region, offsets).plan
    a_block = (counted[-1] - counted[0]) / (len(counted) - 1)
    a_window = a_block / windows_touching(settings, region.middle(sampled.block))
    seconds = a_window * windows_touching(settings, plan.region.middle(plan.block)) * len(plan)
    return SampledPrediction(affinities, plan.region, recipe, len(plan), plan.block, seconds, warnings)


def bound_on_target(
    request: SegmentationRequest, target: TargetDevices, devices: Sequence[Any] | None = None
) -> PredictionBound | None:
    """Prints what the whole prediction takes on devices that are not here, by their compiler."""
    if not request.ckpt:
        raise UserError("--target tells what prediction takes: expected --ckpt and --raw, found neither.")
    if target.slices > 1:
        raise UserError(f"--target={target.name}: expected one slice, found {target.slices}; each predicts alone.")
    # Before jax looks for devices here, which a compiler alone does not survive.
    devices = devices or devices_of(target)
    trained = load(request)
    _, settings, plan = plan_prediction(request, trained, request.out)
    return bound_prediction(trained.model, settings, plan, target, devices, dtype=trained.config.model.dtype)


def plan_prediction(request: SegmentationRequest, trained: Trained, out: str) -> tuple[Specimen, Prediction, Plan]:
    specimen, settings = open_declared(declare_as_trained(request.raw, trained)), settings_from(trained.config)
    return specimen, settings, Output(out, specimen, settings, specimen.region, trained.config.model.offsets).plan


def windows_touching(settings: Prediction, box: Box) -> int:
    grid = settings.grid()
    return math.prod(len(grid.starts(axis, box.start[axis], box.stop[axis])) for axis in range(3))
