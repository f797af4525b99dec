"""Logs a run: progress lines, metrics.jsonl, TensorBoard, sample pictures."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import jax

from emsam_jax.config import Config
from emsam_jax.errors import UserError
from emsam_jax.training.metrics import MetricsFile, Row
from emsam_jax.training.pictures import Sample, compose, draw_curves, save_sample
from emsam_jax.training.step import Metrics

METRICS_FILE, CURVES_FILE = "metrics.jsonl", "curves.png"
_FIRST_ESTIMATE = 5  # steps after the compilation


class BadStepsError(UserError):
    """Too many steps in a row had a NaN or infinite loss or gradient."""

    def __init__(self, step: int, in_row: int):
        super().__init__(f"Steps {step - in_row + 1} to {step} had a NaN or infinite loss or gradient")
        self.step, self.in_row = step, in_row


class Log(contextlib.AbstractContextManager["Log"]):
    """Logs the step before the current one, so that the devices always have one to work on.

    Only the first process writes; all of them see when to stop.
    """

    def __init__(self, config: Config, workdir: Path, step: int):
        self.config, self.workdir = config, workdir
        self._writes = jax.process_index() == 0
        self._untold: tuple[int, Metrics] | None = None
        self._clock = _Clock(step, config.optim.steps)
        if self._writes:
            self._metrics = MetricsFile(workdir / METRICS_FILE, step)
            self._board = _summary_writer()(str(workdir / "tensorboard"), purge_step=step + 1 if step else None)

    def __exit__(self, *_: object) -> None:
        if self._writes:
            self._metrics.close()
            self._board.close()

    def say(self, text: str) -> None:
        if self._writes:
            print(text, flush=True)

    def step(self, step: int, metrics: Metrics) -> None:
        self.flush()
        self._untold = step, metrics

    def flush(self) -> None:
        """Logs the last step. Called before a checkpoint: no row of a saved step is ever lost."""
        if self._untold is None:
            return
        (step, metrics), self._untold = self._untold, None
        in_row = int(metrics["skipped_in_row"])
        self._clock.tick(step)
        last = step == self.config.optim.steps
        if self._clock.steps == _FIRST_ESTIMATE and not last:
            self.say(f"{self._clock.rate:.3g} steps/s: about {self._clock.left()} to go")
        if step % self.config.log.every == 0 or last:
            self._tell(step, {name: value.item() for name, value in jax.device_get(metrics).items()})
        if in_row >= self.config.optim.bad_steps:
            raise BadStepsError(step, in_row)

    def resume(self) -> None:
        """Restarts the clock after a pause, which the rate leaves out and the time left counts."""
        self._clock.resume()

    def row(self, row: Row) -> None:
        """Writes a row by itself, such as a validation's."""
        if self._writes:
            self._metrics.write(row)
            for name, value in row.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.add_scalar(_tag(name), value, row["step"])

    def sample(self, step: int, sample: Sample) -> None:
        if self._writes:
            save_sample(sample, self.workdir / "samples" / f"{step:08d}.png", f"step {step}")
            self.curves()
            self._board.add_image("sample/raw_truth_coarse_refined", compose(sample), step, dataformats="HW")

    def picture(self, step: int, name: str, image: Any) -> None:
        """Writes an image [y, x, 3] of uint8 to TensorBoard."""
        if self._writes:
            self._board.add_image(name, image, step, dataformats="HWC")

    def curves(self) -> Path:
        path = self.workdir / CURVES_FILE
        if self._writes:
            draw_curves(self.workdir / METRICS_FILE, path)
        return path

    def _tell(self, step: int, values: dict[str, Any]) -> None:
        patches = self._clock.rate * self.config.optim.batch
        self.row({"step": step, **values, "patches_per_second": round(patches, 4)})
        parts = ", ".join(f"{name[5:]} {value:.4f}" for name, value in values.items() if name.startswith("loss_"))
        skipped = f"  skipped {values['skipped']}" if values["skipped"] else ""
        self.say(
            f"step {step}/{self.config.optim.steps}  loss {values['loss']:.4f} ({parts})  "
            f"rate {values['learning_rate']:.2e}  {patches:.3g} patches/s  {self._clock.left()} left{skipped}"
        )


def _summary_writer() -> Any:
    """Imports tensorboardX without PyTorch, which it would import where it is installed: seconds, for no use here."""
    modules: dict[str, Any] = sys.modules
    hidden = modules.setdefault("torch", None) is None
    from tensorboardX import SummaryWriter

    if hidden:
        del modules["torch"]
    return SummaryWriter


def _tag(name: str) -> str:
    """Returns the tag for TensorBoard, which groups by what stands before a slash."""
    for group in ("loss", "validation"):
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    return name


class _Clock:
    """Measures steps a second, without the first one, which is compiled; newer steps count more."""

    def __init__(self, first: int, last: int):
        self.done, self.last = first, last
        self.steps = -1  # timed
        self._seconds = 0.0  # a step
        self._paused = 0.0  # seconds, for validations, checkpoints and pictures
        self._now = time.perf_counter()

    def tick(self, step: int) -> None:
        now = time.perf_counter()
        self.steps, self.done = self.steps + 1, step
        if self.steps > 0:
            weight = max(1 / self.steps, 0.02)
            self._seconds += weight * (now - self._now - self._seconds)
        self._now = now

    def resume(self) -> None:
        now = time.perf_counter()
        self._paused += now - self._now
        self._now = now

    @property
    def rate(self) -> float:
        return 1 / self._seconds if self._seconds else 0.0

    def left(self) -> str:
        if not self._seconds:
            return "?"
        seconds = (self.last - self.done) * (self._seconds + self._paused / max(self.steps, 1))
        if seconds < 120:
            return f"{seconds:.0f} s"
        return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
