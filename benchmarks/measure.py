"""What every benchmark shares: timing in turn, and results that name their hardware, versions and date."""

import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def interleave(
    functions: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each call, A B A B ..., after one call each that is not counted; so that a machine's moods cancel.

    `time.process_time` as the clock gives seconds of a core, which a busy machine does not stretch.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if repeat:
                seconds[name].append(clock() - start)
    return seconds


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median of the ratios pair by pair."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def peak_bytes(function: Callable[..., object], *arguments: object) -> int:
    """Memory that a call needs at its peak beyond what its imports take, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_peak, (function, *arguments))


def _measure_peak(function: Callable[..., object], *arguments: object) -> int:
    before = status("VmRSS")
    function(*arguments)
    return status("VmHWM") - before


def status(field: str) -> int:
    """Of this process, bytes. The kernel's ru_maxrss would count the parent's memory before it became this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def machine(device: str | None = None) -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if "model name" in line]
    return {
        "device": device or "CPU",
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def versions(*packages: str) -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in packages}


def write(name: str, contents: dict[str, Any], folder: str | None = None) -> Path:
    """The results as JSON, dated."""
    path = (Path(folder) if folder else RESULTS) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    path.write_text(json.dumps({"date": today, **contents}, indent=2) + "\n")
    return path
