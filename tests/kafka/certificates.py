"""Certificates for a test run, made with the `openssl` command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority of its own in `folder`."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """The file that clients trust."""
        return self.folder / "ca.pem"

    def create(self) -> Authority:
        """Make key and certificate."""
        self.folder.mkdir(parents=True)
        extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
        added = [argument for extension in extensions for argument in ("-addext", extension)]
        self._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={self.folder.name}"),
            *(*added, "-keyout", "ca.key", "-out", "ca.pem"),
        )
        return self

    def keystore(self, *names: str) -> Path:
        """A server's key and certificate in one file, for these alternative names (`DNS:localhost`)."""
        (self.folder / "extensions").write_text(f"subjectAltName={','.join(names)}\nextendedKeyUsage=serverAuth\n")
        request = ("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=broker")
        self._openssl(*request, "-keyout", "server.key", "-out", "server.csr")
        signed_by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        self._openssl("x509", "-req", "-in", "server.csr", *signed_by, "-extfile", "extensions", "-out", "server.pem")
        # Kafka reads PKCS#8 only, which older versions of the command do not write by themselves.
        self._openssl("pkcs8", "-topk8", "-nocrypt", "-in", "server.key", "-out", "server.pkcs8")
        keystore = self.folder / "keystore.pem"
        keystore.write_text((self.folder / "server.pkcs8").read_text() + (self.folder / "server.pem").read_text())
        return keystore

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
