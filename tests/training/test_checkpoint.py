"""What is kept of a run, what it can resume from, and what a trained model is read from."""

import json
import random
import shutil

import jax
import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.inference import checksum_of_facts, load_trained, read_step_facts
from emsam_jax.inference.trained import read_item
from emsam_jax.model import read_arrays, read_params
from emsam_jax.training import sharding
from emsam_jax.training.checkpoint import Checkpoints
from emsam_jax.training.loop import train
from emsam_jax.training.sharding import gather, make_mesh
from emsam_jax.training.state import new_state

MEASURED = {"voxel_size_zyx": [40, 8, 8], "ranges": [], "positives": [], "prior": [], "parts": []}
# Orbax closes its event loop at the first array that fails, while TensorStore goes on to tell it of others.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
OVERRIDES = ("model.encoder.size=toy", "model.encoder.weights=random", "optim.steps=2", "checkpoint.every=1")


@pytest.fixture(scope="module")
def trained_run(make_config, tmp_path_factory):
    """Two steps with a frozen encoder, of which both are kept."""
    workdir = tmp_path_factory.mktemp("frozen") / "run"
    train(make_config(*OVERRIDES), workdir, jax.devices()[:1])
    return workdir


@pytest.fixture
def run(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "run")


def validate(workdir, step: int, score: float) -> None:
    (workdir / f"checkpoints/{step}/postprocess.json").write_text(json.dumps({"chosen": {"score": score}}))


def forge(folder, **changed) -> None:
    """Facts that are whole, but say something else."""
    facts = {**read_step_facts(folder), **changed}
    (folder / "facts/metadata").write_text(json.dumps({**facts, "checksum": checksum_of_facts(facts)}))


def turn_bits(folder) -> None:
    """One in the middle of each larger file: some of Orbax's files are copies that nothing reads."""
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size > 200:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)


def kept(workdir) -> list[int]:
    return sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir())


def test_the_newest_and_the_best_are_kept(make_config, tmp_path):
    """Also where validation gets worse and worse."""
    config = make_config("checkpoint.keep=2")
    mesh = make_mesh(1, jax.devices()[:1])
    state, _ = new_state(config, mesh)
    with Checkpoints(tmp_path, config) as checkpoints:
        for step, score in enumerate([3.0, 1.0, 2.0, 4.0, 5.0, 6.0], 1):
            checkpoints.save(step, state)
            checkpoints.wait()
            if step != 4:
                validate(tmp_path, step, score)
        assert kept(tmp_path) == [2, 5, 6]
        checkpoints.best.awaited.add(5)  # its validation is under way
        checkpoints.save(7, state)
        checkpoints.save(8, state)
        checkpoints.save(9, state)
    assert kept(tmp_path) == [2, 5, 8, 9]
    assert checkpoints.newest() == 9
    assert load_trained(tmp_path).step == 2


def test_a_run_is_read_by_its_best_step_or_else_its_newest(run):
    assert load_trained(run).step == 2
    assert load_trained(run).recipe is None
    validate(run, 1, 0.5)
    validate(run, 2, 0.7)
    best = load_trained(run)
    assert (best.step, best.recipe) == (1, run / "checkpoints/1/postprocess.json")
    assert best.measured.voxel_size_zyx == (40.0, 8.0, 8.0)
    trained = load_trained(run / "checkpoints/2")
    assert trained.step == 2
    ema = read_arrays(run / "checkpoints/2/ema")
    params = read_arrays(run / "checkpoints/2/params")
    name = "refined_decoder.logits.kernel"
    np.testing.assert_array_equal(trained.model.network.refined_decoder.logits.kernel[...], ema[name])
    assert not np.array_equal(ema[name], params[name])


def test_steps_that_were_cut_short_are_never_taken(run):
    (run / "checkpoints/2").rename(run / "checkpoints/2.orbax-checkpoint-tmp")
    assert load_trained(run).step == 1
    shutil.rmtree(run / "checkpoints/1")
    with pytest.raises(UserError, match="but it holds no finished checkpoint"):
        load_trained(run)
    with pytest.raises(UserError, match="but there is no such folder"):
        load_trained(run / "nowhere")


