"""Sealing: what must not be read in the database is encrypted under a key from a file beside it.

The key file
    Text, mode 0600, or a Secret as a pod is shown it. One key on each line, blank lines and lines
    that begin with # are skipped:

        <version>:<key id>:<key>
        1:3f9a2c10:q0Zt...=

    version   1: the key is 32 random bytes in base64, and the key id is the first 4 bytes of
              its SHA-256 (with a prefix) in hexadecimal, so that a damaged line is noticed
    The first key seals, all of them open. To rotate, put a new line on top (`generate_line`);
    an old line may go when nothing is sealed under it any more.

A sealed value, version 1
    octets   what
    1        version, 0x01
    4        key id
    12       nonce of AES-GCM (96 random bits: at most 2^32 values under one key,
             NIST SP 800-38D, section 8.3)
    n + 16   AES-256-GCM ciphertext and tag; version, key id and purpose are authenticated with it

Both formats are append-only: a new form gets a new version, and old versions stay readable.
"""

import base64
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.errors import Broken, Misconfigured

KEY_BYTES = 32
NONCE_BYTES = 12

_VERSION = b"\x01"
_SEALING = b"seal AES-256-GCM"
_ID_BYTES = 4
_HEADER_BYTES = len(_VERSION) + _ID_BYTES
_TAG_BYTES = 16
_LINE = re.compile(r"1:(?P<id>[0-9a-f]{8}):(?P<key>[A-Za-z0-9+/]{43}=)")
_MAX_FILE_BYTES = 64 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The keys of one key file: key id to secret, in the file's order, the first being current."""

    path: Path
    keys: Mapping[str, bytes] = field(repr=False)

    def seal(self, plaintext: bytes, *, purpose: str, random: bytes) -> bytes:
        """Encrypt under the current key; `random` are 12 bytes that are never used again.

        `purpose` says where the value belongs (table, column, row): it opens for the same
        purpose only, so a value that is moved elsewhere is found out.
        """
        if len(random) != NONCE_BYTES:
            raise Broken(f"a sealed value takes {NONCE_BYTES} random bytes, not {len(random)}")
        key_id, secret = next(iter(self.keys.items()))
        header = _VERSION + bytes.fromhex(key_id)
        cipher = AESGCM(_subkey(secret, _SEALING))
        return header + random + cipher.encrypt(random, plaintext, header + purpose.encode())

    def open(self, sealed: bytes, *, purpose: str) -> bytes:
        """Decrypt what `seal` made for the same `purpose`.

        Raises Misconfigured when the key file lacks the key, Broken when the value was
        altered, moved, cut, or made by a version that is not known here.
        """
        if len(sealed) < _HEADER_BYTES + NONCE_BYTES + _TAG_BYTES:
            raise Broken(f"the sealed {purpose} is cut off")
        if sealed[:1] != _VERSION:
            raise Broken(f"the sealed {purpose} has version {sealed[0]}, and only 1 is known")
        header, nonce = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:][:NONCE_BYTES]
        key_id = header[len(_VERSION) :].hex()
        secret = self.keys.get(key_id)
        if secret is None:
            problem = (
                f"the sealed {purpose} needs the sealing key {key_id}, which is not in "
                f"{self.path}; put its line back, below the first one"
            )
            raise Misconfigured([problem])
        try:
            return AESGCM(_subkey(secret, _SEALING)).decrypt(
                nonce, sealed[_HEADER_BYTES + NONCE_BYTES :], header + purpose.encode()
            )
        except InvalidTag as error:
            raise Broken(f"the sealed {purpose} was altered, or belongs elsewhere") from error

    def derive(self, purpose: str) -> dict[str, bytes]:
        """Derive a 32-byte key for another `purpose` from each key: key id to key, current first.

        HKDF-SHA256 (RFC 5869); the purposes of `derive` and of `seal` never share a key.
        """
        return {
            key_id: _subkey(secret, b"derive " + purpose.encode())
            for key_id, secret in self.keys.items()
        }


