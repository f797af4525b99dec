"""Hiera, the trunk of SAM2's image encoder, in Flax NNX.

Attributes carry the names of the official PyTorch module (`sam2/modeling/backbones/hieradet.py`), so that one rule
maps its tensors to ours (`emsam_jax/porting/names.py`). The numbers are the same; what is done differently:

| PyTorch | here | why |
|---|---|---|
| pads to whole windows, then projects to q, k, v | projects, then pads (a zero token gives the bias) | fewer products |
| projects the attention's output, then crops | crops, then projects | half of stage 3 at 160 x 160 is padding |
| one attention kernel | one for CPUs, one for accelerators (`by_platform.py`) | speed |
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from emsam_jax.config import AttentionKernel
from emsam_jax.model.by_platform import attend, gelu
from emsam_jax.model.layers import Conv, Linear, add_shared

Tokens = Float[Array, "n h w c"]
OtherTokens = Float[Array, "n h2 w2 c2"]  # of the same images
STEM_STRIDE = 4  # of the first stage, pixels
LAYER_NORM_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class HieraConfig:
    """The sizes of Hiera; the defaults are those of base+."""

    embed_dim: int = 112  # channels of the first stage; each later stage has twice as many
    num_heads: int = 2  # attention heads of the first stage; doubled likewise
    stages: tuple[int, ...] = (2, 3, 16, 3)  # blocks a stage
    global_att_blocks: tuple[int, ...] = (12, 16, 20)  # blocks that attend to the whole image, not to a window
    window_spec: tuple[int, ...] = (8, 4, 14, 7)  # side of an attention window, tokens, per stage
    window_pos_embed_bkg_spatial_size: tuple[int, int] = (14, 14)  # of the position embedding that is resized, tokens

    @property
    def channels(self) -> tuple[int, ...]:
        """Returns the channels of each stage's output, shallow to deep."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.stages)))

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Returns the index of each stage's last block."""
        return tuple(sum(self.stages[: stage + 1]) - 1 for stage in range(len(self.stages)))

    @property
    def windows(self) -> tuple[int, ...]:
        """Returns the side of each block's attention windows in tokens; 0: the whole image is one."""
        stage_of = [stage for stage, blocks in enumerate(self.stages) for _ in range(blocks)]
        # The first block of a stage still attends within the windows of the stage before.
        sides = [self.window_spec[stage] for stage in (0, *stage_of[:-1])]
        return tuple(0 if block in self.global_att_blocks else side for block, side in enumerate(sides))


def window_partition(tokens: Tokens, window: int) -> Float[Array, "windows t c"]:
    """Cuts the tokens into windows [window * window, c], padded below and at the right with zeros."""
    n, h, w, c = tokens.shape
    tokens = jnp.pad(tokens, ((0, 0), (0, -h % window), (0, -w % window), (0, 0)))
    rows, columns = tokens.shape[1] // window, tokens.shape[2] // window
    tokens = tokens.reshape(n, rows, window, columns, window, c)
    return tokens.swapaxes(2, 3).reshape(n * rows * columns, window * window, c)


