"""A small certificate authority, so that hosts know each other: TLS 1.3, ECDSA P-256, both ways.

    auth/ca/ca.pem       who is trusted: the newest authority first, and the one before it
    auth/ca/ca.key       the newest one's key (0600)
    auth/ca/server.pem   the server's certificate and key (0600)

The one rule: a new authority is trusted everywhere before anything is signed with it, and the old
one until everything has been signed anew; then nothing is ever cut off.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from opsmesh.router import files
from opsmesh.router.auth.tls import Tls
from opsmesh.router.errors import AuthError

#: Days that an authority and a certificate are valid.
CA_DAYS, DAYS = 3650, 825
#: Days before its end from which a certificate is said to be about to expire.
SOON: Final = 30
#: A certificate begins so long before now: clocks of hosts differ.
_EARLIER: Final = datetime.timedelta(hours=1)
_PEM: Final = serialization.Encoding.PEM


class Authority:
    """The `ca` folder of an `auth` folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = folder / "ca.pem"
        self.server = folder / "server.pem"
        self._key = folder / "ca.key"

    @property
    def exists(self) -> bool:
        """Whether there is an authority."""
        return self._key.exists()

    def create(self, name: str) -> None:
        """Make one; an authority that is there becomes the one before, and stays trusted."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(f"{name} opsmesh CA")
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(subject, subject, key.public_key(), days=CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(own, critical=False)
            .sign(key, hashes.SHA256())
        )
        before = self._trusted()[:1]
        pem = b"".join(one.public_bytes(_PEM) for one in (certificate, *before))
        # trusted first: a key whose authority nobody trusts signs what nobody takes
        files.write_private(self.bundle, pem)
        files.write_private(self._key, _private(key))

    def retire(self) -> None:
        """Trust the newest authority alone."""
        files.write_private(self.bundle, self._trusted()[0].public_bytes(_PEM))

    def certificate(self, name: str, *, addresses: Iterable[str] = (), days: int = DAYS) -> bytes:
        """A new certificate for `name` and its key, in PEM. `addresses` (host names, IP addresses)
        are what a server is reached at; without any it is a client's. AuthError without a CA."""
        if not self.exists:
            raise AuthError(f"no certificate authority in {self.folder}", hint="opsmesh auth ca")
        signer = serialization.load_pem_private_key(self._key.read_bytes(), None)
        issuer = self._trusted()[0]
        assert isinstance(signer, ec.EllipticCurvePrivateKey)  # noqa: S101 (we made it)
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        alternative = [_alternative(one) for one in addresses]
        if alternative:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = (
            _builder(_name(name), issuer.subject, key.public_key(), days=days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(authority, critical=False)
        )
        names = alternative or [x509.DNSName(name)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256()).public_bytes(_PEM) + _private(key)

    def signed(self, pem: Path) -> bool:
        """Whether the first certificate of a file is one of the newest authority's."""
        try:
            found = x509.load_pem_x509_certificate(pem.read_bytes())
            found.verify_directly_issued_by(self._trusted()[0])
        except (OSError, ValueError, TypeError, IndexError, InvalidSignature):
            return False
        return True

    def issue_server(self, name: str, addresses: Iterable[str]) -> None:
        """Give the server a certificate, or a new one."""
        files.write_private(self.server, self.certificate(name, addresses=addresses))

    def server_block(self) -> dict[str, object]:
        """What the server's file says of TLS, for clients, leaf nodes and routes alike: each side
        shows a certificate of ours."""
        return {
            "cert_file": str(self.server),
            "key_file": str(self.server),
            "ca_file": str(self.bundle),
            "verify": True,
            "min_version": "1.3",
            "timeout": 5,
        }

    def client(self, certificate: Path) -> Tls:
        """How a host with this certificate connects."""
        return Tls(ca=self.bundle, certificate=certificate)

    def _trusted(self) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(self.bundle.read_bytes())
        except FileNotFoundError:
            return []


def expires(pem: Path) -> datetime.datetime:
    """Until when the first certificate of a file is valid; AuthError when it holds none."""
    try:
        found = x509.load_pem_x509_certificate(pem.read_bytes())
    except (OSError, ValueError) as error:
        raise AuthError(
            f"{pem}: no certificate: {error}", hint="opsmesh auth ca --renew"
        ) from error
    return found.not_valid_after_utc


def names(pem: Path) -> list[str]:
    """What the first certificate of a file is for: its host names and addresses."""
    found = x509.load_pem_x509_certificate(pem.read_bytes())
    extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one.value) for one in extension]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
