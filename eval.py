"""How good a model is, or stored affinities, or anyone's segmentation: scores.json and report.html.

    python eval.py --ckpt=runs/cremi
    python eval.py --raw=em.zarr --labels=truth.zarr --segmentation=neurons.zarr --out=runs/judged

A checkpoint names its own test and validation volumes; the flags of the volume replace the test volumes. What is chosen
is written to postprocess.json in the folder for the results; the checkpoint keeps the recipe of its training's
validation unless --update_checkpoint asks for this one. Which of a run's checkpoints is the best never changes.
"""

import dataclasses
import os
import sys

try:
    from absl import app, flags, logging
except ModuleNotFoundError as missing:
    sys.exit(
        f"eval: {missing.name} is not installed here. Activate the environment (source .venv/bin/activate), which "
        "`make demo` makes, or call .venv/bin/python."
    )

from emsam_jax.config import DeclaredVolume, Intensity, LabelRules
from emsam_jax.errors import UserError
from emsam_jax.evaluation import METHODS, EvaluationRequest, evaluate
from emsam_jax.scores import Conventions
from emsam_jax.volumes import three, whole_numbers

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("ckpt", "", "A run's folder (its best checkpoint), or a checkpoint's own.")
    flags.DEFINE_multi_string(
        "predict", [], "A field of its config.predict, such as symmetries=16 or window=16,256,256."
    )
    flags.DEFINE_string("affinities", "", "Stored affinities [channels, z, y, x] to be judged instead of a model's.")
    flags.DEFINE_string("segmentation", "", "Stored labels to be judged.")
    flags.DEFINE_string("raw", "", "The test volume instead of those that the checkpoint's config names.")
    flags.DEFINE_string("labels", "", "Its truth.")
    flags.DEFINE_string("mask", "", "Truth counts where this volume is not 0.")
    flags.DEFINE_string("name", "", "What to call the test volume.")
    flags.DEFINE_list("voxel_size", [], "z,y,x in nm, of the raw, instead of what it says.")
    flags.DEFINE_list("labels_voxel_size", [], "z,y,x in nm, of the truth, instead of what it says.")
    flags.DEFINE_list("labels_offset", [], "z,y,x in nm, of the truth's first voxel, instead of what it says.")
    flags.DEFINE_list("background", ["0"], "Ids of the truth that are no neuron.")
    flags.DEFINE_list("unlabelled", [str(i) for i in LabelRules().unlabelled], "Ids of voxels that nobody labelled.")
    flags.DEFINE_bool("invert", False, "Membranes are bright in the raw.")
    flags.DEFINE_string("roi", "", "z0:z1,y0:y1,x0:x1 in voxels of the raw: what is judged.")
    flags.DEFINE_string("validation_roi", "", "Part of the same volume that fragments and thresholds are chosen on.")
    flags.DEFINE_bool("allow_overlap", False, "Judge on what was trained or chosen on, too; the report says so.")
    flags.DEFINE_string("recipe", "", "A postprocess.json to be used instead of choosing one.")
    flags.DEFINE_bool(
        "update_checkpoint", False, "The checkpoint takes over the chosen recipe, by which segment.py then works."
    )
    flags.DEFINE_list("methods", list(METHODS), "From affinities to neurons; waterz_ with any of its scorers.")
    flags.DEFINE_enum("unsegmented", "object", ["object", "ignore", "singletons"], "What voxels of segment 0 are.")
    flags.DEFINE_string("standings", "", "Known results to show beside: ac3ac4 or fib25.")
    flags.DEFINE_string("title", "", "Of the report.")
    flags.DEFINE_string("method", "", "What to call the stored affinities or the stored segmentation.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags.DEFINE_integer("threads", cores, "Of the segmentation and the scores.")
    flags.DEFINE_string("out", "", "Folder for the results; if empty, `eval` in the checkpoint's or runs/eval.")


def test_volume() -> DeclaredVolume | None:
    """As the flags declare it."""
    if not FLAGS.raw:
        return None
    return DeclaredVolume(
        name=FLAGS.name,
        raw=FLAGS.raw,
        labels=FLAGS.labels,
        mask=FLAGS.mask,
        raw_voxel_size_zyx=three(FLAGS.voxel_size, float) or (),
        labels_voxel_size_zyx=three(FLAGS.labels_voxel_size, float) or (),
        labels_offset_zyx=three(FLAGS.labels_offset, float) or (),
        intensity=Intensity(invert=FLAGS.invert),
        rules=LabelRules(whole_numbers(FLAGS.background), whole_numbers(FLAGS.unlabelled)),
    )


def request() -> EvaluationRequest:
    volume = test_volume()
    test = () if volume is None else (volume,)
    validation = ()
    if FLAGS.validation_roi:
        if volume is None:
            raise UserError("--validation_roi is a part of the volume that --raw names, but there is no --raw.")
        name = volume.name and f"{volume.name} (validation)"
        validation = (dataclasses.replace(volume, name=name, roi=FLAGS.validation_roi),)
    return EvaluationRequest(
        out=FLAGS.out or (f"{FLAGS.ckpt.rstrip('/')}/eval" if FLAGS.ckpt else "runs/eval"),
        ckpt=FLAGS.ckpt,
        predict=tuple(FLAGS.predict),
        affinities=FLAGS.affinities,
        segmentation=FLAGS.segmentation,
        test=test,
        validation=validation,
        roi=FLAGS.roi,
        recipe=FLAGS.recipe,
        update_checkpoint=FLAGS.update_checkpoint,
        methods=tuple(FLAGS.methods),
        conventions=Conventions(unsegmented=FLAGS.unsegmented),
        title=FLAGS.title,
        method_title=FLAGS.method,
        allow_overlap=FLAGS.allow_overlap,
        standings=FLAGS.standings,
        threads=FLAGS.threads,
    )


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    try:
        evaluate(request())
    except UserError as problem:
        sys.exit(f"eval: {problem}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