def window_unpartition(windows: Float[Array, "windows t c"], window: int, h: int, w: int) -> Tokens:
    """Puts the windows back together and crops the padding."""
    rows, columns = -(-h // window), -(-w // window)
    tokens = windows.reshape(-1, rows, columns, window, window, windows.shape[-1])
    return tokens.swapaxes(2, 3).reshape(-1, rows * window, columns * window, windows.shape[-1])[:, :h, :w]


def max_pool_2x2(tokens: Tokens) -> OtherTokens:
    """Halves both sides. A maximum over a reshaped axis: XLA's reduce-window is slow on the CPU."""
    n, h, w, c = tokens.shape
    return tokens.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def drop_path(branch: Tokens, rate: float, key: Key[Array, ""] | None) -> Tokens:
    """Drops the branch for a random part of the images and scales it up for the others."""
    if key is None or rate == 0.0:
        return branch
    kept = jax.random.bernoulli(key, 1 - rate, (branch.shape[0], 1, 1, 1))
    return jnp.where(kept, branch / (1 - rate), 0)


class PatchEmbed(nnx.Module):
    """Embeds an image as tokens, by a 7x7 convolution of stride 4."""

    def __init__(self, embed_dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.proj = Conv(3, embed_dim, (7, 7), strides=STEM_STRIDE, padding=3, dtype=dtype, rngs=rngs)

    def __call__(self, images: Float[Array, "n y x 3"]) -> Tokens:
        return self.proj(images)


class MultiScaleAttention(nnx.Module):
    """Attention inside windows (or over all tokens: window 0), whose queries may be pooled to half the sides."""

    def __init__(
        self,
        dim: int,
        dim_out: int,
        *,
        num_heads: int,
        window: int,
        pool: bool,
        kernel: AttentionKernel,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.num_heads, self.window, self.pool = num_heads, window, pool
        self.kernel: AttentionKernel = kernel
        self.qkv = Linear(dim, 3 * dim_out, dtype=dtype, rngs=rngs)
        self.proj = Linear(dim_out, dim_out, dtype=dtype, rngs=rngs)

    def __call__(self, x: Tokens) -> OtherTokens:
        n, h, w, _ = x.shape
        kernel, bias = self.qkv.kernel, self.qkv.bias
        assert bias is not None
        qkv = x @ kernel[...].astype(x.dtype)
        qkv = window_partition(qkv, self.window) if self.window else qkv.reshape(n, h * w, -1)
        qkv = add_shared(qkv, bias[...])
        q, k, v = jnp.split(qkv, 3, axis=-1)

        side_h, side_w = (self.window, self.window) if self.window else (h, w)
        if self.pool:
            q = max_pool_2x2(q.reshape(-1, side_h, side_w, q.shape[-1])).reshape(q.shape[0], -1, q.shape[-1])
            side_h, side_w, h, w = side_h // 2, side_w // 2, h // 2, w // 2

        q, k, v = (a.reshape(*a.shape[:2], self.num_heads, -1) for a in (q, k, v))
        x = attend(q, k, v, self.kernel)
        x = x.reshape(*x.shape[:2], -1)
        x = window_unpartition(x, side_h, h, w) if self.window else x.reshape(n, h, w, -1)
        return self.proj(x)


class MLP(nnx.Module):
    def __init__(self, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [Linear(dim, 4 * dim, dtype=dtype, rngs=rngs), Linear(4 * dim, dim, dtype=dtype, rngs=rngs)]
        )

    def __call__(self, x: Tokens) -> Tokens:
        return self.layers[1](gelu(self.layers[0](x)))


class MultiScaleBlock(nnx.Module):
    """Attention and MLP, each normalised before and added to what came in; `pool` halves the sides."""

    def __init__(
        self,
        dim: int,
        dim_out: int,
        *,
        num_heads: int,
        window: int,
        pool: bool,
        drop_path_rate: float,
        kernel: AttentionKernel,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        norm = functools.partial(
            nnx.LayerNorm, epsilon=LAYER_NORM_EPSILON, use_fast_variance=False, dtype=dtype, rngs=rngs
        )
        self.pool, self.drop_path_rate = pool, drop_path_rate
        self.norm1 = norm(dim)
        self.attn = MultiScaleAttention(
            dim, dim_out, num_heads=num_heads, window=window, pool=pool, kernel=kernel, dtype=dtype, rngs=rngs
        )
        self.norm2 = norm(dim_out)
        self.mlp = MLP(dim_out, dtype=dtype, rngs=rngs)
        if dim != dim_out:
            self.proj = Linear(dim, dim_out, dtype=dtype, rngs=rngs)

    def __call__(self, x: Tokens, key: Key[Array, ""] | None = None) -> OtherTokens:
        attention_key, mlp_key = (None, None) if key is None else jax.random.split(key)
        shortcut, x = x, self.norm1(x)
        if hasattr(self, "proj"):
            shortcut = max_pool_2x2(self.proj(x)) if self.pool else self.proj(x)
        x = shortcut + drop_path(self.attn(x), self.drop_path_rate, attention_key)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_path_rate, mlp_key)


class Hiera(nnx.Module):
    """Maps images to four feature maps of strides 4, 8, 16 and 32."""

    def __init__(
        self,
        config: HieraConfig,
        *,
        dtype: jnp.dtype = jnp.float32,
        drop_path_rate: float = 0.0,
        remat: bool = False,
        attention: AttentionKernel = "xla",
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype, self.remat = config, dtype, remat
        self.patch_embed = PatchEmbed(config.embed_dim, dtype=dtype, rngs=rngs)
        background, window = config.window_pos_embed_bkg_spatial_size, config.window_spec[0]
        self.pos_embed = nnx.Param(jnp.zeros((1, *background, config.embed_dim)))
        self.pos_embed_window = nnx.Param(jnp.zeros((1, window, window, config.embed_dim)))

        depth = sum(config.stages)
        blocks = []
        dim, num_heads, stage = config.embed_dim, config.num_heads, 0
        for i in range(depth):
            first = i - 1 in config.stage_ends
            stage += first
            num_heads *= 1 + first
            blocks.append(
                MultiScaleBlock(
                    dim,
                    config.channels[stage],
                    num_heads=num_heads,
                    window=config.windows[i],
                    pool=first,
                    drop_path_rate=drop_path_rate * i / max(depth - 1, 1),
                    kernel=attention,
                    dtype=dtype,
                    rngs=rngs,
                )
            )
            dim = config.channels[stage]
        self.blocks = nnx.List(blocks)

    def position_embedding(self, h: int, w: int) -> Float[Array, "1 h w c"]:
        c = self.config.embed_dim
        # PyTorch's bicubic (a = -0.75, no antialiasing); antialiased, jax would silently give plain cubic.
        background = jax.image.resize(self.pos_embed[...], (1, h, w, c), "cubic-pytorch", antialias=False)
        side = self.pos_embed_window.shape[1]
        return background + jnp.tile(self.pos_embed_window[...], (1, h // side, w // side, 1))

    def __call__(
        self, images: Float[Array, "n y x 3"], key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, "n _ _ _"], ...]:
        """`key` turns drop path on."""
        x = self.patch_embed(images)
        x = add_shared(x, self.position_embedding(*x.shape[1:3]))
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        run = jax.checkpoint(MultiScaleBlock.__call__) if self.remat else MultiScaleBlock.__call__
        outputs = []
        for i, (block, block_key) in enumerate(zip(self.blocks, keys, strict=True)):
            x = run(block, x, block_key)
            if i in self.config.stage_ends:
                outputs.append(x)
        return tuple(outputs)
