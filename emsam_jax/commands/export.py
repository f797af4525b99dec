"""Exports a trained model as a program of its own, or labels and their graph in the form of another tool.

    emsam export --ckpt=runs/mine --out=mine.jax_export
    emsam export --ckpt=hf:me/mine@v1 --out=mine.jax_export --window=16,256,256
    emsam export --labels=neurons.zarr --to=webknossos --out=dataset
    emsam export --labels=neurons.zarr --to=pychunkedgraph --out=graph
    emsam export --labels=neurons.zarr --to=ome-zarr-0.4 --out=older.zarr

A model's file holds its forward pass, as StableHLO by jax.export, with the parameters in it: it runs on CPUs, CUDA
and TPUs without this software. It takes windows [b, z, y, x] of grey values in [0, 1], float32, any number b of them,
and gives their affinities [b, c, z, y, x]: jax.export.deserialize(bytearray(content)).call(windows). Tiling and
blending are the caller's.

Labels are copied shard by shard. WEBKNOSSOS and PyChunkedGraph take the fragments of a finished run of emsam segment,
and what it joined. Stopped at any moment, the same command resumes.
"""

from emsam_jax.blocks import stopping_on_signals
from emsam_jax.command_line import FLAGS, define_zyx, flags, group, required
from emsam_jax.errors import UserError

_TARGETS = ("webknossos", "pychunkedgraph", "ome-zarr-0.4")


def define_flags() -> None:
    with group("Model"):
        flags.DEFINE_string(
            "ckpt",
            "",
            "Trained `MODEL`: a folder of a run, a checkpoint or a pushed model, or hf:OWNER/NAME[@REVISION].",
        )
        define_zyx(
            "window", int, "Shape of the windows, `z,y,x` in voxels; by default that of the model's predictions."
        )
    with group("Labels"):
        flags.DEFINE_string("labels", "", "Labels of emsam segment, `URL`; with --to=ome-zarr-0.4 any labels.")
        flags.DEFINE_enum("to", None, _TARGETS, "Tool, or format, that the labels are for.")
    with group("Output"):
        flags.DEFINE_string("out", "", "Exported program, `FILE`; of labels the folder or URL to write.")


def main(_: list[str]) -> None:
    if bool(FLAGS.ckpt) == bool(FLAGS.labels):
        raise UserError(f"Expected one of --ckpt and --labels, found {'both' if FLAGS.ckpt else 'none'} (see --help).")
    out = required("out")
    if FLAGS.ckpt:
        if FLAGS.to:
            raise UserError(f"--to={FLAGS.to} is for --labels, found --ckpt.")
        from emsam_jax.sharing.exported_model import describe_export, export_model

        print(describe_export(export_model(FLAGS.ckpt, out, FLAGS.window or ()), out))
        return
    if FLAGS.window:
        raise UserError("--window is for --ckpt, found --labels.")
    from emsam_jax.exports import export_labels

    with stopping_on_signals():
        print(export_labels(required("to"), FLAGS.labels, out, progress=True))
