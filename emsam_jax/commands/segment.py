"""Segments a volume of any size into neurons, block by block, from a trained model or stored affinities.

    emsam segment --ckpt=runs/cremi --raw=gs://bucket/em.zarr --out=neurons.zarr
    emsam segment --ckpt=runs/cremi --raw=gs://bucket/em.zarr --out=neurons.zarr --dry_run
    emsam segment --ckpt=runs/cremi --raw=em.zarr --out=neurons.zarr --dry_run --target=h200
    emsam segment --affinities=affinities.zarr --out=neurons.zarr --threshold=0.6
    emsam segment --graph=neurons.zarr --out=finer.zarr --threshold=0.4
    emsam segment --graph=neurons.zarr --edits=edits.jsonl --out=corrected.zarr
    emsam segment --status --out=neurons.zarr

Killed at any moment, the same command resumes. Exit codes: 0 when all is done, 1 after a mistake, with blocks that
failed or edits that are impossible, 75 when it was stopped (SIGTERM, Ctrl-C) or lost its scheduler.
"""

import sys

from emsam_jax.blocks import stopping_on_signals
from emsam_jax.command_line import FLAGS, define_zyx, flags, group
from emsam_jax.commands.worker_flags import define_workers, named_workers
from emsam_jax.config import DeclaredVolume, Intensity
from emsam_jax.errors import UserError
from emsam_jax.segment_volume import SegmentationRequest, describe_run, forecast_run, segment_volume
from emsam_jax.segmentation.blockwise import Guard, read_edits_report, read_summary


def define_flags() -> None:
    with group("What is segmented (one of three)"):
        flags.DEFINE_string(
            "ckpt",
            "",
            "Trained `MODEL`: a folder of a run (its best checkpoint), of a checkpoint or of a pushed model; or "
            "hf:OWNER/NAME[@REVISION] on the Hugging Face hub.",
        )
        flags.DEFINE_string("affinities", "", "Stored affinities: `PATH` or URL of a volume [channels, z, y, x].")
        flags.DEFINE_string(
            "graph", "", "Earlier output, `PATH` or URL, whose fragments and edges are cut at another threshold."
        )
    with group("Raw volume (with --ckpt)"):
        flags.DEFINE_string("raw", "", "Raw volume: `PATH` or URL.")
        flags.DEFINE_string("roi", "", "Region to segment, `z0:z1,y0:y1,x0:x1` in voxels of the raw volume.")
        flags.DEFINE_string("mask", "", "Mask: `PATH` or URL of a volume; where it is 0 the labels are 0 (background).")
        define_zyx("voxel_size", float, "Voxel size of the raw volume, `z,y,x` in nm, in place of its metadata's.")
        flags.DEFINE_bool("invert", False, "Invert the raw volume's contrast: its membranes are bright.")
        flags.DEFINE_multi_string(
            "predict", [], "Override of config.predict, `FIELD=VALUE`, such as symmetries=16. May be repeated."
        )
        flags.DEFINE_bool(
            "gpu", False, "Predict only on workers that declare the resource GPU, and wait until there are some."
        )
    with group("Output"):
        flags.DEFINE_string("out", "", "Labels to write, `PATH` or URL; tables, fragments and the ledger lie below it.")
        flags.DEFINE_enum("format", "ome-zarr", ["ome-zarr", "precomputed"], "Format of the labels.")
        flags.DEFINE_bool(
            "keep_affinities", True, "Keep predicted affinities; --nokeep_affinities deletes them once edges are made."
        )
        flags.DEFINE_integer(
            "queue", 1000, "Length of queue.csv, the merge decisions to look at first; 0: none is written."
        )
    with group("Segmentation"):
        flags.DEFINE_string("recipe", "", "Recipe `FILE`, a postprocess.json, in place of the checkpoint's.")
        flags.DEFINE_string("method", "", "Segmentation method in place of the recipe's: `waterz|multicut|components`.")
        flags.DEFINE_float(
            "threshold", None, "Threshold in place of the recipe's: merge where the affinity is above 1 - threshold."
        )
        flags.DEFINE_integer(
            "guard_size", 0, "Object size in voxels from which merges of two large objects need --guard_threshold."
        )
        flags.DEFINE_float(
            "guard_threshold",
            0.0,
            "Threshold for merges of two objects of --guard_size, lower than --threshold; waterz with mean only.",
        )
        flags.DEFINE_string("edits", "", "Corrections, a `FILE` edits.jsonl: the labels fulfil all that can be.")
        flags.DEFINE_bool(
            "strict_edits",
            True,
            "Exit with 1 if an edit is impossible, once labels are made; --nostrict_edits: with 0.",
        )
        define_zyx("block", int, "Block size, `z,y,x` in voxels; by default a shard of the output.")
    define_workers()
    with group("Planning and resuming"):
        flags.DEFINE_bool("dry_run", False, "Estimate time, storage and memory from a sample; write nothing.")
        flags.DEFINE_string(
            "target",
            "",
            "With --dry_run: `DEVICES` that need not be here, such as h200, 8xh200, rtx4090, v5e:2x4 or v5p:4x4x4; "
            "their compiler says what prediction takes.",
        )
        flags.DEFINE_bool("status", False, "Print how far the run at --out is; do nothing else.")
        flags.DEFINE_bool(
            "check", True, "When resuming, compare finished blocks with their checksums; --nocheck trusts them."
        )


