"""Runs the stages from labels to meshes, skeletons and measurements of all objects, block by block, resumably."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from emsam_jax.blocks import Plan, RunLock, Stage, check_room, describe_failures, run_in_turn
from emsam_jax.errors import UserError
from emsam_jax.objects.catalogue import Catalogue, read_catalogue
from emsam_jax.objects.measurements import Measurements, check_parquet, write_parquet
from emsam_jax.objects.objects_job import ObjectsJob
from emsam_jax.objects.pieces import Pieces
from emsam_jax.objects.precomputed_shapes import INFOS
from emsam_jax.objects.shapes import Shapes
from emsam_jax.objects.take_away import MeshFormat, check_ids, take_away
from emsam_jax.storage import OBJECTS, claim, open_folder, write_keys


def make_objects(
    job: ObjectsJob,
    *,
    ids: Sequence[int] = (),
    mesh_format: MeshFormat = "obj",
    parquet: bool = False,
    check: bool = True,
    progress: bool = False,
    run: Callable[..., Any] = run_in_turn,
) -> int:
    """Makes meshes/, skeletons/ and objects.csv in the job's folder, and single files of `ids`; returns how many
    objects there are.

    Resumes when it is called again, or refuses where anything differs that the shapes depend on; `check` compares
    finished blocks with their checksums and does damaged ones again. `run` does the blocks of a stage, as
    `blocks.run_in_turn` does; stages that hold all objects' tables run in this process.
    """
    if parquet:
        check_parquet()
    if not claim(job.out, OBJECTS, [job.labels]):
        check_room(job.plan, job.out)
    ledger = f"{job.out}/ledger"

    def do(run: Callable[..., Any], stage: Stage, plan: Plan) -> None:
        if failed := run(stage, plan, ledger, check=check, progress=progress).failed:
            raise UserError(describe_failures(stage.name, failed))

    everywhere, here = functools.partial(do, run), functools.partial(do, run_in_turn)
    with RunLock(ledger):
        write_keys(open_folder(job.out), {key: json.dumps(info).encode() for key, info in INFOS.items()})
        everywhere(Pieces(job), job.plan)
        here(Catalogue(job), job.whole)
        objects = read_catalogue(job)
        check_ids(ids, objects, job.labels)
        groups = job.plan_groups(len(objects))
        everywhere(Shapes(job), groups)
        here(Measurements(job, groups), job.whole)
        if parquet:
            write_parquet(job.out, groups)
        take_away(job.out, ids, mesh_format)
    return len(objects)