def generate_line(random_bytes: Callable[[int], bytes]) -> str:
    """Make the line of a new key, without line feed; on top of the file it becomes current."""
    secret = random_bytes(KEY_BYTES)
    return f"1:{_key_id(secret)}:{base64.b64encode(secret).decode()}"


def load_or_create(path: Path, random_bytes: Callable[[int], bytes]) -> Keyring:
    """Read the key file, making it with one new key when there is none.

    Processes that start at once agree on one file. Raises Misconfigured, naming problem and
    cure, when the file cannot be used: readable by group or others, malformed, without keys.
    """
    try:
        if not path.exists():
            _create(path, generate_line(random_bytes))
        text = _read(path)
    except OSError as error:
        problem = f"the sealing key file {path} cannot be used: {error.strerror}"
        raise Misconfigured([problem]) from error
    return Keyring(path=path, keys=_parse(path, text))


def _create(path: Path, line: str) -> None:
    """Put a whole file in place or leave the one that somebody else put there first.

    Linking a finished file, unlike opening with O_EXCL, never shows a file that is empty still.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"# Sealing keys: the first one seals, all of them open.\n{line}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        Path(temporary).unlink()
    # What is sealed is worthless without the key: the name of the file must survive a crash too.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(path: Path) -> bytes:
    # Asked of the open file and not of its name, which could change in between. O_NONBLOCK
    # keeps a named pipe from holding the start for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Misconfigured([f"the sealing key file {path} is not a regular file"])
        if _open_to_others(status):
            raise Misconfigured(
                [f"the sealing key file {path} is open to group or others: chmod 600 {path}"]
            )
        return os.read(descriptor, _MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)


def _open_to_others(status: os.stat_result) -> bool:
    """Tell whether somebody beside us can touch the file.

    A file of root's that our group may read is ours alone: so a pod is shown a Secret, by the group
    that nobody but the pod is in (`fsGroup`). Whoever is root itself needs no group for it.
    """
    shown_by_root = status.st_uid == 0 and os.geteuid() != 0
    return bool(status.st_mode & _OTHERS & ~(stat.S_IRGRP if shown_by_root else 0))


def _parse(path: Path, text: bytes) -> dict[str, bytes]:
    """Read the lines; a problem names the number of its line and never shows what it holds."""
    if len(text) > _MAX_FILE_BYTES:
        raise Misconfigured([f"the sealing key file {path} is longer than {_MAX_FILE_BYTES} bytes"])
    keys: dict[str, bytes] = {}
    problems = []
    for number, line in enumerate(text.decode("ascii", "replace").splitlines(), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        secret = _secret(entry)
        if secret is None:
            problems.append(
                f"{path} line {number}: no sealing key (1:<8 hexadecimal digits>:<base64 of 32 "
                "bytes>), or damaged; restore it from a copy"
            )
        elif _key_id(secret) in keys:
            problems.append(f"{path} line {number}: this sealing key occurs twice; remove one")
        else:
            keys[_key_id(secret)] = secret
    if not keys and not problems:
        problems.append(
            f"{path}: no sealing key in it; restore it from a copy, or remove it if nothing was "
            "sealed yet"
        )
    if problems:
        raise Misconfigured(problems)
    return keys


def _secret(entry: str) -> bytes | None:
    """Read one line; None when it is malformed or its id does not belong to its key."""
    if (match := _LINE.fullmatch(entry)) is None:
        return None
    secret = base64.b64decode(match["key"])  # the pattern admits 32 bytes of base64 only
    return secret if _key_id(secret) == match["id"] else None


def _key_id(secret: bytes) -> str:
    return hashlib.sha256(b"grantserver sealing key\0" + secret).digest()[:_ID_BYTES].hex()


def _subkey(secret: bytes, info: bytes) -> bytes:
    """Give each use its own key, so that none of them can weaken another."""
    derivation = HKDF(
        algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=b"grantserver 1 " + info
    )
    return derivation.derive(secret)
