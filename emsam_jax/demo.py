"""Trains and evaluates a small model from scratch on synthetic volumes, and explains each step.

    emsam demo --out=runs/demo
    emsam demo --out=runs/quick --divide=2 --override=--config.optim.steps=100

Takes about five minutes on two CPU cores. Leaves volumes, the trained model, a report and demo.json, its figures.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from emsam_jax.command_line import FLAGS, flags, group, run
from emsam_jax.configs.demo import NOISE, SHAPES, VOXEL_SIZE_ZYX
from emsam_jax.evaluation import BASELINE
from emsam_jax.storage import destination, write_whole
from emsam_jax.volumes.synthetic import Stain, check_place, synthetic_volume, write_synthetic

VOLUMES = """\
Electron microscopes image brain tissue section by section: grey cells, dark membranes around them. Here tissue is
made up instead, so that the true outline of every neuron is known: one volume to learn from, one to choose settings
on, and one that is only looked at for the final scores."""
TRAINING = """\
The network learns, for each voxel and its neighbour along z, y and x, whether both belong to the same neuron: their
affinity. It makes a coarse map from what a small image encoder sees in each section, and a refined one from the
voxels themselves, guided by it. Loss: how far both are from the truth."""
EVALUATION = """\
The trained network predicts the affinities of the test volume, watershed cuts them into fragments, and agglomeration
joins those whose common border has a high affinity. The result is compared with the truth. VOI, in bits, counts what
is split and what is merged wrongly, and the adapted Rand error counts wrong pairs of voxels: 0 is perfect."""
CONCLUSION = """
== done, in {seconds:.0f} seconds ==
                                      VOI (bits)   adapted Rand error
this network, settings from validation   {voi:7.3f}   {arand:7.3f}
smoothed intensity, at its very best     {baseline_voi:7.3f}   {baseline_arand:7.3f}

The network's error is {ratio:.1f} times smaller than that of the same watershed on the grey values themselves, whose
threshold was even chosen by looking at the truth. Pictures of what is right and wrong, and all scores:
{report}
In the viewer, in your browser: emsam view --ckpt={ckpt}"""


def define_flags() -> None:
    with group("Output"):
        flags.DEFINE_string("out", "runs/demo", "`FOLDER` for volumes, model, report and demo.json.")
        flags.DEFINE_bool("volumes_only", False, "Make the volumes and stop.")
    with group("Quicker trials"):
        flags.DEFINE_integer("divide", 1, "Divisor of the volumes' sides.")
        flags.DEFINE_multi_string(
            "override", [], "`FLAG` for emsam train, such as --override=--config.optim.steps=4. May be repeated."
        )


def main(_: list[str]) -> None:
    start, out = time.perf_counter(), Path(FLAGS.out).absolute()
    say("1 of 3: volumes", VOLUMES)
    claim_folder(out)
    for seed, (part, (z, y, x)) in enumerate(SHAPES.items(), start=1):
        shape = z // FLAGS.divide, y // FLAGS.divide, x // FLAGS.divide
        write_synthetic(synthetic_volume(shape, seed, VOXEL_SIZE_ZYX, stain=Stain(noise=NOISE)), str(out / part))
        print(f"  {out / part}: raw.zarr and labels.zarr, {' x '.join(map(str, shape))} voxels (z, y, x)")
    if FLAGS.volumes_only:
        return
    say("2 of 3: training", TRAINING)
    call(out, "train", "--config=demo", f"--workdir={FLAGS.out}", *FLAGS.override)
    say("3 of 3: evaluation", EVALUATION)
    call(out, "eval", f"--ckpt={FLAGS.out}")
    summary = summarise(json.loads((out / "eval" / "scores.json").read_text()), time.perf_counter() - start)
    write_whole(out / "demo.json", json.dumps(summary, indent=2) + "\n")
    print(
        CONCLUSION.format(
            **summary, ratio=summary["baseline_voi"] / summary["voi"], report=out / "eval/report.html", ckpt=FLAGS.out
        )
    )


def claim_folder(out: Path) -> None:
    """Refuses folders that hold files of others where the demo writes."""
    for part in SHAPES:
        check_place(str(out / part))
    destination.check_free(str(out), destination.TRAINING)
    destination.claim(str(out), destination.DEMO)


def say(title: str, text: str) -> None:
    print(f"\n== {title} ==\n{text}", flush=True)


def call(out: Path, *command: str) -> None:
    """Prints the command as one would type it, runs it, and exits with it where it fails."""
    print(f"$ emsam {' '.join(command)}", flush=True)
    settings = {**os.environ, "EMSAM_DEMO": str(out)}
    done = subprocess.run([sys.executable, "-m", "emsam_jax", *command], env=settings, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def summarise(scores: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Summarises the test volume's scores, and the best of the intensity baseline."""
    (methods,) = scores["volumes"].values()
    ours = methods[scores["headline"]]
    baseline = methods[BASELINE]["oracle"]
    return {
        "voi": ours["voi"],
        "arand": ours["arand"],
        "baseline_voi": baseline["voi"],
        "baseline_arand": baseline["arand"],
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    define_flags()
    run(main, __doc__)
