"""A certificate authority for one test, and a server's certificate of it, made with openssl."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority's certificate, and the server's key and certificate in one."""

    authority: Path
    server: Path


def make_certificates(folder: Path) -> Certificates:
    """For a server on 127.0.0.1, valid for a day."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command, which makes the certificates, is not installed")
    # From Python 3.13 on, an authority has to say what its key is for.
    authority = _signed(
        folder, "authority", ("basicConstraints=critical,CA:TRUE", "keyUsage=keyCertSign"), ()
    )
    key = ("-CA", str(authority[1]), "-CAkey", str(authority[0]))
    place = ("basicConstraints=CA:FALSE", "subjectAltName=IP:127.0.0.1")
    server = _signed(folder, "server", place, key)
    both = folder / "both.pem"
    both.write_bytes(server[0].read_bytes() + server[1].read_bytes())
    return Certificates(authority[1], both)


def _signed(
    folder: Path, name: str, extensions: tuple[str, ...], by: tuple[str, ...]
) -> tuple[Path, Path]:
    """A new key and its certificate, signed by itself unless an authority is given."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-days", "1", "-subj", f"/CN=stt {name}"]
    subject += [argument for extension in extensions for argument in ("-addext", extension)]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-new", *new, *subject, *files, *by],
        check=True,
        capture_output=True,
    )
    return key, certificate
