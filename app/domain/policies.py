"""Policies of grants: who may redeem one, from where, and what the certificate is like.

Plain values, their checks, and the judgement of a claim. What counts redemptions is the ledger.
"""

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from app.domain.certificates import KeyType
from app.domain.durations import SECOND, format_seconds, parse_duration
from app.errors import Invalid, Reason, Refused

MOST_SUBJECTS: Final = 64
MOST_NETWORKS: Final = 64
MOST_LABELS: Final = 32
MOST_PER_SUBJECT: Final = 1_000_000
LONGEST_DESCRIPTION: Final = 1000
NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})
SETTING_PREFIX: Final = "policy-"
"""How the settings of an AccessGrant begin that are ours; all others are somebody else's."""

_LONGEST_SUBJECT: Final = 253
_LONGEST_LIST: Final = 8192  # characters, before it is taken apart
_LONGEST_PREFIX: Final = 63
_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9.]*)")
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a claim has to fulfil beside the right code; what is None or empty is not asked.

    `subjects` are texts or patterns in which `*` stands for any characters and `?` for one;
    `networks` are in CIDR notation; `lifetime_seconds` of certificates, which the server's own
    lifetime bounds; `per_subject` says how often one subject may redeem; names of Links have to
    begin with `name_prefix`. One that is not `understood` was written by a later release: nothing
    fulfils it.
    """

    subjects: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    lifetime_seconds: int | None = None
    key_type: KeyType | None = None
    per_subject: int | None = None
    name_prefix: str | None = None
    understood: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """What no grant may exceed on this server; None is no bound. A window is in seconds."""

    window_seconds: int | None = None
    redemptions: int | None = None
    lifetime_seconds: int | None = None


NO_CEILINGS: Final = Ceilings()


def checked(policy: Policy) -> Policy | None:
    """Bring a policy into its one form, None where it asks for nothing.

    Raises Invalid, whose field is `subjects`, `networks`, `lifetime`, `key_type`, `per_subject` or
    `name_prefix`.
    """
    for subject in policy.subjects:
        if not subject or len(subject) > _LONGEST_SUBJECT or not subject.isprintable():
            raise Invalid("subjects", "expected printable texts of 1 to 253 characters")
    if len(policy.subjects) > MOST_SUBJECTS:
        raise Invalid("subjects", f"expected {MOST_SUBJECTS} at most")
    if len(policy.networks) > MOST_NETWORKS:
        raise Invalid("networks", f"expected {MOST_NETWORKS} at most")
    if policy.lifetime_seconds is not None and policy.lifetime_seconds < 1:
        raise Invalid("lifetime", "expected at least one second")
    if policy.per_subject is not None and not 1 <= policy.per_subject <= MOST_PER_SUBJECT:
        raise Invalid("per_subject", f"expected a number from 1 to {MOST_PER_SUBJECT}")
    prefix = policy.name_prefix
    if prefix and (len(prefix) > _LONGEST_PREFIX or _PREFIX.fullmatch(prefix) is None):
        raise Invalid(
            "name_prefix", 'expected 1 to 63 lower-case letters, digits, "-" and ".", as in east-'
        )
    made = Policy(
        subjects=tuple(dict.fromkeys(policy.subjects)),
        networks=tuple(dict.fromkeys(str(_network(each)) for each in policy.networks)),
        lifetime_seconds=policy.lifetime_seconds,
        key_type=policy.key_type,
        per_subject=policy.per_subject,
        name_prefix=prefix or None,
    )
    return None if made == Policy() else made


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise Invalid("labels", …) unless Kubernetes would take them as labels, 32 at most."""
    if len(labels) > MOST_LABELS:
        raise Invalid("labels", f"expected {MOST_LABELS} at most")
    for key, value in labels.items():
        prefix, slash, name = key.rpartition("/")
        if _LABEL_NAME.fullmatch(name) is None or (
            slash and _LABEL_PREFIX.fullmatch(prefix) is None
        ):
            raise Invalid("labels", f"{_shown(key)} is no key of a label, such as team")
        if value and _LABEL_NAME.fullmatch(value) is None:
            raise Invalid(
                "labels", f'{_shown(value)} is no value: 63 letters, digits, "-", "_" and "."'
            )


