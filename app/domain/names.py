"""What may be the name of a thing, and how a subject becomes a certificate's common name."""

import hashlib
import re
from typing import Final

from app.errors import Invalid, Reason, Refused

_LONGEST_NAME: Final = 253
_LONGEST_LABEL: Final = 63
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LABEL_ALONE = re.compile(_LABEL)
_HOST_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label is not all digits, else it could be a mistyped IPv4 address.
_HOST_NAME = re.compile(rf"(?:{_HOST_LABEL}\.)*(?![0-9]+\Z){_HOST_LABEL}")

_LONGEST_COMMON_NAME: Final = 64  # RFC 5280, appendix A.1: ub-common-name
_KEPT_OF_LONG_SUBJECT: Final = 31
_LONGEST_SUBJECT: Final = 253


def is_object_name(name: str) -> bool:
    """Tell whether Kubernetes could store an object of this name (an RFC 1123 subdomain)."""
    return len(name) <= _LONGEST_NAME and _SUBDOMAIN.fullmatch(name) is not None


def is_host_name(name: str) -> bool:
    """Tell whether a certificate can name a host so: RFC 1123, section 2.1, in lower case.

    Stricter than what a resolver takes: an underscore is refused by those who verify.
    """
    return len(name) <= _LONGEST_NAME and _HOST_NAME.fullmatch(name) is not None


def check_name(field: str, name: str) -> None:
    """Raise Invalid(field, …) unless `name` is an RFC 1123 label: our own things are named so.

    Stricter than what a claim may send: system sites accept labels only, and a label fits
    into a path, a file name and a host name alike.
    """
    if len(name) > _LONGEST_LABEL or _LABEL_ALONE.fullmatch(name) is None:
        shown = name[:80].encode("unicode_escape").decode("ascii")
        raise Invalid(
            field,
            f'"{shown}" is not a name: use 1 to 63 lower-case letters, digits and "-", '
            "beginning and ending with a letter or digit",
        )


def check_claimed_name(name: str) -> None:
    """Raise Refused(NAME) unless a Secret and a Link of this name could be stored.

    The connecting site creates both under this name, and the client of system sites uses it as
    a file name without looking at it, so `../x` must never come back from us.
    """
    if not is_object_name(name):
        raise Refused(Reason.NAME, "the claim's name is no RFC 1123 subdomain")


def common_name(subject: str) -> str:
    """Turn a claim's subject into a certificate's common name of 1 to 64 bytes.

    A subject that fits is kept. A longer one is legitimate (an unmodified client without a
    system namespace falls back to its token's name, up to 253 characters), so it is shortened:
    its first 31 bytes, `-`, and the first 128 bits of its SHA-256 in hexadecimal, which keeps
    two long subjects apart. The ledger records the subject as it was sent. Lengths are counted
    in bytes of UTF-8: the RFC means characters, but not every reader of certificates does.
    Raises Refused(SUBJECT) when it is empty, beyond 253 characters or not printable.
    """
    if not subject or len(subject) > _LONGEST_SUBJECT or not subject.isprintable():
        raise Refused(Reason.SUBJECT, "the claim's subject is empty, too long or not printable")
    text = subject.encode()
    if len(text) <= _LONGEST_COMMON_NAME:
        return subject
    kept = text[:_KEPT_OF_LONG_SUBJECT].decode(errors="ignore")  # a cut character is left out
    return f"{kept}-{hashlib.sha256(text).hexdigest()[:32]}"


def printable(text: str) -> str:
    """Write what nobody has checked in a form that can be stored, logged and shown.

    Letters that cannot be printed, line breaks and halves of letters among them, are escaped.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
