"""The plan measures: what it says fits, fits, and what does not is made smaller."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from emsam_jax.config import Config, DataConfig, EncoderConfig, ModelConfig, OptimConfig
from emsam_jax.inference import fitting
from emsam_jax.storage import machine
from emsam_jax.training import plan as training_plan
from emsam_jax.training.plan import Trial, patches, plan, savings
from tests.programs import environment

TINY = Config(
    model=ModelConfig(encoder=EncoderConfig(size="none"), channels=(4,)),
    data=DataConfig(patch=(2, 64, 64)),
    optim=OptimConfig(steps=36_000),
)
LIMIT = 1_200_000  # bytes


@pytest.fixture(scope="module")
def said() -> tuple[list[str], Trial | None]:
    """Of a device that has not what the patch needs."""
    lines: list[str] = []
    return lines, plan(TINY, jax.devices()[:1], limit=LIMIT, say=lines.append)


def test_what_does_not_fit_is_said_and_made_smaller(said):
    lines, best = said
    rows = [line for line in lines if " x " in line and "GiB" not in line and "patch" not in line]
    assert "does not fit" in rows[0]
    assert best is not None
    assert best.bytes <= LIMIT
    assert best.config.data.patch in {(2, 32, 32)}
    assert any("--config.data.patch=(2,32,32)" in line for line in lines)
    assert lines[-1].strip().startswith("the smallest batch")  # it fits a small card as it is


def test_hours_are_those_of_all_steps():
    assert Trial(TINY, 2**30, 0.5).row().split()[-3:] == ["2", "8", "5.0"]


def test_smaller_patches_keep_the_sides_that_the_encoder_takes():
    assert list(patches((16, 224, 256))) == [(16, 224, 256), (16, 160, 192), (16, 96, 128), (16, 32, 64)]


def test_savings_add_up():
    config = dataclasses.replace(TINY, model=ModelConfig(encoder=EncoderConfig(size="large", frozen=False)))
    *_, (words, last) = savings(config)
    assert "tiny" in words
    assert (last.model.dtype, last.model.remat, last.model.encoder.frozen) == ("bfloat16", True, True)


def test_a_cpu_has_the_memory_and_the_cores_of_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    device = jax.devices()[0]
    whole = fitting.free_bytes(device)
    assert whole is not None
    assert 2**28 < whole < 2**46
    group = tmp_path / "job_1/step_0"
    group.mkdir(parents=True)
    (tmp_path / "process").write_text("1:cpu:/elsewhere\n0::/job_1/step_0\n")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_PROCESS", tmp_path / "process")
    for folder, limit in ((group, "max"), (group.parent, str(3 << 20))):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{1 << 20}\n")
        (folder / "memory.stat").write_text("anon 7\ninactive_file 4096\n")
    (group.parent / "cpu.max").write_text("150000 100000\n")
    (group / "cpu.max").write_text("max 100000\n")
    assert fitting.free_bytes(device) == (2 << 20) + 4096
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    assert machine.usable_cores() == 2
    noted: list[str] = []
    lines: list[str] = []
    assert plan(TINY, [device], say=lines.append, note=noted.append)
    assert lines[0].endswith(", 0.0 GiB on each")
    assert noted[0] == "  compiling and timing patches of (2, 64, 64), 1 at once"


def test_limits_of_the_first_version_of_cgroups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A container sees its own group as the root; outside of it the process's is further in."""
    inner = tmp_path / "memory/docker/one"
    inner.mkdir(parents=True)
    (tmp_path / "process").write_text("9:name=systemd:/\n4:cpu,memory:/docker/one\n0::/\n")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_PROCESS", tmp_path / "process")
    for folder, limit in ((tmp_path / "memory", 2**63 - 4096), (inner, 5 << 20)):
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{2 << 20}\n")
        (folder / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 8192\n")
    assert machine.free_memory() == (3 << 20) + 8192
    (tmp_path / "process").write_text("4:memory:/seen/from/the/host\n")
    (tmp_path / "memory/memory.limit_in_bytes").write_text(f"{4 << 20}\n")
    assert machine.free_memory() == (2 << 20) + 8192


# A process of its own, in a group of 700 MiB that the kernel holds it to.
WITHIN = """
import os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
from emsam_jax.storage import free_memory
before, held = free_memory(), bytearray(200 << 20)
held[::4096] = b"x" * len(held[::4096])
print(before, free_memory())
"""


@pytest.mark.slow
def test_a_limit_that_this_machine_sets_counts():
    groups, limit = Path("/sys/fs/cgroup"), "memory.max"
    if (groups / "memory").exists():
        groups, limit = groups / "memory", "memory.limit_in_bytes"
    group = groups / "emsam-test"
    try:
        group.mkdir()
        (group / limit).write_text(str(700 << 20))
    except OSError as error:
        pytest.skip(f"this machine lets nobody here limit memory: {error}")
    try:
        command = [sys.executable, "-c", WITHIN, str(group)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    finally:
        group.rmdir()
    before, after = map(int, done.stdout.split())
    assert 500 << 20 < before < 700 << 20
    assert before - after == pytest.approx(200 << 20, rel=0.1)


def test_a_device_out_of_memory_is_a_row(monkeypatch: pytest.MonkeyPatch):
    """What XLA raises, at an allocation that no machine grants."""
    monkeypatch.setattr(training_plan, "compile_step", lambda *_: jnp.zeros(1 << 45, jnp.uint8).block_until_ready())
    lines: list[str] = []
    assert plan(TINY, jax.devices()[:1], limit=1 << 60, say=lines.append, note=lines.append) is None
    assert sum(line.endswith("-  does not fit") for line in lines) == len(list(patches(TINY.data.patch)))
    assert "Nothing fits." in lines
    assert lines[-1].endswith("does not fit to be compiled")


# A process of its own, whose address space can be limited once jax has started.
TRY = """
import resource
import jax
from emsam_jax.config import Config, DataConfig, EncoderConfig, ModelConfig
from emsam_jax.training import plan
from emsam_jax.training.sharding import make_mesh

mesh = make_mesh(1, jax.devices()[:1])
model = ModelConfig(encoder=EncoderConfig(size="none"), channels=(4,))
jax.numpy.zeros(3).block_until_ready()
(size,) = [int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize")]
resource.setrlimit(resource.RLIMIT_AS, (size + (600 << 20), -1))
for side in (384, 32):
    print(plan._try(Config(model=model, data=DataConfig(patch=(8, side, side))), mesh, 1 << 60).row())
"""


@pytest.mark.slow
def test_a_step_that_runs_out_of_memory_is_a_row_and_smaller_ones_are_tried():
    """Of 600 MiB, which compiling takes less of, where the larger patches would take 1.3 GiB."""
    done = subprocess.run([sys.executable, "-c", TRY], check=True, capture_output=True, text=True, env=environment())
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r" +8 x 384 x 384 +4 +1\.\d\d  does not fit", first)
    assert re.fullmatch(r" +8 x 32 x 32 +4 +0\.\d\d +[\d.]+ +[\d.]+ +[\d.]+", second)


def test_a_workdir_that_cannot_be_made_is_one_sentence(start_run):
    code, _, said = start_run(Path("/proc/nowhere")).end()
    assert code == 1
    assert "/proc/nowhere" in said
    assert " cannot be written" in said
    assert "Traceback" not in said
