"""All that is measured on an accelerator, in one call: parity, speed against PyTorch in the same run, where time goes.

    python benchmarks/accelerator.py --out=results
    python benchmarks/accelerator.py --out=results --wheels=wheels --seconds=540
    python benchmarks/accelerator.py --out=results --parts=bfloat16,encoder_large,kernels_large

Runs the other benchmarks part after part, the most telling first, each in a process of its own with a time limit: one
that fails or hangs costs its own figures alone. `accelerator.json` in --out is written anew after each part, with its
command, its end and its results. What the machine lacks of the packages is installed first, from a folder of wheels.
"""

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import measure
from absl import app, flags

_OUT = flags.DEFINE_string("out", None, "Folder for the results.", required=True)
_WHEELS = flags.DEFINE_string("wheels", "", "Folder of wheels to install from what is missing; no index is asked.")
_SECONDS = flags.DEFINE_integer("seconds", 540, "For everything; parts that would begin later are left out.")
_PARTS = flags.DEFINE_list("parts", None, "Which, of those that accelerator.json lists; all by default.")
_QUICK = flags.DEFINE_bool("quick", False, "Tiny, as on a CPU: does it run at all?")

FOLDER = Path(__file__).parent
_NEEDED = {"torch": "torch", "sam2": "sam2", "jax_cuda12_plugin": "jax[cuda12]", "flax": "flax", "grain": "grain"}
_LONGEST = 150  # seconds of a part
_INSTALLING = 150


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    script: str
    arguments: tuple[str, ...]


def parts() -> list[Part]:
    """In the order of their worth; large before base+."""
    if _QUICK.value:
        return [
            Part("parity", "parity.py", ("--sizes=tiny", "--versions=sam2.1", "--quick")),
            Part("bfloat16", "parity.py", ("--sizes=tiny", "--bfloat16", "--quick")),
            Part("encoder", "encoder.py", ("--sizes=tiny", "--repeats=1", "--sections=1", "--side=64")),
            Part("step", "train_step.py", ("--quick",)),
            Part("predict", "predict.py", ("--quick",)),
            Part("kernels", "train_step.py", ("--quick", "--kernels")),
            Part("loader", "loader.py", ("--quick",)),
        ]
    speed = ("--attention=xla,cudnn", "--torch_mode=reduce-overhead", "--repeats=7")
    volume = ("--volume=64,1024,1024", "--block=64,1024,1024", "--rounds=1")
    return [
        Part("parity", "parity.py", ("--sizes=base_plus,large", "--versions=sam2.1")),
        Part("encoder_large", "encoder.py", ("--sizes=large", *speed)),
        Part("step_large", "train_step.py", ("--cases=large", "--compile")),
        Part("predict_large", "predict.py", ("--cases=large", *volume)),
        Part("kernels_large", "train_step.py", ("--cases=large", "--kernels")),
        Part("encoder_base_plus", "encoder.py", ("--sizes=base_plus", *speed)),
        Part("step_frozen", "train_step.py", ("--cases=frozen", "--compile")),
        Part("predict_base_plus", "predict.py", ("--cases=base_plus", *volume)),
        Part("bfloat16", "parity.py", ("--sizes=base_plus,large", "--bfloat16")),
        Part("loader", "loader.py", ("--peer=", "--rounds=2")),
        Part("step_finetuned", "train_step.py", ("--cases=finetuned", "--compile")),
    ]


def main(_: list[str]) -> None:
    out = Path(_OUT.value).absolute()
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + _SECONDS.value
    chosen = [part for part in parts() if not _PARTS.value or part.name in _PARTS.value]
    found: dict[str, Any] = {"installed": install() if _WHEELS.value else [], "gpu": describe_gpu()}
    found["parts"] = {part.name: {"ended": "not begun"} for part in chosen}
    for part in chosen:
        left = end - time.monotonic()
        if left > 1:
            found["parts"][part.name] = run(part, out, min(left, _LONGEST))
            told = found["parts"][part.name]
            print(f"{part.name}: {told['ended']}, {told['seconds']:.0f} s", flush=True)
        measure.write("accelerator", {"machine": measure.machine(), **found}, str(out))
    print(f"Results: {out / 'accelerator.json'}")
    if any(told["ended"] != "done" for told in found["parts"].values()):
        raise SystemExit("error: not all parts ended well; accelerator.json says which")


def install() -> list[str]:
    """Installs what cannot be found, in the versions that the folder has."""
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", f"--find-links={_WHEELS.value}"]
        subprocess.run([*pip, *missing], check=True, timeout=_INSTALLING)
    return missing


def describe_gpu() -> str:
    """Returns name, memory, clocks and driver, as its own tool says them; empty without one."""
    tool = shutil.which("nvidia-smi")
    query = "--query-gpu=name,memory.total,clocks.max.sm,clocks.max.memory,power.limit,driver_version"
    asked = [tool, query, "--format=csv,noheader"] if tool else ["true"]
    return subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()


def run(part: Part, out: Path, limit: float) -> dict[str, Any]:
    """Runs a part into a folder of its own, and returns what became of it and what it measured."""
    folder = out / part.name
    shutil.rmtree(folder, ignore_errors=True)
    cache = {"JAX_COMPILATION_CACHE_DIR": str(out / "compiled"), "PYTHONPATH": str(FOLDER.parent)}
    command = [sys.executable, str(FOLDER / part.script), *part.arguments, f"--out={folder}"]
    start = time.monotonic()
    with (out / f"{part.name}.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **cache}, start_new_session=True
        )
        try:
            code = process.wait(limit)
            ended = "done" if code == 0 else f"failed with {code}: {part.name}.log"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # torch's compilers too
            process.wait()
            ended = f"stopped after {limit:.0f} s: {part.name}.log"
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    line = " ".join((f"python benchmarks/{part.script}", *part.arguments))
    return {"command": line, "ended": ended, "seconds": time.monotonic() - start, "results": results}


if __name__ == "__main__":
    app.run(main)
