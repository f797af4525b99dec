"""The programs that run on the devices, each compiled once.

Windows that overlap in z form a column. Arrays of several columns have them as their first axis, m, which is sharded
over the devices; windows of a column are the axis q, sections n. Each device sums what its own columns add to a block,
and the sums are reduced only when the block is finished.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Shaped

from emsam_jax.inference.symmetry import Undo, undone
from emsam_jax.model import Maps, jit
from emsam_jax.targets import count_operations
from emsam_jax.volumes import Voxel

Devices = Sequence[Any]  # jax.Device is no type for pyright
ColumnFeatures = tuple[Float[Array, "m length _ _ _"], ...]


class Windows(NamedTuple):
    """Windows of a column."""

    sections: Int[Array, "q z"] | Int[np.ndarray, "q z"]
    places: Int[Array, "q z"] | Int[np.ndarray, "q z"]  # where their features are


@runtime_checkable
class AffinityModel(Protocol):
    """What can be predicted with: FGNet, or any pytree with these two methods."""

    def encode(self, sections: Float[Array, "n y x 1"]) -> tuple[Float[Array, "n _ _ _"], ...]: ...

    def decode(self, raw: Float[Array, "b z y x 1"], features: Any) -> Maps: ...


@functools.cache
def programs_for(devices: tuple[Any, ...], coarse: bool, encode_once: bool) -> "Programs":
    """Returns cached programs, so that nothing is compiled again for another volume or other parameters."""
    return Programs(devices, coarse=coarse, encode_once=encode_once)


class Programs:
    """Programs jitted for these devices and settings; jax distinguishes their shapes.

    `options` are the compiler's, where the devices are not here and it is all that answers.
    """

    def __init__(self, devices: Devices, *, coarse: bool, encode_once: bool, options: dict[str, Any] | None = None):
        self._compiled: dict[Any, Any] = {}
        self.options = options
        mesh = jax.make_mesh((len(devices),), ("columns",), axis_types=(AxisType.Auto,), devices=list(devices))
        self.devices = len(devices)
        self.columns = NamedSharding(mesh, PartitionSpec("columns"))
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        decode = decode_windows if encode_once else encode_and_decode
        self.cut = jax.jit(cut_columns, static_argnames=("order", "depth"), out_shardings=self.columns)
        self.encode = jit(encode_sections, donate_argnames="features", out_shardings=self.columns)
        self.decode = jit(functools.partial(decode, coarse=coarse), out_shardings=self.columns)
        self.blend = jax.jit(functools.partial(blend, mesh=mesh), static_argnames="order", donate_argnames="total")
        self.finish = jax.jit(finish, static_argnames=("shape", "dtype"), out_shardings=self.everywhere)

    def compiled(self, name: str, *arguments: Any) -> Any:
        """Compiles a program before its first call, from arrays or abstract shapes."""
        leaves, structure = jax.tree.flatten(arguments)
        key = (name, structure, tuple((x.shape, str(x.dtype), x.sharding) for x in leaves))
        if key not in self._compiled:
            self._compiled[key] = getattr(self, name).lower(*arguments).compile(self.options)
        return self._compiled[key]

    def operations(self, name: str, *arguments: Any) -> float:
        """Counts the operations of a program without static arguments, on each device."""
        return count_operations(getattr(self, name).__wrapped__, *arguments) / self.devices


def cut_columns(
    raw: Float[Array, "z y x"],
    rows: Int[Array, "m wy"],
    columns: Int[Array, "m wx"],
    order: tuple[int, int, int],
    depth: int,
) -> Float[Array, "m n wy wx"]:
    """Cuts columns of sections along the first of the permuted axes; `depth` sections after padding."""
    turned = raw.transpose(order)
    turned = jnp.pad(turned, ((0, depth - turned.shape[0]), (0, 0), (0, 0)))
    return jax.vmap(lambda y, x: turned[:, y][:, :, x])(rows, columns)


def encode_sections(
    model: AffinityModel,
    tiles: Float[Array, "m depth y x"],
    sections: Int[Array, " n"],
    features: ColumnFeatures,
    place: Int[Array, ""],
) -> ColumnFeatures:
    """Encodes these sections of every column and writes the features from index `place`."""
    chosen = tiles[:, sections]
    m, n, y, x = chosen.shape
    seen = model.encode(chosen.reshape(m * n, y, x, 1))
    return tuple(
        jax.lax.dynamic_update_slice_in_dim(kept, f.reshape(m, n, *f.shape[1:]), place, axis=1)
        for kept, f in zip(features, seen, strict=True)
    )


def decode_windows(
    model: AffinityModel,
    tiles: Float[Array, "m depth y x"],
    features: ColumnFeatures,
    windows: Windows,
    coarse: bool,
) -> Float[Array, "m q z y x c"]:
    """Decodes affinities of the windows from features that are encoded."""
    raw = tiles[:, windows.sections]
    m, q, z = raw.shape[:3]
    chosen = tuple(f[:, windows.places].reshape(m * q, z, *f.shape[2:]) for f in features)
    return _affinities(model.decode(raw.reshape(m * q, *raw.shape[2:], 1), chosen), coarse, (m, q))


def encode_and_decode(
    model: AffinityModel,
    tiles: Float[Array, "m depth y x"],
    features: ColumnFeatures,
    windows: Windows,
    coarse: bool,
) -> Float[Array, "m q z y x c"]:
    """Encodes and decodes window by window: a section is encoded anew for each."""
    raw = tiles[:, windows.sections]
    m, q, z, y, x = raw.shape
    seen = model.encode(raw.reshape(m * q * z, y, x, 1))
    chosen = tuple(f.reshape(m * q, z, *f.shape[1:]) for f in seen)
    return _affinities(model.decode(raw.reshape(m * q, z, y, x, 1), chosen), coarse, (m, q))


def _affinities(maps: Maps, coarse: bool, batch: tuple[int, int]) -> Float[Array, "m q z y x c"]:
    logits = jnp.concatenate([maps.refined, maps.coarse], -1) if coarse and maps.coarse is not None else maps.refined
    return jax.nn.sigmoid(logits.astype(jnp.float32)).reshape(*batch, *logits.shape[1:])


def blend(
    total: Float[Array, "devices z y x c"],
    values: Float[Array, "m q z2 y2 x2 c"],
    weights: Float[Array, "wz wy wx c"],
    starts: Int[Array, "m q 3"],
    real: Float[Array, "m q"],
    *,
    undo: Undo | None,
    order: tuple[int, int, int],
    mesh: Mesh,
) -> Float[Array, "devices z y x c"]:
    """Adds the windows to the block at their starts, with the symmetry undone; 0 in `real` leaves one out."""

    def blend_own(total: Array, values: Array, weights: Array, at: tuple[Array, Array], undo: Undo | None) -> Array:
        starts, real = (part.reshape(-1, *part.shape[2:]) for part in at)
        windows = values.reshape(-1, *values.shape[2:])
        windows = windows if undo is None else undone(windows, undo, order)
        windows = windows * weights[None] * real[:, None, None, None, None]

        def add(i: Array, total: Array) -> Array:
            at = (0, *starts[i], 0)
            there = jax.lax.dynamic_slice(total, at, (1, *windows.shape[1:]))
            return jax.lax.dynamic_update_slice(total, there + windows[i][None], at)

        return jax.lax.fori_loop(0, windows.shape[0], add, total)

    own, whole = PartitionSpec("columns"), PartitionSpec()
    add_own = jax.shard_map(blend_own, mesh=mesh, in_specs=(own, own, whole, own, whole), out_specs=own)
    return add_own(total, values, weights, (starts, real), undo)


def finish(
    total: Float[Array, "devices _ _ _ c"], start: Int[Array, "3"], shape: Voxel, dtype: str
) -> Shaped[Array, "c z y x"]:
    """Returns the block in the stored type."""
    sizes = (total.shape[0], *shape, total.shape[-1])
    found = jax.lax.dynamic_slice(total, (0, *start, 0), sizes).sum(0).transpose(3, 0, 1, 2)
    found = jnp.clip(found, 0, 1)
    return jnp.round(255 * found).astype(jnp.uint8) if dtype == "uint8" else found.astype(dtype)