def test_the_frozen_encoder_is_checked(run):
    facts = read_step_facts(run / "checkpoints/2")
    assert facts["encoder"] == json.loads((run / "encoder/encoder.json").read_text())["hash"]
    forge(run / "checkpoints/2", encoder="0" * 64)
    with pytest.raises(UserError, match="expected the image encoder that this run was trained with"):
        load_trained(run)
    (run / "encoder").rename(run / "elsewhere")
    with pytest.raises(UserError, match="expected the frozen image encoder of this run there, found none"):
        load_trained(run)
    (run / "elsewhere").rename(run / "checkpoints/1/encoder")  # a step that was copied by itself
    assert load_trained(run / "checkpoints/1").step == 1


def test_damage_never_loads_as_other_numbers(run, make_config):
    """Single flipped bits, and files cut short, emptied or deleted, of what a model is read from."""
    draw = random.Random(0)
    step = run / "checkpoints/2"
    expected = {name: value.tobytes() for name, value in read_item(step, "ema", read_step_facts(step)).items()}
    files = [path for path in (step / "ema").rglob("*") if path.is_file()]
    files += [step / "facts/metadata"] * 3
    refused = 0
    for trial in range(60):
        path = draw.choice(files)
        content = path.read_bytes()
        kind = draw.choice(("flip", "flip", "flip", "cut", "empty", "delete"))
        if kind == "flip":
            bit = draw.randrange(8 * len(content))
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
        elif kind == "delete":
            path.unlink()
        else:
            path.write_bytes(content[: draw.randrange(len(content)) if kind == "cut" else 0])
        found, said = {}, ""
        try:
            found = read_item(step, "ema", read_step_facts(step))
        except UserError as error:
            said = str(error)
        if said:
            refused += 1
            assert "\n" not in said, (trial, kind, path)
            assert str(step) in said
            assert said.endswith(f"take another step, such as {run}/checkpoints/1, or remove this one.")
        else:
            assert {name: value.tobytes() for name, value in found.items()} == expected, (trial, kind, path)
        path.write_bytes(content)
    assert refused > 20


def test_damage_stops_a_run_that_would_resume(run, make_config):
    turn_bits(run / "checkpoints/2/optimizer")
    with pytest.raises(UserError, match=r"checkpoints/2.*damaged"):
        train(make_config(*OVERRIDES), run, jax.devices()[:1])
    turn_bits(run / "encoder/params")
    with pytest.raises(UserError, match="damaged"):
        read_params(run / "encoder")


@pytest.mark.parametrize(
    "changed",
    [
        {"step": "/../../../../somewhere/X"},
        {"step": -1},
        {"step": True},
        {"measured": MEASURED | {"voxel_size_zyx": [40, 0, 4]}},
        {"measured": MEASURED | {"voxel_size_zyx": [40, float("nan"), 4]}},
        {"measured": MEASURED | {"voxel_size_zyx": "abc"}},
        {"measured": MEASURED | {"prior": ["x"]}},
        {"measured": MEASURED | {"parts": [{"role": "training"}]}},
        {"encoder": 3},
        {"checksums": {}},
        {"config": []},
        {"config": {"predict": {"stride": [0, 0, 0]}}},
        {"config": {"model": {"channels": ["x"]}}},
    ],
    ids=str,
)
def test_what_a_strangers_checkpoint_says_is_checked(run, changed):
    forge(run / "checkpoints/2", **changed)
    with pytest.raises(UserError, match="checkpoints/2: ") as caught:
        load_trained(run)
    assert "\n" not in str(caught.value)


def test_another_versions_checkpoint_is_not_called_damaged(run):
    folder = run / "checkpoints/2"
    config = read_step_facts(folder)["config"]
    forge(folder, config={**config, "field_of_then": 1})
    with pytest.raises(
        UserError, match=r"no field 'field_of_then'.*: another version .* wrote it, so train again; take"
    ):
        load_trained(run)
    for fact in ("checksum", "checksums"):
        path = folder / "facts/metadata"
        facts = json.loads(path.read_text())
        del facts[fact]
        path.write_text(json.dumps(facts))
        with pytest.raises(
            UserError, match=f"expected `{fact}` among its facts, found none: another version .* wrote it"
        ):
            load_trained(run)


