"""SAM2's image encoder (Hiera trunk and FPN neck) as one module."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from emsam_jax.config import STRIDE, AttentionKernel
from emsam_jax.errors import UserError
from emsam_jax.model.hiera import Hiera, HieraConfig
from emsam_jax.model.neck import FpnNeck

# SAM2 and SAM2.1 have the same four encoders; their weights differ.
SIZES = {
    "tiny": HieraConfig(
        embed_dim=96,
        num_heads=1,
        stages=(1, 2, 7, 2),
        global_att_blocks=(5, 7, 9),
        window_pos_embed_bkg_spatial_size=(7, 7),
    ),
    "small": HieraConfig(
        embed_dim=96,
        num_heads=1,
        stages=(1, 2, 11, 2),
        global_att_blocks=(7, 10, 13),
        window_pos_embed_bkg_spatial_size=(7, 7),
    ),
    "base_plus": HieraConfig(),
    "large": HieraConfig(
        embed_dim=144,
        num_heads=2,
        stages=(2, 6, 36, 4),
        global_att_blocks=(23, 33, 43),
        window_spec=(8, 4, 16, 8),
        window_pos_embed_bkg_spatial_size=(7, 7),
    ),
}
FACTS_FILE, PARAMS_FOLDER = "encoder.json", "params"
ArrayLike = Array | np.ndarray


class Features(NamedTuple):
    trunk: tuple[Float[Array, "n _ _ _"], ...]  # strides 4, 8, 16, 32
    fpn: tuple[Float[Array, "n _ _ 256"], ...]  # strides 4, 8, 16; none without the neck


class ImageEncoder(nnx.Module):
    """Maps images, normalised by ImageNet's mean and standard deviation, to features."""

    def __init__(
        self,
        config: HieraConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        drop_path_rate: float = 0.0,
        remat: bool = False,
        attention: AttentionKernel = "xla",
        neck: bool = True,
        rngs: nnx.Rngs,
    ):
        """`dtype` is the type of the computation; parameters are float32. `remat` keeps only the blocks' inputs for
        the gradient; without the neck there are no FPN features.
        """
        dtype = jnp.dtype(dtype)
        self.trunk = Hiera(
            config, dtype=dtype, drop_path_rate=drop_path_rate, remat=remat, attention=attention, rngs=rngs
        )
        self.neck = FpnNeck(config.channels, dtype=dtype, rngs=rngs) if neck else None

    def __call__(self, images: Float[ArrayLike, "n y x 3"], key: Key[Array, ""] | None = None) -> Features:
        """`key` turns drop path on."""
        images = jnp.asarray(images)
        check_sides(*images.shape[1:3])
        trunk = self.trunk(images, key)
        return Features(trunk, self.neck(trunk) if self.neck is not None else ())


def check_sides(y: int, x: int) -> None:
    def nearest(side: int) -> str:
        below, above = side // STRIDE * STRIDE, max(-(-side // STRIDE), 1) * STRIDE
        return f"{side}" if below == above else f"{below} or {above}" if below else f"{above}"

    if y % STRIDE or x % STRIDE or not y or not x:
        raise UserError(
            f"The image encoder takes images whose sides are multiples of {STRIDE}; got {y} x {x} (y, x). "
            f"The nearest that fit: {nearest(y)} x {nearest(x)}."
        )