def request() -> SegmentationRequest:
    return SegmentationRequest(
        out=FLAGS.out,
        ckpt=FLAGS.ckpt,
        predict=tuple(FLAGS.predict),
        raw=DeclaredVolume(
            raw=FLAGS.raw,
            mask=FLAGS.mask,
            roi=FLAGS.roi,
            raw_voxel_size_zyx=FLAGS.voxel_size or (),
            intensity=Intensity(invert=FLAGS.invert),
        ),
        affinities=FLAGS.affinities,
        recipe=FLAGS.recipe,
        method=FLAGS.method,
        threshold=FLAGS.threshold,
        guard=Guard(FLAGS.guard_size, FLAGS.guard_threshold) if FLAGS.guard_size or FLAGS.guard_threshold else None,
        graph=FLAGS.graph,
        edits=FLAGS.edits,
        format=FLAGS.format,
        keep_affinities=FLAGS.keep_affinities,
        queue=FLAGS.queue,
        block=FLAGS.block,
        workers=named_workers(),
        gpu=FLAGS.gpu,
        check=FLAGS.check,
    )


def main(_: list[str]) -> None:
    if FLAGS.status:
        print(describe_run(FLAGS.out))
        return
    if FLAGS.target and not FLAGS.dry_run:
        raise UserError("--target names devices to tell about: give --dry_run too, or leave it out to segment here.")
    with stopping_on_signals():
        if FLAGS.dry_run and FLAGS.target:
            from emsam_jax.segment_volume.prediction import bound_on_target  # jax, which only a model needs
            from emsam_jax.targets import parse_target

            bound_on_target(request(), parse_target(FLAGS.target))
            return
        if FLAGS.dry_run:
            print(forecast_run(request()))
            return
        labels = segment_volume(request())
    print(f"Labels: {labels.url}, {' x '.join(map(str, labels.shape))} voxels (z, y, x)")
    print(f"Found: {read_summary(labels.url)}")
    print(f"Objects: {labels.url}/objects.npy; scored edges: {(FLAGS.graph or labels.url).rstrip('/')}/edges.npy")
    print(f"In the viewer: emsam view --out={FLAGS.out}")
    if FLAGS.queue:
        print(f"Where to look first: {labels.url}/queue.csv")
    if FLAGS.edits:
        report = read_edits_report(labels.url)
        print(f"{report}\nEach edit: {labels.url}/edits_report.csv")
        if report.impossible and FLAGS.strict_edits:
            sys.exit(1)
