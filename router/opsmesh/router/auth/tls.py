"""A connection's half of TLS: whom it trusts, and as whom it shows itself."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from opsmesh.router.errors import AuthError


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files in PEM. `ca` None: who the system trusts. `certificate` None: nobody in particular; its
    key stands in the same file unless `key` names another."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """What to connect with; AuthError when a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(self.ca, error) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.renew(context)
        return context

    def renew(self, context: ssl.SSLContext) -> None:
        """Take up certificates that were exchanged since; what is trusted only grows."""
        try:
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(self.certificate, error) from error
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(self.ca, error) from error

    def fault(self) -> str:
        """What is wrong with our own half, where a server that refuses it only hangs up (TLS 1.3
        tells after the handshake); empty when nothing is seen."""
        if self.certificate is None:
            return "we show no certificate, and the server may ask for one"
        from opsmesh.router.auth import ca  # 0.1 s, once something is wrong

        until = ca.expires(self.certificate)
        if until < datetime.datetime.now(datetime.UTC):
            return f"our certificate {self.certificate} has expired, on {until:%Y-%m-%d}"
        return ""


def _unusable(file: Path | None, error: Exception) -> AuthError:
    return AuthError(f"{file} cannot be used for TLS: {error}", hint="opsmesh doctor")
