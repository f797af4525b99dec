"""Scores a model, stored affinities or a segmentation against true labels, and draws a report.

    emsam eval --ckpt=runs/cremi
    emsam eval --raw=em.zarr --labels=truth.zarr --segmentation=neurons.zarr --out=runs/judged

A checkpoint names its own test and validation volumes; --raw and --labels replace the test volumes. Fragments and
thresholds are chosen on the validation volumes and frozen before the test volumes are scored. Writes scores.json,
report.html and the chosen recipe, postprocess.json. Called again, it resumes prediction where it stopped.
"""

import dataclasses

from emsam_jax.command_line import FLAGS, define_ids, define_zyx, flags, group
from emsam_jax.config import DeclaredVolume, Intensity, LabelRules
from emsam_jax.errors import UserError
from emsam_jax.evaluation import METHODS, EvaluationRequest, evaluate
from emsam_jax.scores import Conventions
from emsam_jax.storage import is_on_hub, usable_cores


def define_flags() -> None:
    with group("What is judged (one of three)"):
        flags.DEFINE_string(
            "ckpt",
            "",
            "Trained `MODEL`: a folder of a run (its best checkpoint), of a checkpoint or of a pushed model; or "
            "hf:OWNER/NAME[@REVISION] on the Hugging Face hub.",
        )
        flags.DEFINE_string("affinities", "", "Stored affinities: `PATH` of a volume [channels, z, y, x].")
        flags.DEFINE_string("segmentation", "", "Stored segmentation: `PATH` of a volume of labels.")
        flags.DEFINE_string("method", "", "Name of the stored affinities or segmentation in the report.")
    with group("Test volume (replaces those of the checkpoint's config)"):
        flags.DEFINE_string("raw", "", "Raw volume: `PATH` or URL.")
        flags.DEFINE_string("labels", "", "True labels: `PATH` or URL.")
        flags.DEFINE_string("mask", "", "Mask: `PATH` or URL of a volume; only voxels where it is not 0 are scored.")
        flags.DEFINE_string("name", "", "Name of the test volume in the report.")
        flags.DEFINE_string("roi", "", "Region to score, `z0:z1,y0:y1,x0:x1` in voxels of the raw volume.")
        define_zyx("voxel_size", float, "Voxel size of the raw volume, `z,y,x` in nm, in place of its metadata's.")
        define_zyx("labels_voxel_size", float, "Voxel size of the labels, `z,y,x` in nm, in place of their metadata's.")
        define_zyx("labels_offset", float, "Position of the labels' first voxel, `z,y,x` in nm.")
        define_ids("background", (0,), "Label `IDS` of background (membrane, extracellular space).")
        define_ids("unlabelled", LabelRules().unlabelled, "Label `IDS` of voxels that nobody annotated.")
        flags.DEFINE_bool("invert", False, "Invert the raw volume's contrast: its membranes are bright.")
        flags.DEFINE_bool(
            "allow_overlap", False, "Score voxels that training or validation has seen; the report says so."
        )
    with group("Prediction (with --ckpt)"):
        flags.DEFINE_multi_string(
            "predict", [], "Override of config.predict, `FIELD=VALUE`, such as symmetries=16. May be repeated."
        )
    with group("Segmentation and scores"):
        flags.DEFINE_list(
            "methods",
            list(METHODS),
            "Segmentation `METHODS` to compare, with commas; waterz_SCORER with any of its scorers.",
        )
        flags.DEFINE_string(
            "validation_roi", "", "Region of the raw volume to choose on, `z0:z1,y0:y1,x0:x1`, for stored affinities."
        )
        flags.DEFINE_string("recipe", "", "Recipe `FILE`, a postprocess.json to use in place of choosing one.")
        flags.DEFINE_bool(
            "update_checkpoint", False, "Store the chosen recipe in the checkpoint, where emsam segment takes it from."
        )
        flags.DEFINE_enum(
            "unsegmented",
            "object",
            ["object", "ignore", "singletons"],
            "Score of voxels without a segment (id 0): as one object, not at all, or each as its own.",
        )
        flags.DEFINE_string(
            "skeletons",
            "",
            "Skeletons for the expected run length, in nm: `PATH` of an .swc file, a folder of them, or a .csv with "
            "the columns skeleton, node, parent, z, y, x; or the word truth, to make them from the true labels.",
        )
        flags.DEFINE_integer("threads", usable_cores(), "Number of threads of segmentation and scores.")
    with group("Output"):
        flags.DEFINE_string(
            "out", "", "Results' `FOLDER`; if empty, eval/ in the checkpoint's folder, or else runs/eval."
        )
        flags.DEFINE_string("title", "", "Title of the report.")
        flags.DEFINE_string("standings", "", "Published results to show in the report: `ac3ac4|fib25`.")


def test_volume() -> DeclaredVolume | None:
    """As the flags declare it."""
    if not FLAGS.raw:
        return None
    return DeclaredVolume(
        name=FLAGS.name,
        raw=FLAGS.raw,
        labels=FLAGS.labels,
        mask=FLAGS.mask,
        raw_voxel_size_zyx=FLAGS.voxel_size or (),
        labels_voxel_size_zyx=FLAGS.labels_voxel_size or (),
        labels_offset_zyx=FLAGS.labels_offset or (),
        intensity=Intensity(invert=FLAGS.invert),
        rules=LabelRules(FLAGS.background, FLAGS.unlabelled),
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
        out=FLAGS.out
        or (f"{FLAGS.ckpt.rstrip('/')}/eval" if FLAGS.ckpt and not is_on_hub(FLAGS.ckpt) else "runs/eval"),
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
        skeletons=FLAGS.skeletons,
        threads=FLAGS.threads,
    )


def main(_: list[str]) -> None:
    evaluate(request())
