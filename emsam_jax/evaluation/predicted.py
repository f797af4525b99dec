"""Predicts affinities by a trained model, block by block, into the folder of the results; imports jax."""

import dataclasses
from typing import Any

from emsam_jax.blocks import hash_of
from emsam_jax.config import Config, describe_encoder, to_dict
from emsam_jax.evaluation.clock import Clock
from emsam_jax.evaluation.sources import AffinitySource, EvaluationRequest
from emsam_jax.evaluation.subject import Example, Subject
from emsam_jax.inference import (
    RECIPE_FILE,
    count_affinities,
    declare_as_trained,
    describe_reliability,
    load_trained,
    predict_affinities,
    settings_from,
)
from emsam_jax.model import ORIGIN
from emsam_jax.segmentation import Recipe
from emsam_jax.segmentation.blockwise import check_recipe


def describe_model(config: Config) -> dict[str, str]:
    """Describes the network for the report: its encoder, and whose design it is."""
    encoder = {"encoder": describe_encoder(config.model.encoder, config.init_from)}
    return encoder if config.model.encoder.size == "none" else {**encoder, "origin": ORIGIN}


class Predicted(AffinitySource):
    """The best checkpoint of a run, or the one that is named."""

    def __init__(self, request: EvaluationRequest, clock: Clock):
        self.trained = trained = load_trained(request.ckpt, request.predict)
        self.config = trained.config
        self.out, self.clock = request.out, clock
        self.settings = settings_from(self.config)
        self.training = trained.measured.parts
        self.offsets = self.config.model.offsets
        self.standings = self.config.standings
        self.step = trained.step
        self._reliability: dict[str, Any] = {}
        self.recipe = Recipe.read(trained.recipe) if trained.recipe else None
        clock.show(f"  {self.title}: {trained.path}")
        data = self.config.data
        own = request.validation or (() if request.test and trained.pushed else data.validation)
        self.test = tuple(declare_as_trained(volume, trained) for volume in request.test or data.test)
        self.validation = tuple(declare_as_trained(volume, trained) for volume in own)

    def read(self, subject: Subject) -> Example:
        named = hash_of([str(subject.box), subject.specimen.raw.url, dataclasses.asdict(self.settings)])[:8]
        out = f"{self.out}/{subject.folder}/affinities-{self.step}-{named}.zarr"
        with self.clock.stage(subject.name, "predict", subject.box.voxels, f"at {out}"):
            volume = predict_affinities(self.trained.model, subject.specimen, out, self.settings, region=subject.box)
            example = Example(subject, volume[...], volume.offsets, volume.url)
        counts = count_affinities(example.affinities, subject.specimen, subject.box, self.config)
        self._reliability[subject.name] = describe_reliability(counts)
        return example

    def tell_reliability(self) -> dict[str, Any]:
        return self._reliability

    @property
    def title(self) -> str:
        return f"{self.trained.name}, step {self.step}"

    def describe(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "checkpoint": str(self.trained.path),
            "step": self.step,
            **describe_model(self.config),
            "window": " ".join(map(str, self.settings.window)),
            "stride": " ".join(map(str, self.settings.stride)),
            "symmetries": self.config.predict.symmetries,
            "config": to_dict(self.config),
        }

    def take_over(self, recipe: Recipe) -> None:
        """Stores the recipe in the checkpoint; the score that ranks steps stays that of training's validation."""
        check_recipe(recipe)  # emsam segment will read it
        score = self.recipe.chosen.get("score") if self.recipe else None
        chosen = recipe.chosen | {"score": score, "score_by_eval": recipe.chosen.get("score")}
        dataclasses.replace(recipe, chosen=chosen).write(self.trained.path / RECIPE_FILE)
        self.clock.show(f"  {self.trained.path} takes over the recipe.")
