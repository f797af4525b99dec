"""Converts the image encoder of a SAM2 or SAM2.1 checkpoint from PyTorch to Flax.

    emsam convert --checkpoint=sam2.1_hiera_large.pt --out=weights/sam2.1_hiera_l
    emsam convert --download=sam2.1_hiera_tiny --out=weights/sam2.1_hiera_t --verify

Needs PyTorch: pip install 'emsam-jax[convert]'. What it writes is read by emsam_jax.model.load_image_encoder, which
needs none.
"""

from pathlib import Path

from emsam_jax.command_line import FLAGS, flags, group, required
from emsam_jax.errors import UserError
from emsam_jax.porting import (
    BASE_URL,
    OFFICIAL,
    convert,
    default_cache,
    download,
    download_from_hub,
    refuse_to_overwrite,
)


def define_flags() -> None:
    with group("Input (one of two)"):
        flags.DEFINE_string("checkpoint", None, "PyTorch checkpoint `FILE`: SAM2's own .pt, or .safetensors.")
        flags.DEFINE_enum(
            "download", None, list(OFFICIAL), f"Official checkpoint `NAME` to download: {', '.join(OFFICIAL)}."
        )
        flags.DEFINE_enum(
            "source", "meta", ["meta", "hf"], "Where --download looks: Meta's server, or the Hugging Face hub."
        )
        flags.DEFINE_string("cache", str(default_cache()), "Cache `FOLDER` of downloads from Meta's server.")
        flags.DEFINE_string("base_url", BASE_URL, "Download server's `URL`, for a mirror of your own.")
    with group("Output"):
        flags.DEFINE_string("out", None, "Converted encoder's `FOLDER`; it must not exist yet.")
        flags.DEFINE_bool("overwrite", False, "Replace a converted encoder at --out.")
        flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Stored type; bfloat16 halves the file.")
        flags.DEFINE_bool("verify", False, "Compare with the official PyTorch encoder before --out is put in place.")


def main(_: list[str]) -> None:
    out = Path(required("out"))
    refuse_to_overwrite(out, FLAGS.overwrite)
    if FLAGS.checkpoint and not FLAGS.download:
        source = Path(FLAGS.checkpoint)
    elif FLAGS.download and not FLAGS.checkpoint:
        from_meta = FLAGS.source == "meta"
        name = FLAGS.download
        source = download(name, Path(FLAGS.cache), FLAGS.base_url) if from_meta else download_from_hub(name)
    else:
        raise UserError("Give one of --checkpoint=FILE and --download=NAME (see --help).")
    print(convert(source, out, dtype=FLAGS.dtype, overwrite=FLAGS.overwrite, verify=FLAGS.verify))
