"""Makes skeletons, meshes and a table of measurements of all objects in a volume of labels, block by block.

    emsam objects --labels=neurons.zarr --out=objects
    emsam objects --labels=neurons.zarr --out=objects --ids=12,40 --mesh_format=ply --parquet

Meshes and skeletons are written as neuroglancer reads them, objects of --ids as SWC and OBJ or PLY too. Killed at any
moment, the same command resumes; with other --ids it adds their files. Exit codes: 0 when all is done, 1 after a
mistake or with blocks that failed, 75 when it was stopped (SIGTERM, Ctrl-C) or lost its scheduler.
"""

import contextlib

from emsam_jax.blocks import run_in_turn, stopping_on_signals
from emsam_jax.command_line import FLAGS, define_ids, define_zyx, flags, group, required
from emsam_jax.commands.worker_flags import define_workers, named_workers, open_workers
from emsam_jax.errors import UserError
from emsam_jax.objects import Tracing, make_objects, plan_objects


def define_flags() -> None:
    usual = Tracing()
    with group("Labels"):
        flags.DEFINE_string("labels", "", "Labels: `PATH` or URL of a volume of whole numbers, one an object.")
        flags.DEFINE_integer("level", 0, "Level of the labels' pyramid to work on; 0 is the finest.", lower_bound=0)
        define_ids("background", (0,), "Label `IDS` that are no objects; 0 and negative ones never are.")
        define_zyx("voxel_size", float, "Voxel size of the labels, `z,y,x` in nm, in place of their metadata's.")
        define_zyx("offset", float, "Position of the labels' first voxel, `z,y,x` in nm, in place of their metadata's.")
    with group("Output"):
        flags.DEFINE_string("out", "", "`FOLDER` or URL of meshes, skeletons and the table; the ledger lies there too.")
        define_ids("ids", (), "Object `IDS` to write as SWC and as --mesh_format too.")
        flags.DEFINE_enum("mesh_format", "obj", ["obj", "ply"], "Format of the meshes of --ids.")
        flags.DEFINE_bool("parquet", False, "Write the table as Parquet too; needs the extra parquet.")
    with group("Skeletons"):
        flags.DEFINE_float("scale", usual.scale, "TEASAR's scale: a path covers scale x radius + constant around it.")
        flags.DEFINE_float("constant", usual.constant, "TEASAR's constant in nm; smaller keeps shorter branches.")
        flags.DEFINE_integer(
            "most_voxels",
            usual.most_voxels,
            "Voxels in an object's box up to which it is traced in full, at 10 bytes each; larger ones are coarsened.",
        )
    with group("Blocks and resuming"):
        define_zyx("block", int, "Block size, `z,y,x` in voxels; by default a shard.")
        flags.DEFINE_bool(
            "check", True, "When resuming, compare finished blocks with their checksums; --nocheck trusts them."
        )
    define_workers()


def main(_: list[str]) -> None:
    labels, out = required("labels"), required("out")
    if FLAGS.block and min(FLAGS.block) < 1:
        raise UserError(f"--block: expected numbers above 0, found {','.join(map(str, FLAGS.block))}.")
    job = plan_objects(
        labels,
        out,
        level=FLAGS.level,
        voxel_size_zyx=FLAGS.voxel_size,
        offset_zyx=FLAGS.offset,
        background=FLAGS.background,
        block=FLAGS.block,
        tracing=Tracing(FLAGS.scale, FLAGS.constant, FLAGS.most_voxels),
    )
    workers = named_workers()
    with stopping_on_signals(), contextlib.ExitStack() as opened:
        run = run_in_turn if workers.count == 1 and not workers.elsewhere else open_workers(workers, opened)
        found = make_objects(
            job,
            ids=FLAGS.ids,
            mesh_format=FLAGS.mesh_format,
            parquet=FLAGS.parquet,
            check=FLAGS.check,
            progress=True,
            run=run,
        )
    print(f"Objects: {found}; measured in {job.out}/objects.csv")
    print(f"Neuroglancer: precomputed:// before the served {job.out}/meshes, /skeletons and /segments")
