"""Restricts who may talk to the workers: what they are sent is code, which they run as the user who started them."""

import os
from pathlib import Path
from typing import NamedTuple

from distributed.security import Security

from emsam_jax.errors import UserError

_PARTS = ("cert", "key")


class Tls(NamedTuple):
    """Files in PEM, for a scheduler at tls://; empty: as Dask's own configuration says."""

    ca: str = ""  # the authority that signed the scheduler's certificate
    cert: str = ""  # ours
    key: str = ""  # ours, unless it is in the certificate's file

    def of_client(self) -> Security | None:
        named = {"tls_ca_file": self.ca, "tls_client_cert": self.cert, "tls_client_key": self.key}
        for path in filter(None, self):
            if not Path(path).is_file():
                raise UserError(f"TLS: expected a file in PEM at {path}, found none; name another.")
        given = {name: path for name, path in named.items() if path}
        return Security(require_encryption=True, **given) if given else None


def of_our_own() -> Security:
    """Makes certificates for the scheduler and workers of one run: clients without its key are refused."""
    try:
        return Security.temporary()
    except ImportError:
        raise UserError("Workers are kept from other users by TLS, which needs cryptography: install it.") from None


def in_files(security: Security, folder: Path) -> Security:
    """Writes those certificates to files of this user alone, for workers on machines that share the folder."""
    paths = {}
    for name in (
        "tls_ca_file",
        *(f"tls_{role}_{part}" for role in ("client", "scheduler", "worker") for part in _PARTS),
    ):
        paths[name] = str(folder / f"{name}.pem")
        with os.fdopen(os.open(paths[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(getattr(security, name))
    return Security(require_encryption=True, **paths)


def on_loopback(dashboard: str) -> str:
    """Returns the address with the loopback host where it names none."""
    host, colon, port = dashboard.rpartition(":")
    return dashboard if host else f"127.0.0.1:{port}" if colon or port else "127.0.0.1:0"
