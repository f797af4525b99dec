"""Neurons of a volume of any size, by a trained model or from stored affinities.

    python segment.py --ckpt=runs/cremi --raw=gs://bucket/em.zarr --out=neurons.zarr
    python segment.py --affinities=affinities.zarr --out=neurons.zarr --threshold=0.6
    python segment.py --graph=neurons.zarr --out=finer.zarr --threshold=0.4
    python segment.py --dry_run --ckpt=runs/cremi --raw=gs://bucket/em.zarr --out=neurons.zarr
    python segment.py --status --out=neurons.zarr

Killed at any moment, the same command goes on. Exits with 0 when all is done, 1 after a mistake or with blocks that
failed, 75 when it was stopped (SIGTERM, Ctrl-C) or lost its scheduler.
"""

import sys

try:
    from absl import app, flags, logging
except ModuleNotFoundError as missing:
    sys.exit(
        f"segment: {missing.name} is not installed here. Activate the environment (source .venv/bin/activate), which "
        "`make demo` makes, or call .venv/bin/python."
    )

from emsam_jax.blocks import StoppedError, stopping_on_signals
from emsam_jax.blocks.dask import Tls
from emsam_jax.config import DeclaredVolume, Intensity
from emsam_jax.errors import UserError
from emsam_jax.segment_volume import SegmentationRequest, describe_run, forecast_run, segment_volume
from emsam_jax.segmentation.blockwise import Guard, read_summary
from emsam_jax.volumes import three

FLAGS = flags.FLAGS
STOPPED = 75  # as train.py: temporary, call it again


def define_flags() -> None:
    flags.DEFINE_string("ckpt", "", "A run's folder (its best checkpoint), or a checkpoint's own.")
    flags.DEFINE_multi_string(
        "predict", [], "A field of its config.predict, such as symmetries=16 or window=16,256,256."
    )
    flags.DEFINE_string("raw", "", "The volume that it segments.")
    flags.DEFINE_string("affinities", "", "Stored affinities [channels, z, y, x] instead of a model's.")
    flags.DEFINE_string("out", "", "The labels; tables, fragments, affinities and the ledger lie below them.")
    flags.DEFINE_string("mask", "", "Voxels where this volume is 0 stay background.")
    flags.DEFINE_string("roi", "", "z0:z1,y0:y1,x0:x1 in voxels of the raw.")
    flags.DEFINE_list("voxel_size", [], "z,y,x in nm, of the raw, instead of what it says.")
    flags.DEFINE_bool("invert", False, "Membranes are bright in the raw.")
    flags.DEFINE_string("recipe", "", "A postprocess.json instead of the checkpoint's.")
    flags.DEFINE_string("method", "", "waterz, multicut or components, instead of the recipe's.")
    flags.DEFINE_float("threshold", None, "Instead of the recipe's: pieces merge where affinities are above 1 - it.")
    flags.DEFINE_integer("guard_size", 0, "Voxels from which on an object is large, and merges with another large one")
    flags.DEFINE_float("guard_threshold", 0.0, "at this threshold only, which is lower; for waterz with the mean.")
    flags.DEFINE_string("graph", "", "An earlier output, whose fragments and edges serve another threshold.")
    flags.DEFINE_enum("format", "ome-zarr", ["ome-zarr", "precomputed"], "Of the labels.")
    flags.DEFINE_bool("keep_affinities", True, "Otherwise what --ckpt predicted is deleted when it has served.")
    flags.DEFINE_list("block", [], "z,y,x in voxels, of the segmentation; by default a shard.")
    flags.DEFINE_string("scheduler", "", "Address of a Dask scheduler; by default processes of this machine.")
    flags.DEFINE_string("tls_ca", "", "For a scheduler at tls://, the file of the authority that signed for it,")
    flags.DEFINE_string("tls_cert", "", "of our certificate")
    flags.DEFINE_string("tls_key", "", "and of our key; by default as Dask's own configuration says.")
    flags.DEFINE_string("cluster", "", "Instead, slurm or another queueing system, of which each worker is a job.")
    flags.DEFINE_multi_string("job", [], "An option of dask-jobqueue for it, such as queue=gpu or walltime=08:00:00.")
    flags.DEFINE_bool("gpu", False, "Only workers that declare the resource GPU predict, even if none is there yet.")
    flags.DEFINE_integer("workers", 0, "How many of those; 0: one a core of this machine.")
    flags.DEFINE_string("memory", "auto", "Of each worker, such as 8GiB.")
    flags.DEFINE_string("dashboard", "", "Where Dask shows what it does, such as :8787 of this machine.")
    flags.DEFINE_bool("check", True, "When going on, read what is done and compare it with its checksum.")
    flags.DEFINE_bool("dry_run", False, "Try a sample, say what the run would take, and write nothing.")
    flags.DEFINE_bool("status", False, "Say how far the run at --out is, and do nothing.")


def request() -> SegmentationRequest:
    return SegmentationRequest(
        out=FLAGS.out,
        ckpt=FLAGS.ckpt,
        predict=tuple(FLAGS.predict),
        raw=DeclaredVolume(
            raw=FLAGS.raw,
            mask=FLAGS.mask,
            roi=FLAGS.roi,
            raw_voxel_size_zyx=three(FLAGS.voxel_size, float) or (),
            intensity=Intensity(invert=FLAGS.invert),
        ),
        affinities=FLAGS.affinities,
        recipe=FLAGS.recipe,
        method=FLAGS.method,
        threshold=FLAGS.threshold,
        guard=Guard(FLAGS.guard_size, FLAGS.guard_threshold) if FLAGS.guard_size or FLAGS.guard_threshold else None,
        graph=FLAGS.graph,
        format=FLAGS.format,
        keep_affinities=FLAGS.keep_affinities,
        block=three(FLAGS.block, int),
        scheduler=FLAGS.scheduler,
        tls=Tls(FLAGS.tls_ca, FLAGS.tls_cert, FLAGS.tls_key),
        cluster=FLAGS.cluster,
        job=tuple(FLAGS.job),
        gpu=FLAGS.gpu,
        workers=FLAGS.workers,
        memory=FLAGS.memory,
        dashboard=FLAGS.dashboard,
        check=FLAGS.check,
    )


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    try:
        if FLAGS.status:
            print(describe_run(FLAGS.out))
            return
        with stopping_on_signals():
            if FLAGS.dry_run:
                print(forecast_run(request()))
                return
            labels = segment_volume(request())
        print(f"Labels: {labels.url}, {' x '.join(map(str, labels.shape))} voxels (z, y, x)")
        print(f"Found: {read_summary(labels.url)}")
        print(f"Objects: {labels.url}/objects.npy; scored edges: {(FLAGS.graph or labels.url).rstrip('/')}/edges.npy")
    except StoppedError as stopped:
        print(f"segment: {stopped}", file=sys.stderr)
        sys.exit(STOPPED)
    except UserError as problem:
        sys.exit(f"segment: {problem}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
