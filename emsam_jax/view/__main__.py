"""Shows a run, or any volumes, in neuroglancer: layers, errors, the worst objects, and keys for corrections.

    emsam view --ckpt=runs/demo
    emsam view --out=neurons.zarr --edits=edits.jsonl
    emsam view --raw=em.zarr --labels=neurons.zarr --truth=labels.zarr
    emsam view --link --raw=gs://bucket/em.zarr --labels=gs://bucket/neurons.zarr

Prints a URL for a browser on this machine, and what to type on another one, and serves until Ctrl-C. Voxels are read
as they are looked at, however large the volume is. Nobody else's machine can ask for them.
"""

import dataclasses
from collections.abc import Sequence

from emsam_jax.command_line import FLAGS, define_zyx, flags, group, run
from emsam_jax.errors import UserError
from emsam_jax.view.live import Levels, Scene, link_to, open_levels, scene_of, serve

_ROLES = {"raw": "raw", "labels": "segmentation", "affinities": "affinities", "truth": "truth"}


def define_flags() -> None:
    with group("A run (one of two)"):
        flags.DEFINE_string("ckpt", "", "Trained `MODEL`, a run's folder: shows what emsam eval left in its eval/.")
        flags.DEFINE_string("out", "", "Output of emsam eval or emsam segment: `PATH` or URL.")
        flags.DEFINE_string("volume", "", "Name of the judged volume, where emsam eval judged several.")
    with group("Volumes (of no run, or in place of the run's)"):
        flags.DEFINE_string("raw", "", "Raw volume: `PATH` or URL.")
        flags.DEFINE_string("labels", "", "Segmentation: `PATH` or URL.")
        flags.DEFINE_string("affinities", "", "Affinities: `PATH` or URL of a volume [channels, z, y, x].")
        flags.DEFINE_string("truth", "", "True labels: `PATH` or URL.")
        flags.DEFINE_string(
            "objects", "", "Output of emsam objects, `FOLDER`: meshes and skeletons of the segmentation."
        )
        define_zyx("voxel_size", float, "Voxel size of these volumes, `z,y,x` in nm, in place of their metadata's.")
    with group("What is looked at"):
        flags.DEFINE_integer("object", None, "Object to select and to begin at: its `ID`.", lower_bound=1)
        flags.DEFINE_string("edits", "", "Corrections to show and to append to: `FILE`, such as edits.jsonl.")
        flags.DEFINE_string("author", "", "Author of new corrections; if empty, the user's name.")
    with group("How it is served"):
        flags.DEFINE_integer("port", 0, "Port on this machine; 0: any that is free.", lower_bound=0, upper_bound=65535)
        flags.DEFINE_bool("browser", False, "Open the URL in this machine's browser.")
        flags.DEFINE_bool("link", False, "Print a link to volumes that lie in buckets, and serve nothing.")


def main(_: list[str]) -> None:
    if FLAGS.ckpt and FLAGS.out:
        raise UserError("Expected one of --ckpt and --out, found both.")
    if not any(FLAGS[name].value for name in ("ckpt", "out", *_ROLES)):
        raise UserError(f"Expected --ckpt, --out or {', '.join(f'--{name}' for name in _ROLES)} to show, found none.")
    scene = open_scene()
    if FLAGS.link:
        print(link_to(scene))
        return
    serve(
        scene,
        port=FLAGS.port,
        object_id=FLAGS.object,
        edits=FLAGS.edits,
        author=FLAGS.author,
        browser=FLAGS.browser,
    )


def open_scene() -> Scene:
    """The run's scene with the volumes that are named; or those alone."""
    scene = scene_of(FLAGS.out or f"{FLAGS.ckpt.rstrip('/')}/eval", FLAGS.volume) if FLAGS.ckpt or FLAGS.out else None
    size, named = FLAGS.voxel_size or (scene and scene.main.voxel_size_zyx), {}
    for flag, role in _ROLES.items():
        if url := FLAGS[flag].value:
            named[role] = open_named(url, role, size)
            size = size or named[role].finest.voxel_size_zyx
    if scene:
        return dataclasses.replace(scene, objects=FLAGS.objects, **named)
    names = (levels.finest.url.rpartition("/")[2] for levels in named.values())
    return Scene(title=", ".join(names), objects=FLAGS.objects, **named)


def open_named(url: str, role: str, size: Sequence[float] | None) -> Levels:
    """Opens a volume; one that does not know its voxel size has that of the volume it is shown with."""
    averaged = role in ("raw", "affinities")
    channel = "all" if role == "affinities" else None
    levels = open_levels(url, averaged=averaged, channel=channel, voxel_size_zyx=FLAGS.voxel_size)
    if levels.finest.voxel_size_known or not size:
        return levels
    return open_levels(url, averaged=averaged, channel=channel, voxel_size_zyx=size)


if __name__ == "__main__":
    define_flags()
    run(main, __doc__)
