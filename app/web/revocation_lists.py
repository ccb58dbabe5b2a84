"""Revocation lists on the wire: which path asks for that of which authority."""

from typing import Final

CONTENT_TYPE: Final = b"application/pkix-crl"  # RFC 2585, section 4.2
_FOLDER: Final = "/crl/"
_ENDING: Final = ".crl"


def asked_for(path: str) -> str | None:
    """The name of the authority whose list a path asks for; None for any other path."""
    if not path.startswith(_FOLDER) or not path.endswith(_ENDING):
        return None
    name = path[len(_FOLDER) : -len(_ENDING)]
    return name if name and "/" not in name else None