def check_description(description: str) -> None:
    """Raise Invalid("description", …) unless it is printable text of bounded length."""
    plain = description.replace("\n", " ")
    if len(description) > LONGEST_DESCRIPTION or not plain.isprintable():
        raise Invalid("description", f"expected at most {LONGEST_DESCRIPTION} printable characters")


def check_ceilings(
    ceilings: Ceilings, *, window_seconds: int, redemptions: int, policy: Policy | None
) -> None:
    """Raise Invalid("window", "redemptions" or "lifetime", …) for what exceeds a ceiling."""
    if ceilings.window_seconds is not None and window_seconds > ceilings.window_seconds:
        most = format_seconds(ceilings.window_seconds)
        raise Invalid("window", f"this server grants {most} at most")
    if ceilings.redemptions is not None and redemptions > ceilings.redemptions:
        raise Invalid("redemptions", f"this server grants {ceilings.redemptions} at most")
    lifetime = None if policy is None else policy.lifetime_seconds
    if (
        lifetime is not None
        and ceilings.lifetime_seconds is not None
        and lifetime > ceilings.lifetime_seconds
    ):
        most = format_seconds(ceilings.lifetime_seconds)
        raise Invalid("lifetime", f"certificates of this server live {most} at most")


def judge(policy: Policy, *, name: str, subject: str, peer: str) -> None:
    """Raise Refused(POLICY), saying which part of it, unless a claim fulfils a policy.

    How often its subject has redeemed is not asked here.
    """
    if not policy.understood:
        raise Refused(Reason.POLICY, "the grant's policy was written by a later release")
    if policy.subjects and not any(_matches(subject, each) for each in policy.subjects):
        raise Refused(Reason.POLICY, "the subject is none of those that the grant is for")
    if policy.networks and not _is_within(peer, policy.networks):
        raise Refused(Reason.POLICY, "the address is in none of the grant's networks")
    if policy.name_prefix is not None and not name.startswith(policy.name_prefix):
        raise Refused(Reason.POLICY, f'the name does not begin with "{policy.name_prefix}"')


def is_address_fit(policy: Policy, peer: str) -> bool | None:
    """Say whether an address is in a policy's networks; None where it asks for none."""
    return _is_within(peer, policy.networks) if policy.networks else None


def written(policy: Policy | None) -> str | None:
    """Write a policy as the text that the database keeps."""
    if policy is None:
        return None
    return json.dumps(document(policy), separators=(",", ":"))


def document(policy: Policy) -> dict[str, Any]:
    """Lay a policy out as JSON knows it, without what it does not ask."""
    lists = {"subjects": list(policy.subjects), "networks": list(policy.networks)}
    single = {
        "lifetime": policy.lifetime_seconds,
        "keyType": None if policy.key_type is None else policy.key_type.value,
        "perSubject": policy.per_subject,
        "namePrefix": policy.name_prefix,
    }
    return {name: each for name, each in lists.items() if each} | {
        name: value for name, value in single.items() if value is not None
    }


@lru_cache(maxsize=1024)
def read(text: str) -> Policy:
    """Read what `written` wrote; what a later release added makes it one that nothing fulfils."""
    try:
        found = json.loads(text)
        known = found.keys() <= _KEYS
        key_type = found.get("keyType")
        for network in found.get("networks", ()):
            _network(network)
        return Policy(
            subjects=tuple(found.get("subjects", ())),
            networks=tuple(found.get("networks", ())),
            lifetime_seconds=found.get("lifetime"),
            key_type=None if key_type is None else KeyType(key_type),
            per_subject=found.get("perSubject"),
            name_prefix=found.get("namePrefix"),
            understood=known,
        )
    except (ValueError, AttributeError, TypeError, Invalid):
        return Policy(understood=False)


