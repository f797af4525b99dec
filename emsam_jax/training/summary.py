"""Prints what a config's model is made of, and what it costs.

    python -m emsam_jax.training.summary --config=cremi:frozen
    python -m emsam_jax.training.summary --config=fib25 --config.model.remat=True

Parameters by part, the shapes of its levels, floating-point operations a voxel, and the memory of a patch's gradient.
"""

import math

import jax

from emsam_jax.command_line import FLAGS, define_config, flags, group, required, run
from emsam_jax.config import Config, ModelConfig, describe_encoder, load_config
from emsam_jax.model import warn_of_padding
from emsam_jax.training.cost import count_flops, count_parameters, gradient_bytes, shapes_of

_TITLE = "{} in patches of {} x {} x {} voxels (z, y, x)"


def summarise(config: Config, *, compiling: bool = True) -> str:
    """Formats the page. Without `compiling` it leaves out what XLA makes of it, and takes seconds."""
    patch, model = config.data.patch, config.model
    shapes = {name: " x ".join(map(str, shape)) for name, shape in shapes_of(model, patch).items()}
    voxels = math.prod(patch)
    flops = {
        name: f"{count_flops(model, patch, training=training) / voxels / 1e3:,.1f} kFLOP a voxel"
        for name, training in (("prediction", False), ("training", True))
    }
    memory = {"parameters, gradient, AdamW, running mean": count_parameters(model).bytes()}
    if compiling:
        memory[f"a patch's gradient ({jax.default_backend()}, compiled)"] = gradient_bytes(model, patch)
    encoder = f"Image encoder: {describe_encoder(model.encoder, config.init_from)}"
    warning = warn_of_padding(model, patch)
    return "\n\n".join(
        (
            _TITLE.format(f"{config.name or 'A model'}, {model.dtype},", *patch),
            f"{encoder}\nWarning: {warning}" if warning else encoder,
            _parameters(model),
            _section("Shapes (z, y, x, channels)", shapes),
            _section("Floating-point operations, before compilation", flops),
            _section("Memory of training", {name: f"{size / 2**20:,.0f} MiB" for name, size in memory.items()}),
        )
    )


def _parameters(model: ModelConfig) -> str:
    parts = count_parameters(model)
    names = [*parts.frozen, *parts.trained]
    rows = [(name, parts.trained.get(name, 0), parts.frozen.get(name, 0)) for name in names]
    rows.append(("together", sum(parts.trained.values()), sum(parts.frozen.values())))
    lines = [f"  {name:<42}{trained:>16,}{frozen:>16,}" for name, trained, frozen in rows]
    return "\n".join((f"{'Parameters':<44}{'trained':>16}{'frozen':>16}", *lines))


def _section(title: str, rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join((title, *(f"  {name:<{width}}  {text}" for name, text in rows.items())))


def define_flags() -> None:
    with group("Experiment"):
        define_config()
        flags.DEFINE_bool("compile", True, "Compile the gradient, to measure its memory on this machine.")


def main(overrides: list[str]) -> None:
    print(summarise(load_config(required("config"), overrides), compiling=FLAGS.compile))


if __name__ == "__main__":
    define_flags()
    run(main, __doc__)
