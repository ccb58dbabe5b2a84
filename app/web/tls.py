"""The TLS side of a listener: TLS 1.3 only, nothing remembered between two connections.

What is in the certificate, and when another takes its place, is decided elsewhere.
"""

import contextlib
import os
import ssl

from app.crypto.certificates import load_certificates
from app.crypto.keys import load_private_key, to_pem
from app.errors import Invalid

_EXPLAINED = frozenset(
    {"UNSUPPORTED_PROTOCOL", "NO_SHARED_CIPHER", "NO_SUITABLE_KEY_SHARE", "NO_SHARED_GROUP"}
)
"""Failures of a peer that speaks TLS, but not ours: it deserves to be told why."""


def server_context(
    certificate_pem: bytes, key_pem: bytes, *, client_ca_pem: bytes | None = None
) -> ssl.SSLContext:
    """Make the context that a listener shakes hands with; another certificate takes another one.

    `certificate_pem` is the server's certificate, then its intermediates; `key_pem` its key.
    TLS 1.3 only, no ALPN, and no client certificate, unless `client_ca_pem` says whose may be
    shown. Every client connects once and is served once, so session tickets would be pure cost: a
    fifth of the handshakes per second.

    Raises Invalid("certificate") or Invalid("key") when they cannot be used together, and
    Invalid("client_ca") for what is no CA's certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.sslobject_class = _Handshake
    load_certificates(certificate_pem)
    _load_chain(context, certificate_pem.rstrip() + b"\n" + to_pem(load_private_key(key_pem)))
    if client_ca_pem is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(cadata=client_ca_pem.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise Invalid("client_ca", "it holds no certificate in PEM") from error
    return context


def rehearse(certificate_pem: bytes, key_pem: bytes, ca_pem: bytes, host: str) -> None:
    """Shake hands with ourselves as a client does that trusts `ca_pem` and dials `host`.

    So dates, usages, path lengths, strength and name are judged by what judges them in earnest.
    With an empty `host` the name is not looked at. Raises Invalid("certificate", "key" or "ca", …)
    when such a client would not go on.
    """
    server = server_context(certificate_pem, key_pem)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    client.check_hostname = bool(host)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a client may trust an intermediate alone
    try:
        client.load_verify_locations(cadata=ca_pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise Invalid("ca", "OpenSSL cannot read it") from error
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        theirs = client.wrap_bio(to_client, to_server, server_hostname=host or None)
    except ValueError as error:  # the name of a host that cannot be
        raise Invalid("certificate", f"no client can ask for the host {host}") from error
    try:
        for side in (theirs, ours):  # the client's hello, and all that the server says
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
        theirs.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise Invalid("certificate", f"clients refuse it: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise Invalid("certificate", f"clients refuse it ({error.reason})") from error


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Give OpenSSL the file that it insists on, in memory: the key is never on a disk.

    It also works where no directory can be written, as in a locked-down container.
    """
    descriptor = os.memfd_create("tls")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
    except ssl.SSLError as error:
        raise Invalid("certificate", _why(error)) from error
    finally:
        os.close(descriptor)


def _why(error: ssl.SSLError) -> str:
    if error.reason in (None, "KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
        return "the first certificate and the key must belong together"
    return f"OpenSSL does not serve with it ({error.reason})"  # a weak key or signature, say


def _no_password() -> bytes:
    """Answer for OpenSSL, which would ask at the terminal if the key were encrypted."""
    return b""


class _Handshake(ssl.SSLObject):
    """A connection's TLS state that tells a client with which it cannot talk why.

    uvloop drops a connection whose handshake failed without sending the alert that OpenSSL
    has ready (RFC 8446, section 6.2). Asking for more input first makes it send the alert;
    the client then hangs up, or the time limit of the handshake ends it.
    """

    _explained = False

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as error:
            if error.reason in _EXPLAINED and not self._explained:
                self._explained = True
                raise ssl.SSLWantReadError from error
            raise
