"""Trains a model, or goes on where the same command stopped.

    python train.py --config=emsam_jax/configs/cremi.py:frozen --workdir=runs/cremi-A-frozen [--config.field=value ...]

Exits with 0 when the last step is done, 1 after a mistake that is said in one sentence, and 75 when it was asked to
stop (SIGTERM, Ctrl-C) and has saved everything: call it again to go on.
"""

import sys

if __name__ == "__main__":
    # Here, because the process that scores a validation imports this file and has no use for jax.
    try:
        from emsam_jax.training.command import run
    except ModuleNotFoundError as missing:
        sys.exit(
            f"train: {missing.name} is not installed here. Activate the environment (source .venv/bin/activate), which "
            "`make demo` makes, or call .venv/bin/python."
        )
    run()
