"""Maps PyTorch's names and layouts to ours. Modules are called as in torch, so only the last part differs."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from emsam_jax.errors import UserError
from emsam_jax.model import SIZES, abstract_encoder, flat_state

ENCODER_PREFIX = "image_encoder."
T = TypeVar("T")

# By the last part of the name and the number of axes: ours, and the axes of torch's in our order.
_RULES = {
    ("weight", 1): ("scale", (0,)),  # layer norm
    ("weight", 2): ("kernel", (1, 0)),  # linear: [out, in] -> [in, out]
    ("weight", 4): ("kernel", (2, 3, 1, 0)),  # convolution: [out, in, y, x] -> [y, x, in, out]
    ("bias", 1): ("bias", (0,)),
    ("pos_embed", 4): ("pos_embed", (0, 2, 3, 1)),  # [1, c, y, x] -> [1, y, x, c]
    ("pos_embed_window", 4): ("pos_embed_window", (0, 2, 3, 1)),
}


def flax_name(torch_name: str, axes: int) -> tuple[str, tuple[int, ...]] | None:
    """Returns our name and the order of the axes, or None where the rule has no answer."""
    parent, _, leaf = torch_name.rpartition(".")
    rule = _RULES.get((leaf, axes))
    return rule and (f"{parent}.{rule[0]}" if parent else rule[0], rule[1])


def encoder_tensors(tensors: Mapping[str, T], source: str) -> tuple[dict[str, T], Counter[str]]:
    """Returns the image encoder's tensors, without their prefix, and the number of tensors in each other part."""
    _refuse_foreign_layout(tensors, source)
    if any(name.startswith(("trunk.", "neck.")) for name in tensors):  # the encoder's own state dict
        return dict(tensors), Counter()
    inside = {name.removeprefix(ENCODER_PREFIX): t for name, t in tensors.items() if name.startswith(ENCODER_PREFIX)}
    if not inside:
        raise UserError(
            f"{source}: expected tensors called {ENCODER_PREFIX}trunk. ... and {ENCODER_PREFIX}neck. ...; "
            f"found {_some(tensors)}. Take an official SAM2 or SAM2.1 checkpoint."
        )
    return inside, Counter(name.split(".")[0] for name in tensors if not name.startswith(ENCODER_PREFIX))


def recognise_size(shapes: Mapping[str, tuple[int, ...]], source: str) -> str:
    """Recognises the encoder's size by its tensors."""
    patches = shapes.get("trunk.patch_embed.proj.weight")
    blocks = {match[1] for name in shapes if (match := re.match(r"trunk\.blocks\.(\d+)\.", name))}
    if not patches or not blocks:
        raise UserError(
            f"{source}: expected a SAM2 image encoder, with trunk.patch_embed.proj.weight and trunk.blocks.0. ...; "
            f"found {_some(shapes)}. Take an official SAM2 or SAM2.1 checkpoint."
        )
    width, depth = patches[0], max(map(int, blocks)) + 1
    # Nearest in depth among those of the same width, so that a checkpoint that lacks a block is told which.
    fitting = [size for size, config in SIZES.items() if config.embed_dim == width]
    if not fitting:
        known = ", ".join(f"{size} {config.embed_dim}" for size, config in SIZES.items())
        raise UserError(f"{source}: an encoder of {width} channels is none of SAM2's ({known}).")
    return min(fitting, key=lambda size: abs(sum(SIZES[size].stages) - depth))


def match(shapes: Mapping[str, tuple[int, ...]], size: str, source: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns the torch name and the order of axes of each parameter; refuses anything but a perfect match."""
    matched, unexpected, misshapen = {}, [], []
    expected = {name: leaf.shape for name, leaf in flat_state(abstract_encoder(SIZES[size])).items()}
    for torch_name, shape in shapes.items():
        found = flax_name(torch_name, len(shape))
        if found is None or found[0] not in expected:
            unexpected.append(torch_name)
            continue
        ours, order = found
        if tuple(shape[axis] for axis in order) != expected[ours]:
            inverse = [order.index(axis) for axis in range(len(order))]
            wanted = tuple(expected[ours][axis] for axis in inverse)
            misshapen.append(f"{torch_name} (expected {wanted}, found {tuple(shape)})")
        matched[ours] = torch_name, order
    missing = [_torch_name(ours) for ours in expected.keys() - matched.keys()]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(faults.values()):
        found = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in faults.items() if names)
        raise UserError(
            f"{source}: the tensors do not match the SAM2 image encoder of size {size}: {found}. "
            "The checkpoint is damaged or of another model: take an official SAM2 or SAM2.1 checkpoint."
        )
    return matched


def _torch_name(ours: str) -> str:
    parent, _, leaf = ours.rpartition(".")
    return f"{ENCODER_PREFIX}{parent}." + {"scale": "weight", "kernel": "weight"}.get(leaf, leaf)


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"


def _refuse_foreign_layout(tensors: Mapping[str, Any], source: str) -> None:
    """Refuses SAM1's encoder, another network, and Hugging Face's files, which split and rename SAM2's tensors."""
    if f"{ENCODER_PREFIX}blocks.0.attn.rel_pos_h" in tensors or "blocks.0.attn.rel_pos_h" in tensors:
        raise UserError(
            f"{source} is a SAM1 checkpoint, whose encoder is a plain ViT; expected SAM2 or SAM2.1 with its Hiera. "
            "Take one of theirs, for example by --download=sam2.1_hiera_large."
        )
    if any(name.startswith("vision_encoder.backbone.") for name in tensors):
        patches = tensors.get("vision_encoder.backbone.patch_embed.projection.weight")
        width = 0 if patches is None else patches.shape[0]
        blocks = {m[1] for name in tensors if (m := re.match(r"vision_encoder\.backbone\.blocks\.(\d+)\.", name))}
        sizes = [s for s, c in SIZES.items() if (c.embed_dim, sum(c.stages)) == (width, len(blocks))]
        official = f"sam2.1_hiera_{sizes[0] if sizes else 'large'}"
        raise UserError(
            f"{source} is in the layout of Hugging Face transformers; expected SAM2's own. Take the official file "
            f"instead: {official}.pt (SAM2: {official.replace('2.1', '2')}.pt) lies in the same model repository, "
            f"and --download={official} fetches it."
        )
