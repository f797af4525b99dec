"""A 3D convolution of stride 1."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class Conv3D(nnx.Module):
    """Kernel [kz, ky, kx, cin, cout], zeros around the input, the output as large as the input."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel_size: tuple[int, int, int],
        *,
        use_bias: bool = True,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        initial = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
        self.kernel = nnx.Param(initial(rngs.params(), (*kernel_size, cin, cout), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(cout)) if use_bias else None

    def __call__(self, x: Float[Array, "b z y x c"]) -> Float[Array, "b z y x o"]:
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            (1, 1, 1),
            "SAME",
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)[None, None, None, None]
