"""An experiment as one value. `loading.py` reads and overrides it, `limits.py` bounds its numbers."""

import dataclasses
from typing import Literal

from emsam_jax.config.augmentation import Augmentation, Selection, Voxels, Widening
from emsam_jax.config.declared import DeclaredVolume
from emsam_jax.config.model import ModelConfig

Balance = Literal["data", "sample", "none"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    train: tuple[DeclaredVolume, ...] = ()  # parameters are learned from these
    validation: tuple[DeclaredVolume, ...] = ()  # checkpoint, fragments and threshold are chosen on these
    test: tuple[DeclaredVolume, ...] = ()  # emsam eval scores these
    weights: tuple[float, ...] = ()  # sampling weight of each training volume; empty: its voxels, or labelled voxels
    patch: Voxels = (16, 224, 224)  # voxels z, y, x
    widening: Widening = "2d"  # of borders in the training labels: none, 2d (3x3), faces (6 neighbours), 3d (3x3x3)
    radius: int = 1  # radius of the widening, voxels
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    selection: Selection = dataclasses.field(default_factory=Selection)
    threads: int = 8  # threads that read patches; the machine's cores at most
    prefetch: int = 2  # batches read before they are asked for


@dataclasses.dataclass(frozen=True)
class LossConfig:
    coarse: float = 1.0  # weight of the coarse map's loss; the refined one's is 1
    dice: float = 0.0  # weight of the Dice loss on the boundary class, added to the cross-entropy; moves log odds
    balance: Balance = "data"  # both classes of a channel count the same: over the training data, or in each sample
    max_weight: float = 10.0  # maximum weight of the rarer class of a channel
    long_weight: float = 1.0  # weight of a channel beyond the three to neighbours, which count 1 each


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    steps: int = 100_000  # updates of the parameters
    batch: int = 4  # patches a step, over all devices
    accumulate: int = 1  # gradient accumulation: parts that a batch is split into
    peak_lr: float = 1e-3  # learning rate of the new parts, after the warm-up
    trained_lr: float = 0.1  # share of peak_lr for parts that come trained, from init_from
    encoder_lr: float = 1e-5  # learning rate of the image encoder's deepest block, where it is fine-tuned
    layer_decay: float = 0.9  # factor on that rate from each block to the one before
    warmup: int = 1000  # steps from 0 to the peak
    final_lr: float = 0.01  # share of peak_lr at the end of the cosine
    weight_decay: float = 0.01  # AdamW's, of kernels; biases and norms have none
    clip: float = 1.0  # maximum global norm of the gradients
    ema: float = 0.999  # decay of the parameters' running mean, which evaluation uses
    bad_steps: int = 10  # steps in a row with a NaN or infinite loss, after which the run stops


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    every: int = 1000  # steps
    keep: int = 3  # newest checkpoints that are kept, and the best one


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    every: int = 2000  # steps; 0: never
    scorers: tuple[str, ...] = ("mean", "q50")  # of waterz, that are tried
    fragments: Literal["2d", "3d"] = "2d"  # watershed in each section, or in 3D where voxels are isotropic


@dataclasses.dataclass(frozen=True)
class LogConfig:
    every: int = 50  # steps between progress lines, and rows of metrics.jsonl
    pictures_every: int = 1000  # steps between sample pictures


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    window: tuple[int, ...] = ()  # voxels z, y, x; empty: the patch, or a cube where symmetries exchange z
    stride: tuple[float, float, float] = (0.5, 0.5, 0.5)  # between windows, shares of the window along z, y, x
    symmetries: int = 1  # of test-time augmentation: 1 to 16, or to 48 where the model is isotropic
    block: Voxels = (64, 512, 512)  # voxels z, y, x that are computed, written and remembered as one
    batch: int = 0  # windows at once on each device; 0: what fits
    dtype: Literal["float16", "uint8"] = "float16"  # of stored affinities
    coarse: bool = False  # store the coarse map as well


@dataclasses.dataclass(frozen=True)
class Config:
    name: str = ""  # of the experiment, in pages and reports
    standings: str = ""  # published scores to show with ours: ac3ac4, fib25; empty: none
    seed: int = 0  # of parameters, data order and augmentation
    init_from: str = ""  # run, checkpoint or pushed model (hf:OWNER/NAME too) whose parameters training starts from
    fsdp: int = 1  # devices that each parameter is sharded over; it is replicated over the others
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    validation: ValidationConfig = dataclasses.field(default_factory=ValidationConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    predict: PredictConfig = dataclasses.field(default_factory=PredictConfig)