def test_frozen_is_frozen(make_config, run):
    """Its bytes are those it began with, and no step's checkpoint holds any of it."""
    _, frozen = new_state(make_config(*OVERRIDES), make_mesh(1, jax.devices()[:1]))
    written = read_arrays(run / "encoder/params")
    assert len(frozen) == len(written) > 50
    for name, value in frozen.items():
        assert written[name.removeprefix("encoder.")].tobytes() == np.asarray(value).tobytes()
    for item in ("params", "ema", "optimizer"):
        assert not [name for name in read_arrays(run / "checkpoints/2" / item) if "encoder.trunk" in name]


def test_it_goes_on_on_other_devices(make_config, run, monkeypatch):
    monkeypatch.setattr(sharding, "SHARD_FROM", 2**12)  # the model is small
    config = make_config(*OVERRIDES, "fsdp=4", "optim.accumulate=1", "log.every=7")
    with Checkpoints(run, config) as checkpoints:
        state, frozen = checkpoints.restore(2, make_mesh(4, jax.devices()))
    assert int(state.step) == 2
    for item, values in (("params", state.params), ("ema", state.ema)):
        expected = read_arrays(run / "checkpoints/2" / item)
        for name, value in gather(values).items():
            assert value.tobytes() == expected[name].tobytes()
    assert max(len(leaf.sharding.device_set) for leaf in jax.tree.leaves((state, frozen))) == 8
    largest = max(frozen.values(), key=lambda leaf: leaf.size)
    assert largest.addressable_shards[0].data.size * 4 == largest.size


def test_another_config_is_refused(make_config, run):
    config = make_config(
        *OVERRIDES, "optim.peak_lr=0.5", "data.augmentation.slip=0", "log.every=3", "checkpoint.keep=9"
    )
    with pytest.raises(UserError) as caught:
        train(config, run, jax.devices()[:1])
    assert (
        "config.data.augmentation.slip was 0.2 and is now 0.0; config.optim.peak_lr was 0.001 and is now 0.5."
        in str(caught.value)
    )


def test_other_training_data_are_refused(make_config, run, tmp_path):
    """As small a change as 16 voxels along each axis, anywhere that is looked at."""
    config = make_config(*OVERRIDES, "optim.steps=3")
    labels = np.load(config.data.train[0].labels)
    kept = labels.copy()
    labels[2:8, 40:56, 40:56] = 0
    np.save(config.data.train[0].labels, labels)
    try:
        with pytest.raises(UserError, match=r"config\.data\.train\[0\] .*: expected the voxels and labels that"):
            train(config, run, jax.devices()[:1])
    finally:
        np.save(config.data.train[0].labels, kept)
    with pytest.raises(UserError, match=r"config\.optim\.steps was 2 and is now 1\."):
        train(make_config(*OVERRIDES, "optim.steps=1"), run, jax.devices()[:1])


def test_fine_tuning_starts_from_the_frozen_run(make_config, run, tmp_path):
    overrides = (
        "model.encoder.size=toy",
        "model.encoder.frozen=false",
        f"init_from={run}",
        "model.encoder.drop_path=0.1",
    )
    state, frozen = new_state(make_config(*overrides), make_mesh(1, jax.devices()[:1]))
    assert not frozen
    expected = {
        **read_arrays(run / "checkpoints/2/ema"),
        **{f"encoder.{name}": value for name, value in read_arrays(run / "encoder/params").items()},
    }
    assert state.params.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(state.params[name]), value)
        np.testing.assert_array_equal(np.asarray(state.ema[name]), value)
    with pytest.raises(UserError, match=r"parameters do not fit config\.model, such as .*expected shape"):
        new_state(make_config(*overrides, "model.projected=16"), make_mesh(1, jax.devices()[:1]))
