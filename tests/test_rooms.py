"""Who imports whom: the rooms' order is the order in which data flows, and what must not need jax does not."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "emsam_jax"
_FLOW = ("volumes", "data", "model", "blocks", "inference", "segmentation", "scores", "view")
MAY_IMPORT = {
    "config": {"volumes", "data", "model"},
    "config_file": {"config", "config_limits"},
    "config_limits": set(),
    "volumes": set(),
    "data": {"volumes"},
    "model": {"config", "config_file"},
    "blocks": {"volumes"},
    "ingest": {"volumes", "blocks"},
    "inference": {"config", "config_file", "model", "blocks", "volumes"},
    "segmentation": {"volumes", "blocks"},
    "scores": {"volumes", "blocks"},
    "view": {"volumes", "scores"},
    "training": {"config", "config_file", *_FLOW, "evaluation"},
    "evaluation": {"config", "config_file", *_FLOW},
    "configs": {"config", *_FLOW},
    "porting": {"model"},
    "reconstruction": {"config", "config_file", *_FLOW},
    "demo": {"configs", "evaluation", "volumes"},
}
COMMANDS = {"volumes/ingest.py": {"ingest", "blocks"}}  # of which nothing is imported by its room
WITHOUT_JAX = {"volumes", "blocks", "ingest", "segmentation", "scores", "view"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")


def imported(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_imports_follow_the_flow(module: Path):
    room = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = imported(module)
    rooms = {name.split(".")[1] for name in names if name.startswith("emsam_jax.")}
    assert rooms - {room} <= MAY_IMPORT[room] | COMMANDS.get(str(module.relative_to(PACKAGE)), set())
    assert "emsam_jax.volumes.ingest" not in {name.rpartition(".")[0] for name in names} | names
    libraries = {name.split(".")[0] for name in names}
    assert room == "porting" or not libraries & {"torch", "sam2"}
    if room in WITHOUT_JAX:
        assert not libraries & {"jax", "flax", "optax", "orbax", "grain"}


def test_files_stay_small():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
