"""The listener's certificate where files hold it, and somebody else renews them.

What is read is checked as a whole: files are replaced one after the other, and between the first
and the last of them they do not belong together. When they are looked at is decided elsewhere.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.crypto import chains
from app.crypto.facts import facts
from app.errors import Invalid, Misconfigured

_MAX_BYTES: Final = 256 * 1024  # a chain has a few KiB, a bundle of a hundred CAs two hundred


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate with its chain and its key, and the CA that vouches for it; all PEM."""

    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)
    fingerprint: str
    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """Where certificate and key are, and the CA unless the chain ends with a self-signed one."""

    certificate: Path
    key: Path
    ca: Path | None = None

    def contents(self) -> tuple[bytes, ...]:
        """Read what there is, as it is, to see whether it has changed. Raises Misconfigured."""
        return (
            self._read("certificate", self.certificate),
            self._read("key", self.key),
            b"" if self.ca is None else self._read("CA", self.ca),
        )

    def read(self) -> Pair:
        """Read certificate, key and CA.

        Raises Misconfigured, with the file and what is wrong, unless they belong together.
        """
        certificate_pem, key_pem, bundle = self.contents()
        try:
            ca_pem = self._trusted(certificate_pem, bundle)
            chains.check_pair(certificate_pem, key_pem)
            chains.check_chain(certificate_pem, ca_pem)
            found = facts(certificate_pem)
        except Invalid as error:
            raise self._unusable(error) from error
        return Pair(
            certificate_pem=certificate_pem,
            key_pem=key_pem,
            ca_pem=ca_pem,
            fingerprint=found.fingerprint,
            not_before=found.not_before,
            not_after=found.not_after,
        )

    def read_ca(self) -> bytes:
        """Read what clients have to trust; the key need not be readable. Raises Misconfigured."""
        which, path = ("certificate", self.certificate) if self.ca is None else ("CA", self.ca)
        content = self._read(which, path)
        try:
            return self._trusted(content, content)
        except Invalid as error:
            raise self._unusable(error) from error

    def _trusted(self, certificate_pem: bytes, bundle: bytes) -> bytes:
        return chains.anchor(certificate_pem) if self.ca is None else chains.bare(bundle)

    def _read(self, what: str, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise Misconfigured([f"the {what} file {path}: {error.strerror}"]) from error
        if len(content) > _MAX_BYTES:
            raise Misconfigured([f"the {what} file {path} has more than {_MAX_BYTES} bytes"])
        return content

    def _unusable(self, error: Invalid) -> Misconfigured:
        if error.field == "key":
            return Misconfigured([f"the key file {self.key}: {error.why}"])
        if error.field == "ca" and self.ca is not None:
            return Misconfigured([f"the CA file {self.ca}: {error.why}"])
        more = ": name the file of its CA, GRANTSERVER_TLS_CA_FILE" if error.field == "ca" else ""
        return Misconfigured([f"the certificate file {self.certificate}: {error.why}{more}"])
