"""Affinities of a whole volume by a trained model; imports jax."""

from collections.abc import Callable

from distributed import Client

from emsam_jax.blocks import LedgerError
from emsam_jax.config_file import ConfigError
from emsam_jax.inference import PredictionError, predict_affinities, settings_from
from emsam_jax.inference.as_trained import declare_as_trained
from emsam_jax.inference.stage import predict_on_workers
from emsam_jax.inference.trained import CheckpointError, Trained, load_trained
from emsam_jax.model import EncoderError
from emsam_jax.reconstruction.request import Request
from emsam_jax.reconstruction.source import present
from emsam_jax.volumes import Volume
from emsam_jax.volumes.specimen import open_declared

ERRORS = (CheckpointError, ConfigError, EncoderError, LedgerError, PredictionError)  # that a user can put right


def load(request: Request) -> Trained:
    return load_trained(request.ckpt, request.predict)


def predict(request: Request, trained: Trained, connect: Callable[[], Client] | None) -> Volume:
    """At `affinities` below the output; by the workers that `connect` leads to, or else by this process."""
    declared, out = declare_as_trained(request.raw, trained), f"{request.out.rstrip('/')}/affinities"
    settings = settings_from(trained.config, check=request.check, progress=request.progress)
    specimen = open_declared(declared)
    present(specimen.raw, specimen.region)
    if connect is None:
        return predict_affinities(trained.model, specimen, out, settings)
    return predict_on_workers(connect(), trained, declared, out, settings, gpu=request.gpu)
