"""Predicts on the workers of a Dask cluster: each loads the model once and keeps it for the run."""

import dataclasses
import functools
import threading
from typing import Any

from distributed import Client

from emsam_jax.blocks import Block, Entry, Ledger, RunLock, describe_failures
from emsam_jax.blocks.dask import count_threads, run_stage
from emsam_jax.config import DeclaredVolume
from emsam_jax.errors import UserError
from emsam_jax.inference.output import STAGE, Output, facts_of, fingerprint
from emsam_jax.inference.predict import read_block, write_block
from emsam_jax.inference.predictor import Predictor
from emsam_jax.inference.settings import Prediction
from emsam_jax.inference.sweep import offsets_of
from emsam_jax.inference.trained import Trained, load_trained
from emsam_jax.storage import normalise
from emsam_jax.volumes import Specimen, Volume, Voxel, open_declared

_GPU = {"GPU": 1}  # what workers declare that are to predict
_ONE_AT_A_TIME = threading.Lock()  # a worker's threads share its devices: one computes while others read and write


@dataclasses.dataclass(frozen=True)
class Predict:
    """The stage of prediction: travels as these fields; each worker opens what they name."""

    checkpoint: str  # a step's own folder
    declared: DeclaredVolume
    out: str
    settings: Prediction
    offsets: tuple[Voxel, ...]
    facts: dict[str, Any]  # those of `predict_affinities`: either resumes what the other began
    name: str = STAGE

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def identity(self) -> dict[str, Any]:
        return self.facts

    def run(self, block: Block) -> str:
        with _ONE_AT_A_TIME:
            predictor, specimen, output = self._predictor, self._specimen, self._output
        region = read_block(predictor, specimen, block)
        with _ONE_AT_A_TIME:
            found = None if region is None else predictor.predict(region)
        return write_block(predictor, output, block, found)

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return self._output.is_intact(block, entry)

    @functools.cached_property
    def _specimen(self) -> Specimen:
        return open_declared(self.declared).without_region()

    @functools.cached_property
    def _output(self) -> Output:
        output = lay_out(self.declared, self.out, self.settings, self.offsets)
        output.open()
        return output

    @functools.cached_property
    def _predictor(self) -> Predictor:
        model = load_trained(self.checkpoint).model
        if fingerprint(model) != self.facts["model"]:
            raise UserError(f"{self.checkpoint}: expected the model that the run began with, found another.")
        return Predictor(model, self.settings, self._output.plan)


def predict_on_workers(
    client: Client, trained: Trained, declared: DeclaredVolume, out: str, settings: Prediction, *, gpu: bool = False
) -> Volume:
    """Does what `predict_affinities` does, on the workers that declare the resource GPU, or on all where none does.

    `gpu` waits for workers that declare it.
    """
    declared = dataclasses.replace(declared, raw=_from_anywhere(declared.raw), mask=_from_anywhere(declared.mask))
    offsets = offsets_of(trained.model)
    output = lay_out(declared, out, settings, offsets)
    facts = facts_of(trained.model, open_declared(declared).without_region(), settings, output.plan)
    stage = Predict(str(trained.path), declared, output.url, settings, offsets, facts)
    output.claim()
    with RunLock(output.ledger_url):
        Ledger(output.ledger_url, STAGE, facts)  # refuses another's, before anything is made
        output.open()
        report = run_stage(
            client,
            stage,
            output.plan,
            output.ledger_url,
            check=settings.check,
            progress=settings.progress,
            resources=_GPU if gpu or count_threads(client, _GPU) else None,
        )
    if report.failed:
        raise UserError(describe_failures(STAGE, report.failed))
    return output.reopen()


def lay_out(declared: DeclaredVolume, out: str, settings: Prediction, offsets: tuple[Voxel, ...]) -> Output:
    specimen = open_declared(declared)
    return Output(out, specimen, settings, specimen.region, offsets)


def _from_anywhere(url: str) -> str:
    """Makes paths absolute: workers may have been started in another folder."""
    return normalise(url) if url and not url.lstrip().startswith("{") else url
