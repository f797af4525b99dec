"""What a user's workers are sent is code: nobody else may send it, not even from the same machine."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dask import config
from distributed.security import Security

from emsam_jax.blocks.dask import Tls, open_cluster
from emsam_jax.blocks.dask.security import on_loopback
from emsam_jax.errors import UserError
from tests.blocks.processes import dask_cluster
from tests.programs import PATIENCE, ROOT

ATTACK = """
import asyncio
import sys

from distributed.core import connect
from distributed.security import Security

async def attack(address, security):
    try:
        comm = await connect(address, timeout=2, **security.get_connection_args("client"))
        await comm.write({"op": "identity", "reply": True})
        print("answered", address, await comm.read())
    except Exception as error:
        print("refused", address, type(error).__name__)

for address in sys.argv[1:]:
    asyncio.run(attack(address, Security.temporary()))
    asyncio.run(attack(address.replace("tls://", "tcp://"), Security()))
"""


def test_a_process_without_the_key_is_refused_by_scheduler_worker_and_nanny():
    with open_cluster(workers=1) as client:
        assert client.submit(lambda: 7).result() == 7
        found: Any = client.scheduler_info(n_workers=-1)
        (worker,) = found["workers"].values()
        addresses = [found["address"], worker["nanny"], *found["workers"]]
        assert all(address.startswith("tls://127.0.0.1:") for address in addresses)
        attack = subprocess.run(
            [sys.executable, "-c", ATTACK, *addresses], check=True, capture_output=True, text=True, timeout=PATIENCE
        )
    assert [line.split()[0] for line in attack.stdout.splitlines()] == 6 * ["refused"], attack.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder, made = tmp_path_factory.mktemp("tls"), Security.temporary()
    parts = {"ca": made.tls_ca_file, "cert": made.tls_client_cert, "key": made.tls_client_key}
    for name, content in parts.items():
        (folder / name).write_text(str(content))
    return Tls(*(str(folder / name) for name in Tls._fields))


def test_a_scheduler_with_tls_is_reached_with_its_files_alone(files: Tls, tmp_path: Path):
    flags = f"--tls-ca-file={files.ca} --tls-cert={files.cert} --tls-key={files.key}"
    with dask_cluster(tmp_path, "", every=f"--protocol=tls {flags}") as cluster:
        with open_cluster(cluster.address, tls=files) as client:
            assert client.submit(lambda: 7).result() == 7
            assert config.get("scheduler", None) is None, "what the caller computes by Dask stays where it was"
        for tls in (Tls(), files._replace(ca="")):
            with pytest.raises(UserError, match=r"or tls:// with --tls_ca"), open_cluster(cluster.address, tls=tls):
                pass
    missing = files._replace(key=str(ROOT / "nowhere"))
    with pytest.raises(UserError, match=r"expected a file in PEM at .*nowhere, found none"):
        missing.of_client()


def test_a_dashboard_is_for_this_machine_unless_it_names_a_host():
    asked = {"": "127.0.0.1:0", ":8787": "127.0.0.1:8787", "8787": "127.0.0.1:8787", "0.0.0.0:1": "0.0.0.0:1"}
    assert {address: on_loopback(address) for address in asked} == asked
