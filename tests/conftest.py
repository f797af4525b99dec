"""Eight CPU devices, quickly compiled code, no silent broadcasting between ranks, and a limit of memory.

pyproject.toml adds warnings as errors and checked axes.
"""

import ctypes
import gc
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
# What computes few voxels need not be fast: compiling it would take most of the tests' time.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=8"

import h5py
import jax
import numpy as np
import pytest

from tests.sharing.hub import Hub

jax.config.update("jax_numpy_rank_promotion", "raise")

# GiB, of a test process: 1.7 to 2.0 were measured; where slow tests run, PyTorch's models stand beside ours.
_MOST_MEMORY = {"not slow": 2.2}
_REAL_DATA = Path(os.environ.get("EMSAM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of compiled programs for this process and those that its tests run."""
    folder = tmp_path_factory.mktemp("compiled")
    settings = {"jax_compilation_cache_dir": str(folder), "jax_persistent_cache_min_compile_time_secs": "0.3"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name.upper(), value)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
        yield folder


@pytest.fixture(scope="module", autouse=True)
def _forget_what_was_compiled() -> Iterator[None]:
    """After each file: jax would keep every program, gigabytes of them."""
    yield
    jax.clear_caches()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _peak() -> float:
    """GiB, of this process or the largest of those that it started."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:"))
    return max(int(line.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 2**20


def _limit(config: pytest.Config) -> float:
    return _MOST_MEMORY.get(str(config.getoption("markexpr")), 4.0)


_peaks: dict[str, float] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """In the process that leads the workers, when one of them ends."""
    _peaks[node.gateway.id] = getattr(node, "workeroutput", {}).get("peak", 0.0)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["peak"] = _peak()
        return
    _peaks.setdefault("this process", _peak())
    if max(_peaks.values()) > _limit(session.config) and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    told = ", ".join(f"{peak:.1f} GiB in {name}" for name, peak in sorted(_peaks.items()))
    above = max(_peaks.values(), default=0.0) > _limit(config)
    terminalreporter.write_line(f"Largest test processes: {told}; at most {_limit(config):g} GiB", red=above)


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch, with sam2 beside it, which only the processes hold whose tests use it."""
    pytest.importorskip("sam2", reason="sam2 is not installed (the [convert] extra)")
    return pytest.importorskip("torch", reason="torch is not installed (the [convert] extra)")


@pytest.fixture(scope="module")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory, torch: ModuleType):
    """(size, version) -> the official PyTorch model, with random weights, and the file that holds it."""
    from emsam_jax.porting import parity

    made: dict[tuple[str, str], tuple[Any, Path]] = {}

    def make(size: str, version: str = "sam2.1") -> tuple[Any, Path]:
        if (size, version) not in made:
            torch.manual_seed(len(made))
            model = parity.build_official(size, version, whole=True)
            path = tmp_path_factory.mktemp("official") / f"{version}_hiera_{size}.pt"
            torch.save({"model": model.state_dict()}, path)
            made[size, version] = model, path
        return made[size, version]

    return make


@pytest.fixture(scope="module")
def tiny(make_checkpoint) -> tuple[Any, Path]:
    return make_checkpoint("tiny")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, which huggingface_hub takes for its server, with an empty cache."""
    import huggingface_hub.constants

    with Hub() as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # large files by HTTP, as this hub
        monkeypatch.setenv("HF_TOKEN", "a token")
        yield hub


@pytest.fixture(scope="session")
def fib25_folder() -> Path:
    """The folder of FIB-25, which is not part of the repository."""
    if not (_REAL_DATA / "fib25_training2.h5").exists():
        pytest.skip(f"needs FIB-25: {_REAL_DATA} has no fib25_training2.h5 (EMSAM_DATA names its folder)")
    return _REAL_DATA


@pytest.fixture(scope="session")
def read_fib25(fib25_folder: Path) -> Callable[..., np.ndarray]:
    """Reads sections 150-249 of a volume of FIB-25, the part to report on."""

    def read(name: str = "labels", file: str = "fib25_training2.h5") -> np.ndarray:
        with h5py.File(fib25_folder / file) as volumes:
            return volumes[name][150:]  # type: ignore[reportIndexIssue]

    return read
