"""Converts the image encoder of a SAM2 or SAM2.1 checkpoint from PyTorch to Flax.

    python convert/sam2_to_flax.py --checkpoint=sam2.1_hiera_large.pt --out=weights/sam2.1_hiera_l --verify
    python convert/sam2_to_flax.py --download=sam2.1_hiera_tiny --out=weights/sam2.1_hiera_t

Needs PyTorch: pip install 'emsam-jax[convert]'. What it writes is read by emsam_jax.model.load_image_encoder without.
"""

import sys
from pathlib import Path

try:
    from absl import app, flags, logging
except ModuleNotFoundError as missing:
    sys.exit(
        f"convert: {missing.name} is not installed here. Activate the environment (source .venv/bin/activate), which "
        "`make demo` makes, or call .venv/bin/python."
    )

from emsam_jax.errors import UserError
from emsam_jax.porting import BASE_URL, OFFICIAL, convert, default_cache, download, refuse_to_overwrite

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The checkpoint to convert: SAM2's own .pt, or .safetensors.")
_DOWNLOAD = flags.DEFINE_enum("download", None, list(OFFICIAL), "Fetch this official checkpoint and convert it.")
_OUT = flags.DEFINE_string("out", None, "The folder to write; it must not exist yet.")
_VERIFY = flags.DEFINE_bool(
    "verify", False, "Compare with the official PyTorch encoder before anything is put in place."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a converted encoder at --out.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Stored type; bfloat16 halves the file.")
_CACHE = flags.DEFINE_string("cache", None, f"Where downloads are kept; by default {default_cache()}.")
_BASE_URL = flags.DEFINE_string("base_url", BASE_URL, "Where downloads come from, for a mirror of your own.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    try:
        if len(argv) > 1:
            raise UserError(f"Unexpected argument {argv[1]!r}: every option is given as --name=value (see --help).")
        if not _OUT.value:
            raise UserError("Give --out=FOLDER, where the converted encoder goes (see --help).")
        out = Path(_OUT.value)
        refuse_to_overwrite(out, _OVERWRITE.value)
        if _CHECKPOINT.value and not _DOWNLOAD.value:
            source = Path(_CHECKPOINT.value)
        elif _DOWNLOAD.value and not _CHECKPOINT.value:
            cache = Path(_CACHE.value) if _CACHE.value else default_cache()
            source = download(_DOWNLOAD.value, cache, _BASE_URL.value)
        else:
            raise UserError("Give one of --checkpoint=FILE and --download=NAME (see --help).")
        print(convert(source, out, dtype=_DTYPE.value, overwrite=_OVERWRITE.value, verify=_VERIFY.value))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main)
