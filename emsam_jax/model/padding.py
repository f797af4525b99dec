"""Computes how much of what SAM2's encoder attends to in a section is padding: its windows have a fixed size."""

import math

from emsam_jax.config import ModelConfig
from emsam_jax.model.hiera import STEM_STRIDE, HieraConfig
from emsam_jax.model.image_encoder import SIZES

MOST = 0.25  # of a stage's tokens, above which it is worth a sentence


def padding_shares(hiera: HieraConfig, y: int, x: int) -> tuple[float, ...]:
    """Returns the share of padding among each stage's tokens, its worst block's, of images of y x x pixels."""
    worst = [0.0] * len(hiera.stages)
    for stage, stride, window in _windowed_blocks(hiera):
        filled = math.prod((side // stride) / (math.ceil(side // stride / window) * window) for side in (y, x))
        worst[stage] = max(worst[stage], 1 - filled)
    return tuple(worst)


def unpadded_side(hiera: HieraConfig) -> int:
    """Returns the side in pixels whose multiples fill every window."""
    return math.lcm(*(stride * window for _, stride, window in _windowed_blocks(hiera)))


def warn_of_padding(model: ModelConfig, patch: tuple[int, int, int]) -> str:
    """Returns a warning if a patch (z, y, x) leaves much of SAM2's windows empty, else nothing."""
    if model.encoder.size not in SIZES:
        return ""
    hiera, times = SIZES[model.encoder.size], model.encoder.upsample
    shares = padding_shares(hiera, patch[1] * times, patch[2] * times)
    share, stage = max((share, -number) for number, share in enumerate(shares, start=1))
    if share <= MOST:
        return ""
    z, y, x = patch
    side = unpadded_side(hiera)
    sides = {each: f"{side // each} with config.model.encoder.upsample={each}" for each in (1, 2)}
    best = " or ".join(sides[each] for each in (times, 3 - times))
    return (
        f"config.data.patch=({z},{y},{x}): {share:.0%} of what SAM2 attends to in stage {-stage} is "
        f"padding; choose y and x as multiples of {best}, which leave none."
    )


def _windowed_blocks(hiera: HieraConfig) -> list[tuple[int, int, int]]:
    """Lists (stage from 0, pixels a token, tokens a window's side) of each block with windows."""
    found, stage = [], 0
    for block, window in enumerate(hiera.windows):
        # The first block of a stage still has the tokens of the stage before.
        stride = STEM_STRIDE * 2**stage
        stage += block - 1 in hiera.stage_ends
        if window:
            found.append((stage, stride, window))
    return found
