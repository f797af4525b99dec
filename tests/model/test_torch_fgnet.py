"""The benchmark's PyTorch network is the one it is compared with, and the benchmark runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsam_jax.config import EncoderConfig, ModelConfig
from emsam_jax.model import abstract_fgnet, flat_state, merge_fgnet

pytestmark = pytest.mark.usefixtures("torch")


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_both_compute_the_same_function(torch, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import torch_fgnet  # type: ignore[reportMissingImports]

    config = ModelConfig(encoder=EncoderConfig(size="toy"), projected=4, channels=(4, 8, 8, 8), norm_groups=2)
    rng = np.random.default_rng(0)

    def draw(*shape: int, mean: float = 0.0) -> np.ndarray:
        return rng.normal(mean, max(np.prod(shape[:-1]), 4) ** -0.5, shape).astype(np.float32)

    leaves = flat_state(abstract_fgnet(config)).items()
    params = {name: jnp.asarray(draw(*leaf.shape, mean=float(leaf.ndim == 1))) for name, leaf in leaves}
    ours = merge_fgnet(config, params, {})
    theirs = torch_fgnet.TorchFGNet(config).eval()
    torch_fgnet.copy_parameters(ours, theirs)
    raw = rng.random((2, 3, 32, 32, 1), dtype=np.float32)
    seen = [4 * draw(2, 3, side, side, 4) for side in (8, 4, 2, 1)]
    maps = jax.jit(lambda model, raw, seen: model.decode(raw, seen))(ours, raw, tuple(map(jnp.asarray, seen)))

    def to_torch(a: np.ndarray) -> Any:
        return torch.from_numpy(np.array(a)).movedim(-1, 1)

    with torch.inference_mode():
        found = theirs.decode(to_torch(raw), [to_torch(f) for f in seen])
        stages = theirs.encode(to_torch(raw))
    assert [tuple(f.shape) for f in stages] == [(2, 4, 3, side, side) for side in (8, 4, 2, 1)]
    for a, b in zip(maps, found, strict=True):
        assert jnp.abs(a).max() > 0.1
        np.testing.assert_allclose(a, b.movedim(1, -1).numpy(), atol=1e-4)


@pytest.mark.slow
def test_benchmark_runs(tmp_path):
    command = [sys.executable, BENCHMARKS / "train_step.py", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((tmp_path / "train_step-cpu.json").read_text())
    (row,) = results["rows"]
    assert row["ratio"] > 0
    assert row["flops"] > 1e6
    assert row["flax_mib"] > 0.1
    assert np.isfinite(row["flax_loss"])
    assert np.isfinite(row["torch_loss"])
