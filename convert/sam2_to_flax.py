import sys

try:
    from emsam_jax.commands import call
except ModuleNotFoundError as missing:  # called by its path it finds the package only where that is installed
    sys.exit(
        f"sam2_to_flax: {missing.name} is not installed here. Activate the environment (source .venv/bin/activate), "
        "which `make demo` makes, or call .venv/bin/python."
    )

if __name__ == "__main__":
    call("convert")
