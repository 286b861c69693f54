"""Certificates for a test run."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def key_pem(self, password: str | None = None) -> str:
        """The key as PKCS#8, which is what Kafka reads, and encrypted if there is a password."""
        cipher = (
            serialization.NoEncryption()
            if password is None
            else serialization.BestAvailableEncryption(password.encode())
        )
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, cipher).decode()

    def certificate_pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def pkcs12(self, password: str) -> bytes:
        cipher = serialization.BestAvailableEncryption(password.encode())
        return pkcs12.serialize_key_and_certificates(b"client", self.key, self.certificate, None, cipher)


@dataclass(frozen=True)
class Authority:
    """A certificate authority of its own, whose files are in `folder`."""

    folder: Path
    identity: Identity = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(self.folder.name)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        certificate = (
            _begun(name, name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        object.__setattr__(self, "identity", Identity(key, certificate))
        self.certificate.write_text(self.identity.certificate_pem())

    @property
    def certificate(self) -> Path:
        """The file that whoever trusts this authority reads."""
        return self.folder / "ca.pem"

    def sign(self, common_name: str, names: Sequence[str] = (), *, is_expired: bool = False) -> Identity:
        """A key with a certificate for a server or client; `names` are hosts, or addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        ended = _DAY if is_expired else -_DAY
        builder = _begun(_name(common_name), self.identity.certificate.subject, key, until=_now() - ended)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), False)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        # Without the two identifiers Python's strict check of chains refuses it.
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.identity.key.public_key())
        builder = builder.add_extension(usage, critical=False).add_extension(signer, critical=False)
        return Identity(key, builder.sign(self.identity.key, hashes.SHA256()))

    def keystore(self, common_name: str, names: Sequence[str] = (), *, is_expired: bool = False) -> Path:
        """A new key and its certificate in one PEM file, named after it."""
        identity = self.sign(common_name, names, is_expired=is_expired)
        keystore = self.folder / f"{common_name}.pem"
        keystore.write_text(identity.key_pem() + identity.certificate_pem())
        return keystore


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime.datetime | None = None
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - 3 * _DAY)
        .not_valid_after(until or _now() + _DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
