"""A model that is pushed and pulled is the same model, and whatever goes wrong on the way is one sentence."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import jax
import numpy as np
import pytest

import emsam_jax
from emsam_jax.errors import UserError
from emsam_jax.inference import MODEL_FILES, load_trained
from emsam_jax.sharing.model_card import Said
from emsam_jax.sharing.push import PushRequest, push
from tests.sharing.conftest import RAW, RECIPE
from tests.sharing.hub import Hub, Repo

NAME = "hf:lab/small"
PARAMS = MODEL_FILES[0]


def values_of(path: str | Path) -> list[np.ndarray]:
    """Of all that predicting computes with."""
    return list(map(np.asarray, jax.tree.leaves(load_trained(path).model)))


@pytest.fixture(scope="module")
def folder(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the pushed run."""
    return Path(push(PushRequest(str(run_folder), str(tmp_path_factory.mktemp("models") / "small"))))


@pytest.fixture
def pushed(hub: Hub, folder: Path) -> Hub:
    """A hub that has it."""
    hub.repos["lab/small"] = Repo()
    hub.repos["lab/small"].commit(
        "main", {name: (folder / name).read_bytes() for name in MODEL_FILES if (folder / name).exists()}
    )
    return hub


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own use of its client
def test_what_was_pushed_is_the_run_bit_by_bit(run_folder, hub):
    where = push(PushRequest(str(run_folder), f"{NAME}@trial", said=Said(license="apache-2.0")))
    assert where == f"{NAME}@{hub.repos['lab/small'].branches['trial']}"
    assert not hub.repos["lab/small"].commits[hub.repos["lab/small"].branches["main"]]
    model = emsam_jax.load(f"{NAME}@trial")
    assert model.recipe == RECIPE
    np.testing.assert_array_equal(model.predict(RAW, progress=False), emsam_jax.load(run_folder).predict(RAW))
    for one, other in zip(values_of(where), values_of(run_folder), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_second_use_comes_from_the_cache_also_without_the_hub(pushed, monkeypatch):
    first = values_of(NAME)
    assert sorted(pushed.downloads) == sorted(
        pushed.repos["lab/small"].commits[pushed.repos["lab/small"].branches["main"]]
    )
    pushed.downloads.clear()
    values_of(NAME)
    pushed.repos.clear()
    pushed.shutdown()
    pushed.server_close()
    values_of(NAME)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert all(map(np.array_equal, values_of(NAME), first))
    assert not pushed.downloads
    with pytest.raises(
        UserError, match=r"^hf:lab/small@v9: not all of it is in the cache, .* \(HF_HUB_OFFLINE is set\)"
    ):
        load_trained(f"{NAME}@v9")


def test_a_broken_download_resumes(pushed):
    pushed.cuts = [1000]
    values_of(NAME)
    assert pushed.downloads.count(PARAMS) == 2


def gate(hub: Hub) -> None:
    hub.repos["lab/small"].gated = True


def cut_short(hub: Hub) -> None:
    hub.served[PARAMS] = content_of(hub)[:-100]


def flip_a_bit(hub: Hub) -> None:
    hub.served[PARAMS] = damaged(hub)


def content_of(hub: Hub) -> bytes:
    repo = hub.repos["lab/small"]
    return repo.commits[repo.branches["main"]][PARAMS]


def damaged(hub: Hub) -> bytes:
    return content_of(hub)[:-1] + bytes([content_of(hub)[-1] ^ 1])


def without_params(hub: Hub) -> None:
    repo = hub.repos["lab/small"]
    repo.commit("main", {name: value for name, value in repo.commits[repo.branches["main"]].items() if name != PARAMS})


def other_params(hub: Hub) -> None:
    """Another model's, whole as they are."""
    repo = hub.repos["lab/small"]
    repo.commit("main", repo.commits[repo.branches["main"]] | {PARAMS: damaged(hub)})


def go_away(hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()


@pytest.mark.parametrize(
    ("harm", "name", "said"),
    [
        (None, "hf:lab/other", r"hf:lab/other: found no such repository at http://\S+; correct the name, or, if"),
        (None, f"{NAME}@v9", "hf:lab/small: expected a branch, tag or commit as revision, found none .* called v9"),
        (None, "hf:small", "hf:small: expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION, found another form"),
        (gate, NAME, r"hf:lab/small is gated: ask for access at http://\S+/lab/small, then log in with"),
        (
            cut_short,
            NAME,
            r"hf:lab/small: a file ended early and was not kept \(.*; the same command downloads it again",
        ),
        (
            flip_a_bit,
            NAME,
            r"hf:lab/small: expected model.safetensors with the hash \w{64}, found \w{64}: it is damaged",
        ),
        (
            other_params,
            NAME,
            r"model.safetensors: expected the parameters that config.json names, with the SHA-256 \w+",
        ),
        (without_params, NAME, "model.safetensors: expected the model's parameters, found none"),
        (go_away, NAME, r"hf:lab/small: not all of it is in the cache, and http://\S+ cannot be asked \(.*refused"),
    ],
)
def test_whatever_goes_wrong_is_a_sentence_and_nothing_bad_stays(
    harm: Callable[[Hub], None] | None, name: str, said: str, pushed: Hub
):
    if harm:
        harm(pushed)
    with pytest.raises(UserError, match=said) as raised:
        load_trained(name)
    assert "\n" not in str(raised.value)
    if pushed.served:
        pushed.served.clear()
        assert load_trained(name).step == 3
