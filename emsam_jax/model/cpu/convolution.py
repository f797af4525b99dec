"""Convolves with stride 1, zeros around the input, the output as large as the input.

XLA's own 3D convolution takes several times as long as PyTorch's on the CPU, its 2D one and its matrix products do not:
here a section of the output is a sum of 2D convolutions (`benchmarks/train_step.py`).
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Sections = Float[Array, "b z y x _"]
Kernel = Float[Array, "kz ky kx cin cout"]


def convolve(x: Float[Array, "b ... cin"], kernel: Float[Array, "... cin cout"]) -> Float[Array, "b ... cout"]:
    """Convolves with a kernel of odd sides in three axes; or in two with one of 1 x 1, which is a matrix product."""
    assert all(side % 2 for side in kernel.shape[:-2]), kernel.shape
    return x @ kernel[0, 0] if kernel.shape[:-2] == (1, 1) else _convolve_3d(x, kernel)


@jax.custom_vjp
def _convolve_3d(x: Sections, kernel: Kernel) -> Sections:
    """Convolves in 3D. First-order gradients only; of the call nothing but its arguments is kept for them."""
    return _convolve_sections(x, kernel)


def _convolve_sections(x: Sections, kernel: Kernel) -> Sections:
    """Convolves section by section, as 2D convolutions that fit the cache."""
    b, z, y, width, c = x.shape
    kz, cout = kernel.shape[0], kernel.shape[-1]
    if kz == 1:
        return _convolve_2d(x.reshape(b * z, y, width, c), kernel[0]).reshape(b, z, y, width, cout)
    step, sections = (2, _two_sections) if kz == 3 and z > 1 else (1, _one_section)
    end = z + -z % step
    x = jnp.pad(x, ((0, 0), (kz // 2, kz // 2 + end - z), (0, 0), (0, 0), (0, 0)))

    def write(i: jax.Array, out: Sections) -> Sections:
        needed = [jax.lax.dynamic_index_in_dim(x, i * step + j, 1, keepdims=False) for j in range(kz + step - 1)]
        return jax.lax.dynamic_update_slice_in_dim(out, sections(needed, kernel), i * step, 1)

    return jax.lax.fori_loop(0, end // step, write, jnp.zeros((b, end, y, width, cout), x.dtype))[:, :z]


def _one_section(x: list[Float[Array, "b y x _"]], kernel: Kernel) -> Sections:
    """Computes the section in the middle of as many as the kernel has."""
    parts = [_convolve_2d(section, k) for section, k in zip(x, kernel, strict=True)]
    return functools.reduce(jnp.add, parts)[:, None]


def _two_sections(x: list[Float[Array, "b y x _"]], kernel: Kernel) -> Sections:
    """Computes the two in the middle of four, by Winograd's F(2, 3): four 2D convolutions in place of six."""
    even, odd = (kernel[0] + kernel[2]) / 2, kernel[1] / 2
    both, difference = _convolve_2d(x[1] + x[2], even + odd), _convolve_2d(x[2] - x[1], even - odd)
    first = _convolve_2d(x[0] - x[2], kernel[0]) + both + difference
    second = both - difference - _convolve_2d(x[1] - x[3], kernel[2])
    return jnp.stack([first, second], 1)


def _convolve_2d(x: Float[Array, "n y x cin"], kernel: Float[Array, "ky kx cin cout"]) -> Float[Array, "n y x cout"]:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _kernel_gradient(x: Sections, shape: tuple[int, ...], g: Sections) -> Kernel:
    """Sums section by section a matrix product for each tap along z and y, the taps along x side by side in it."""
    z, y, width = x.shape[1:4]
    kz, ky, kx, cin, cout = shape
    from_input = kx * cin <= cout  # whose taps along x are laid side by side: the narrower's
    x = jnp.pad(x, ((0, 0), *((side // 2, side // 2) for side in (kz, ky, kx)), (0, 0)))

    def add(i: jax.Array, total: Float[Array, "taps rows columns"]) -> Float[Array, "taps rows columns"]:
        around = jax.lax.dynamic_slice_in_dim(x, i, kz, 1)
        section = jax.lax.dynamic_index_in_dim(g, i, 1, keepdims=False)
        if from_input:
            around = jnp.concatenate([around[..., j : j + width, :] for j in range(kx)], -1)
        else:
            shifted = [jnp.pad(section, ((0, 0), (0, 0), (j, kx - 1 - j), (0, 0))) for j in range(kx)]
            section = jnp.concatenate(shifted, -1)
        columns = section.reshape(-1, section.shape[-1])
        rows = [around[:, tz, ty : ty + y].reshape(-1, around.shape[-1]) for tz in range(kz) for ty in range(ky)]
        return total + jnp.stack([jnp.dot(r.T, columns, preferred_element_type=jnp.float32) for r in rows])

    sides = (kx * cin, cout) if from_input else (cin, kx * cout)
    total = jax.lax.fori_loop(0, z, add, jnp.zeros((kz * ky, *sides), jnp.float32))
    if not from_input:
        total = total.reshape(kz, ky, cin, kx, cout).swapaxes(2, 3)
    return total.reshape(shape).astype(x.dtype)


def _forward(x: Sections, kernel: Kernel) -> tuple[Sections, tuple[Sections, Kernel]]:
    return _convolve_3d(x, kernel), (x, kernel)


def _backward(kept: tuple[Sections, Kernel], g: Sections) -> tuple[Sections, Kernel]:
    x, kernel = kept
    mirrored = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
    return _convolve_sections(g, mirrored), _kernel_gradient(x, kernel.shape, g)


_convolve_3d.defvjp(_forward, _backward)
