"""The peer of benchmarks/train_step.py: the same FGNet and the same training step, in PyTorch.

Modules are named as in emsam_jax/model, so that one rule maps the parameters. The image encoder is SAM2's own; where
the sam2 package is missing, timm's port of it.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from emsam_jax.config import ModelConfig
from emsam_jax.model import FGNet, flat_state
from emsam_jax.model.fgnet import HIERAS, IMAGENET_MEAN, IMAGENET_STD


class Normalised(nn.Module):
    def __init__(self, cin: int, cout: int, kernel: tuple[int, int, int], groups: int):
        super().__init__()
        self.conv = conv(cin, cout, kernel, bias=False)
        self.norm = nn.GroupNorm(groups, cout, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ResidualBlock(nn.Module):
    def __init__(self, cin: int, cout: int, groups: int, entry: tuple[int, int, int] | None):
        super().__init__()
        self.entry = Normalised(cin, cout, entry, groups) if entry else None
        self.first = Normalised(cout, cout, (3, 3, 3), groups)
        self.second = Normalised(cout, cout, (3, 3, 3), groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.entry is not None:
            x = functional.elu(self.entry(x))
        return functional.elu(x + self.second(functional.elu(self.first(x))))


class FineEncoder(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        first, self.entry = config.channels[0], (3, 3, 3) if config.isotropic else (1, 3, 3)
        self.stem = Normalised(1, first, (5, 5, 5) if config.isotropic else (1, 5, 5), config.norm_groups)
        widths = zip((first, *config.channels), config.channels, strict=False)
        self.blocks = nn.ModuleList(ResidualBlock(cin, cout, config.norm_groups, self.entry) for cin, cout in widths)


class GuidedAttention(nn.Module):
    """The gate and the addition; the other kinds are ablations that nothing is timed for."""

    def __init__(self, channels: int, projected: int, groups: int):
        super().__init__()
        self.fine = Normalised(channels, channels, (1, 1, 1), groups)
        self.added = Normalised(projected, channels, (1, 1, 1), groups)
        self.gate = Normalised(projected, channels, (1, 1, 1), groups)

    def forward(self, fine: Tensor, guide: Tensor) -> Tensor:
        gate = enlarge(2 * torch.sigmoid(self.gate(guide)), fine.shape[2:])
        return (fine + self.fine(fine)) * gate + enlarge(self.added(guide), fine.shape[2:])


class AffinityDecoder(nn.Module):
    def __init__(self, channels: Sequence[int], outputs: int, groups: int, entry: tuple[int, int, int] | None):
        super().__init__()
        self.rise = nn.ModuleList(conv(deeper, here, (1, 1, 1)) for here, deeper in itertools.pairwise(channels))
        refined = channels[:-1] if entry else channels
        self.blocks = nn.ModuleList(ResidualBlock(c, c, groups, entry) for c in refined)
        self.logits = conv(channels[0], outputs, (1, 1, 1))

    def forward(self, levels: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        x, deepest = levels[-1], len(levels) - 1
        if deepest < len(self.blocks):
            x = self.blocks[deepest](x)
        for number in reversed(range(deepest)):
            x = enlarge(self.rise[number](x), levels[number].shape[2:]) + levels[number]
            x = self.blocks[number](x)
        return enlarge(self.logits(x).float(), shape)


class TorchFGNet(nn.Module):
    """Voxels [b, 1, z, y, x] to the coarse and the refined map's logits [b, c, z, y, x]."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        assert config.guidance == "attention"
        assert config.encoder.features == "trunk"
        assert config.encoder.upsample == 1
        self.config = config
        groups, size, outputs = config.norm_groups, config.projected, len(config.offsets)
        self.fine_encoder = FineEncoder(config)
        self.refined_decoder = AffinityDecoder(config.channels, outputs, groups, self.fine_encoder.entry)
        self.encoder, self.coarse_decoder = None, None
        if config.encoder.size == "none":
            return
        seen = HIERAS[config.encoder.size].channels
        self.encoder = image_encoder(config.encoder.size).requires_grad_(not config.encoder.frozen)
        self.norms = nn.ModuleList(nn.LayerNorm(c, eps=1e-6) for c in seen if config.feature_norm)
        self.projections = nn.ModuleList(nn.Linear(c, size) for c in seen)
        kernel = {"3x1x1": (3, 1, 1), "3x3x3": (3, 3, 3)}.get(config.z_context)
        self.contexts = nn.ModuleList(conv(size, size, kernel) for _ in seen if kernel)
        self.coarse_decoder = AffinityDecoder([size] * 4, outputs, groups, None) if config.coarse else None
        self.guidance = nn.ModuleList(GuidedAttention(c, size, groups) for c in config.channels)

    def forward(self, raw: Tensor) -> tuple[Tensor | None, Tensor]:
        return self.decode(raw, self.encode(raw))

    def encode(self, raw: Tensor) -> list[Tensor]:
        if self.encoder is None:
            return []
        b, _, z, y, x = raw.shape
        sections = raw.transpose(1, 2).reshape(b * z, 1, y, x)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.encoder.frozen):
            mean, std = (sections.new_tensor(kept)[None, :, None, None] for kept in (IMAGENET_MEAN, IMAGENET_STD))
            stages = self.encoder((sections - mean) / std)
        features = []
        norms = self.norms or [nn.Identity()] * len(self.projections)
        for norm, project, stage in zip(norms, self.projections, stages, strict=True):
            feature = project(norm(stage.movedim(1, -1))).movedim(-1, 1)
            features.append(feature.unflatten(0, (b, z)).transpose(1, 2))
        return features

    def decode(self, raw: Tensor, features: Sequence[Tensor]) -> tuple[Tensor | None, Tensor]:
        """`features` [b, c, z, h, w] by level, fine to coarse."""
        if features and len(self.contexts):
            features = [context(f) for context, f in zip(self.contexts, features, strict=True)]
        coarse = None if self.coarse_decoder is None else self.coarse_decoder(features, raw.shape[2:])
        pool = (2, 2, 2) if self.config.isotropic else (1, 2, 2)
        x, levels = functional.elu(self.fine_encoder.stem(raw)), []
        for number, block in enumerate(self.fine_encoder.blocks):
            x = block(functional.max_pool3d(x, pool) if number else x)
            if features:
                guide = features[min(max(number - 2, 0), 3)]
                thicker = max(guide.shape[2] // x.shape[2], 1)
                guide = functional.avg_pool3d(guide, (thicker, 1, 1)) if thicker > 1 else guide
                x = self.guidance[number](x, guide)
            levels.append(x)
        return coarse, self.refined_decoder(levels, raw.shape[2:])


def conv(cin: int, cout: int, kernel: tuple[int, int, int], bias: bool = True) -> nn.Conv3d:
    return nn.Conv3d(cin, cout, kernel, padding="same", bias=bias)


def enlarge(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Linear, doubling by doubling."""
    while x.shape[2:] != torch.Size(shape):
        factors = tuple(2.0 if here < there else 1.0 for here, there in zip(x.shape[2:], shape, strict=True))
        x = functional.interpolate(x, scale_factor=factors, mode="trilinear")
    return x


def image_encoder(size: str) -> nn.Module:
    """Images [n, 3, y, x] to the four stages [n, c, h, w]; random weights."""
    try:
        from sam2.modeling.backbones.hieradet import Hiera
    except ModuleNotFoundError:
        import timm  # type: ignore[reportMissingImports]

        return timm.create_model(f"sam2_hiera_{size}", pretrained=False, features_only=True)
    hiera = HIERAS[size]
    # SAM2's code cannot pool in a block that attends to all: the toy's one such block attends to windows here.
    pooled = {end + 1 for end in hiera.stage_ends}
    return Hiera(
        embed_dim=hiera.embed_dim,
        num_heads=hiera.num_heads,
        stages=hiera.stages,
        global_att_blocks=tuple(block for block in hiera.global_att_blocks if block not in pooled),
        window_spec=hiera.window_spec,
        window_pos_embed_bkg_spatial_size=hiera.window_pos_embed_bkg_spatial_size,
    )


def copy_parameters(ours: FGNet, theirs: TorchFGNet) -> None:
    """All but the image encoder's, which emsam_jax.porting is tested for."""
    named = {name: parameter for name, parameter in theirs.named_parameters() if not name.startswith("encoder.")}
    for name, leaf in flat_state(ours).items():
        if name.startswith("encoder."):
            continue
        value = np.asarray(leaf[...])
        order = {5: (4, 3, 0, 1, 2), 2: (1, 0), 1: (0,)}[value.ndim]
        name = name.removesuffix(".kernel").removesuffix(".scale")  # noqa: PLW2901
        parameter = named.pop(name if name.endswith(".bias") else f"{name}.weight")
        parameter.data.copy_(torch.from_numpy(value.transpose(order).copy()))
    assert not named, sorted(named)


def cross_entropy(logits: Tensor, truth: Tensor, valid: Tensor, most: float) -> Tensor:
    """As emsam_jax/training/losses.py: both classes count the same in each channel of each sample."""
    known, voxels = valid.float(), (2, 3, 4)
    positive = known * truth
    total, positives = known.sum(voxels, keepdim=True), positive.sum(voxels, keepdim=True)
    up, down = ((total / (2 * count).clamp(min=1)).clamp(max=most) for count in (positives, total - positives))
    weights = positive * up + (known - positive) * down
    losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return ((weights * losses).sum(voxels, keepdim=True) / total.clamp(min=1)).mean()


def make_step(
    model: TorchFGNet, batch: Any, *, half: bool, compiled: bool, most: float, clip: float, decay: float
) -> Callable[[], float]:
    """A call makes one step on the batch (raw, affinities, valid as [b, c, z, y, x]) and gives its loss."""
    device = next(model.parameters()).device
    formats = {nn.Conv3d: torch.channels_last_3d, nn.Conv2d: torch.channels_last}
    for module in model.modules():
        if type(module) in formats:
            module.to(memory_format=formats[type(module)])  # type: ignore[reportCallIssue]
    raw, affinities, valid = (a.to(device).contiguous(memory_format=torch.channels_last_3d) for a in batch)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.01, fused=True)
    mean = [parameter.detach().clone() for parameter in trained]

    def loss_of_batch() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            maps = model(raw)
        losses = [cross_entropy(logits.float(), affinities, valid, most) for logits in maps if logits is not None]
        return torch.stack(losses).sum()

    forward = torch.compile(loss_of_batch) if compiled else loss_of_batch

    def step() -> float:
        loss = forward()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, clip)
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            for kept, parameter in zip(mean, trained, strict=True):
                kept.lerp_(parameter, 1 - decay)
        return loss.item()

    return step
