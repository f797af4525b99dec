"""What the device can do at most."""

import jax
import jax.numpy as jnp
import measure

from emsam_jax.model import jit


def matrix_rate(dtype: str, side: int = 8192) -> float:
    """FLOP/s of one large matrix product, the best of several."""
    a = jnp.ones((side, side), dtype)
    product = jit(lambda a: a @ a)
    seconds = measure.interleave({"product": lambda: jax.block_until_ready(product(a))}, 8)["product"]
    return 2 * side**3 / min(seconds)