def read_settings(settings: Mapping[str, Any]) -> Policy | None:
    """Read the policy in the settings of an AccessGrant, those that begin with `policy-`.

    Lists are separated by commas. Raises Invalid, whose field is the setting: also for one that
    begins so and is not known, since a word that is spelt wrong would let everybody in.
    """
    found: dict[str, Any] = {}
    for setting, value in settings.items():
        if not str(setting).startswith(SETTING_PREFIX):
            continue
        name = str(setting).removeprefix(SETTING_PREFIX)
        if name not in _SETTINGS:
            known = ", ".join(f"{SETTING_PREFIX}{each}" for each in _SETTINGS)
            raise Invalid("settings", f"{_shown(str(setting))} is none of {known}")
        if not isinstance(value, str):
            raise Invalid(str(setting), "expected a text")
        found[name] = value
    try:
        return checked(
            Policy(
                subjects=_listed("subjects", found),
                networks=_listed("networks", found),
                lifetime_seconds=_given(found, "lifetime", read_lifetime),
                key_type=_given(found, "key-type", read_key_type),
                per_subject=_given(found, "per-subject", _number),
                name_prefix=found.get("name-prefix"),
            )
        )
    except Invalid as error:
        field = f"{SETTING_PREFIX}{error.field.replace('_', '-')}"
        raise Invalid(field, error.why) from error


def read_lifetime(text: str) -> int:
    """Read how long certificates are valid, in seconds. Raises Invalid("lifetime", …)."""
    try:
        nanoseconds = parse_duration(text)
    except Invalid as error:
        raise Invalid("lifetime", error.why) from error
    if nanoseconds < SECOND or nanoseconds % SECOND:
        raise Invalid("lifetime", "expected a duration of whole seconds above zero, such as 720h")
    return nanoseconds // SECOND


def read_key_type(text: str) -> KeyType:
    """Read a kind of key. Raises Invalid("key_type", …)."""
    try:
        return KeyType(text)
    except ValueError as error:
        raise Invalid("key_type", f"expected {' or '.join(KeyType)}") from error


_SETTINGS: Final = (
    "subjects", "networks", "lifetime", "key-type", "per-subject", "name-prefix",
)  # fmt: skip
_KEYS: Final = {"subjects", "networks", "lifetime", "keyType", "perSubject", "namePrefix"}


def _matches(subject: str, pattern: str) -> bool:
    # Brackets mean themselves: a subject may contain them.
    return fnmatchcase(subject, pattern.replace("[", "[[]"))


def _is_within(peer: str, networks: Sequence[str]) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    return any(address in _network(each) for each in networks)


@lru_cache(maxsize=4096)
def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        problem = f"{_shown(text)} is no network such as 10.1.0.0/16, 2001:db8::/32 or an address"
        raise Invalid("networks", problem) from error
    if getattr(network.network_address, "ipv4_mapped", None) is not None:
        # Addresses are compared as what they stand for: this would never fit.
        raise Invalid("networks", f"{_shown(text)} stands for IPv4: write it as 10.1.0.0/16")
    return network


def _listed(name: str, found: Mapping[str, str]) -> tuple[str, ...]:
    text = found.get(name, "")
    if len(text) > _LONGEST_LIST:
        raise Invalid(name, f"expected at most {_LONGEST_LIST} characters")
    if name in found and not text.strip():
        raise Invalid(name, "it is empty: leave it out, or nobody is meant")
    return tuple(each.strip() for each in text.split(",")) if text else ()


def _given(found: Mapping[str, str], name: str, read_it: Any) -> Any:
    return read_it(found[name]) if name in found else None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST_PER_SUBJECT))):
        raise Invalid("per_subject", f"expected a number from 1 to {MOST_PER_SUBJECT}")
    return int(text)


def _shown(text: str) -> str:
    return '"' + text[:80].encode("unicode_escape").decode("ascii") + '"'
