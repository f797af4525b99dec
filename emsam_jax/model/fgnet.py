"""FGNet: SAM2's view of each section guides a light 3D network to affinities, coarse and refined.

    sections -> image encoder -> projection --> z context -+-> coarse decoder -> A_s
                                                           v
    raw ----------------------> fine encoder -> guided attention, level by level -> refined decoder -> A_r

Without an image encoder what is left is the field's residual 3D U-Net.

Of the paper (Li et al., 2025, arXiv:2511.13063) only the abstract was at hand. From there: SAM2's features, an
attention by which they guide a light Fine-Grained Encoder, a dual decoder of coarse and refined affinities, SAM2 frozen
or fine-tuned. Ours is the rest: every layer and its size, the attention's form and where it stands, norms, the context
along z, loss, patches and training. So this is no reproduction of the paper's network, nor are its figures the paper's.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from emsam_jax.config import RANDOM, EncoderConfig, ModelConfig, check_model, check_patch, check_weights
from emsam_jax.errors import UserError
from emsam_jax.model.affinity_decoder import AffinityDecoder
from emsam_jax.model.encoder_checkpoint import Params, fill, flat_state, read_facts, read_params
from emsam_jax.model.fine_encoder import FineEncoder
from emsam_jax.model.guided_attention import GuidedAttention
from emsam_jax.model.hiera import HieraConfig
from emsam_jax.model.image_encoder import SIZES, ImageEncoder
from emsam_jax.model.layers import Conv, Linear, ResidualBlock, conv, max_pool, mean_pool
from emsam_jax.model.neck import CHANNELS as FPN_CHANNELS

TOY = HieraConfig(embed_dim=16, num_heads=1, stages=(1, 1, 1, 1), global_att_blocks=(2,), window_spec=(8, 4, 4, 2))
HIERAS = {**SIZES, "toy": TOY}
IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
ORIGIN = (
    "FGNet's idea as its abstract tells it (arXiv:2511.13063): SAM2's features guide a light 3D encoder by attention, "
    "two decoders make coarse and refined affinities, SAM2 is frozen or fine-tuned. The paper's body was not at hand: "
    "layers, sizes, loss and training are this project's own."
)
ENCODER = "encoder."  # begins the names of the image encoder's parameters
LevelFeatures = tuple[Float[Array, "b z _ _ c"], ...]  # projected, by level, fine to coarse


class Maps(NamedTuple):
    """Logits of affinities, float32."""

    coarse: Float[Array, "b z y x c"] | None
    refined: Float[Array, "b z y x c"]


class FGNet(nnx.Module):
    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        check_model(config)
        self.config = config
        options: dict[str, Any] = {"dtype": jnp.dtype(config.dtype), "rngs": rngs}
        shared: dict[str, Any] = {"groups": config.norm_groups, **options}
        outputs, size = len(config.offsets), config.projected
        self.fine_encoder = FineEncoder(config.channels, isotropic=config.isotropic, filters=config.filters, **shared)
        self.refined_decoder = AffinityDecoder(config.channels, outputs, entry=self.fine_encoder.entry, **shared)
        seen: tuple[int, ...] = ()  # channels of the image encoder's levels
        self.encoder = None if config.encoder.size == "none" else _image_encoder(config.encoder, **options)
        if self.encoder is not None:
            hiera = HIERAS[config.encoder.size]
            seen = hiera.channels if config.encoder.features == "trunk" else (FPN_CHANNELS,) * 3
        self.strides = tuple(4 * 2**level // config.encoder.upsample for level in range(len(seen)))
        normed = seen if config.feature_norm else ()
        self.norms = nnx.List([nnx.LayerNorm(c, epsilon=1e-6, use_fast_variance=False, **options) for c in normed])
        self.projections = nnx.List([Linear(c, size, **options) for c in seen])
        kernel = {"none": None, "3x1x1": (3, 1, 1), "3x3x3": (3, 3, 3)}[config.z_context]
        self.contexts = nnx.List([conv(size, size, kernel, **options) for _ in seen if kernel])
        widths = (size,) * len(seen)
        coarse = config.coarse and seen
        self.coarse_decoder = AffinityDecoder(widths, outputs, entry=None, **shared) if coarse else None
        guided = config.channels if config.guidance != "none" and seen else ()
        self.guidance = nnx.List([GuidedAttention(c, size, config.guidance, **shared) for c in guided])

    def __call__(self, raw: Float[Array, "b z y x 1"], key: Key[Array, ""] | None = None) -> Maps:
        """`key` turns drop path on."""
        b, z, *plane = raw.shape
        features = self.encode(raw.reshape(b * z, *plane), key)
        return self.decode(raw, tuple(f.reshape(b, z, *f.shape[1:]) for f in features))

    def encode(
        self, sections: Float[Array, "n y x 1"], key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, "n _ _ _"], ...]:
        """Encodes each section by itself and projects its features; nothing without an encoder."""
        if self.encoder is None:
            return ()
        with jax.named_scope("encoder"):
            means, deviations = (jnp.asarray(value)[None, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))
            images = (sections - means) / deviations
            times = self.config.encoder.upsample
            if times > 1:
                n, y, x, c = images.shape
                images = jax.image.resize(images, (n, y * times, x * times, c), "linear")
            seen = self.encoder(images.astype(self.config.dtype), key)
        maps = seen.trunk if self.config.encoder.features == "trunk" else seen.fpn
        with jax.named_scope("projections"):
            if self.norms:
                maps = tuple(norm(f) for norm, f in zip(self.norms, maps, strict=True))
            return tuple(project(f) for project, f in zip(self.projections, maps, strict=True))

    def decode(self, raw: Float[Array, "b z y x 1"], features: LevelFeatures) -> Maps:
        """Decodes affinities of the voxels from themselves and from their sections' features."""
        check_patch(self.config, raw.shape[1:4])
        if self.contexts:
            both = zip(self.contexts, features, strict=True)
            features = tuple(self._run("contexts", Conv.__call__, c, f) for c, f in both)
        read_out = functools.partial(AffinityDecoder.__call__, shape=raw.shape[1:4])
        coarse = uncertainty = None
        if self.coarse_decoder is not None:
            coarse = self._run("coarse_decoder", read_out, self.coarse_decoder, features)
            sure = jnp.abs(2 * jax.nn.sigmoid(jax.lax.stop_gradient(coarse)) - 1)
            uncertainty = (1 - sure).mean(-1, keepdims=True).astype(self.config.dtype)

        with jax.named_scope("stem"):
            x = self.fine_encoder.enter(raw)
        levels = []
        for number, block in enumerate(self.fine_encoder.blocks):
            pool = self.fine_encoder.pool
            if number:
                with jax.named_scope(f"level_{number}"):
                    x = max_pool(x, pool)
            x = self._run(f"level_{number}", ResidualBlock.__call__, block, x)
            if number and uncertainty is not None:
                uncertainty = max_pool(uncertainty, pool)
            if self.guidance:
                guide = self._guide(features, number, x.shape)
                attend = self.guidance[number]
                x = self._run(f"guidance_{number}", GuidedAttention.__call__, attend, x, guide, uncertainty)
            levels.append(x)
        refined = self._run("refined_decoder", read_out, self.refined_decoder, tuple(levels))
        return Maps(coarse, refined)

    def _guide(self, features: LevelFeatures, number: int, shape: tuple[int, ...]) -> Float[Array, "b _ _ _ _"]:
        """Returns the features at this level's stride, or at the nearest there is; never finer than `shape`."""
        stride = min(max(2**number, self.strides[0]), self.strides[-1])
        guide = features[self.strides.index(stride)]
        z, y, x = (max(seen // here, 1) for seen, here in zip(guide.shape[1:4], shape[1:4], strict=True))
        return mean_pool(guide, (z, y, x))

    def _run(self, scope: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a part of the model; its operations have the scope's name in profiles and compiled programs."""
        with jax.named_scope(scope):
            # Wrapped anew, since what jax traced for one platform may be another form on the next (`lanes`).
            return (jax.checkpoint(functools.partial(function)) if self.config.remat else function)(*arguments)


def pretrained_encoder(config: ModelConfig) -> dict[str, np.ndarray]:
    """Reads the image encoder's parameters at `config.encoder.weights`, by their names in the model."""
    weights = config.encoder.weights
    check_weights(config.encoder)
    if config.encoder.size == "none" or weights in ("", RANDOM):
        return {}
    size = read_facts(weights)["size"]
    if size != config.encoder.size:
        raise UserError(
            f"model.encoder.weights: expected an encoder of size {config.encoder.size!r}, found {size!r} at {weights}; "
            "set model.encoder.size accordingly."
        )
    neck = config.encoder.features == "fpn"
    return {ENCODER + n: value for n, value in read_params(weights).items() if neck or n.startswith("trunk.")}


def abstract_fgnet(config: ModelConfig) -> FGNet:
    """Returns the module with shapes in place of parameters."""
    return nnx.merge(*_abstract_parts(config))


@functools.cache
def _abstract_parts(config: ModelConfig) -> tuple[Any, Any]:
    """Caches the abstract module, since flax takes seconds to trace its construction."""
    return nnx.split(nnx.eval_shape(lambda: FGNet(config, rngs=nnx.Rngs(0))))


def split_fgnet(model: FGNet) -> tuple[Params, Params]:
    """Splits parameters into those that are trained and those that are not: a frozen image encoder's."""
    frozen_from = ENCODER if model.config.encoder.frozen else None
    trained, frozen = {}, {}
    for name, leaf in flat_state(model).items():
        (frozen if frozen_from and name.startswith(frozen_from) else trained)[name] = leaf.get_value()
    return trained, frozen


def merge_fgnet(config: ModelConfig, trained: Mapping[str, Any], frozen: Mapping[str, Any]) -> FGNet:
    """Returns the module with these parameters, each used once and none left over."""
    return fill(abstract_fgnet(config), {**trained, **frozen})


def _image_encoder(config: EncoderConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> ImageEncoder:
    return ImageEncoder(
        HIERAS[config.size],
        dtype=dtype,
        drop_path_rate=config.drop_path,
        remat=config.remat,
        attention=config.attention,
        neck=config.features == "fpn",
        rngs=rngs,
    )
