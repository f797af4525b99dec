"""Measures how long each stage takes, and prints it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any


@dataclasses.dataclass
class TimedStage:
    """The time of one stage of one volume; several visits add up."""

    voxels: int  # of the volume that the stage went through
    seconds: float = 0.0
    detail: str = ""

    @property
    def voxels_per_second(self) -> float:
        return self.voxels / max(self.seconds, 1e-9)


class Clock:
    """Adds up the seconds of stages by volume, and prints a line for each that ends."""

    def __init__(self, show: Callable[[str], None] = print):
        self.show = show
        self.stages: dict[str, dict[str, TimedStage]] = {}

    @contextlib.contextmanager
    def stage(self, volume: str, name: str, voxels: int, detail: str = "") -> Iterator[None]:
        with self.visit(volume, name, voxels, detail):
            yield
        self.tell(volume, name)

    @contextlib.contextmanager
    def visit(self, volume: str, name: str, voxels: int, detail: str = "") -> Iterator[None]:
        """Adds to a stage without printing."""
        stage = self.stages.setdefault(volume, {}).setdefault(name, TimedStage(voxels, detail=detail))
        start = time.perf_counter()
        try:
            yield
        finally:
            stage.seconds += time.perf_counter() - start

    def describe(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Returns times by volume and stage, for scores.json."""
        return {
            volume: {
                name: {**dataclasses.asdict(stage), "voxels_per_second": stage.voxels_per_second}
                for name, stage in stages.items()
            }
            for volume, stages in self.stages.items()
        }

    def tell(self, volume: str, name: str) -> None:
        stage = self.stages[volume][name]
        rate = f"{stage.voxels_per_second / 1e6:8.3g} Mvoxel/s"
        detail = f"  {stage.detail}" if stage.detail else ""
        self.show(f"  {volume}: {name:<22} {stage.seconds:7.1f} s {rate}{detail}")
