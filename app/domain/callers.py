"""Who asks the admin API, and what they may: values, and the judgement of a right.

A right is a verb at a site. In a cluster a site is a namespace, so rights there are those of
namespaces.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from app.domain.names import check_name
from app.errors import Invalid

EVERY: Final = "*"
"""Stands for every verb, or every site, where rights are written down."""
MOST_SITES: Final = 64
LONGEST_CALLER: Final = 253

_CALLER = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.@:/ ]*[A-Za-z0-9])?")


class Verb(StrEnum):
    """What may be done. Stored: values are never changed or taken away."""

    READ = "read"  # sites, grants, redemptions, authorities, events
    CREATE = "create"  # grants and tokens
    CHANGE = "change"  # labels, description; longer and more often
    REVOKE = "revoke"  # grants and redemptions
    DELETE = "delete"  # grants
    AUDIT = "audit"  # read the audit log
    MANAGE = "manage"  # sites; with every site also admin tokens and webhooks


class Kind(StrEnum):
    """By what a caller is known."""

    TOKEN = "token"  # noqa: S105 - the kind, not one of them
    CERTIFICATE = "certificate"
    ACCOUNT = "account"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who is known: a token or a certificate by its name, an account as ns/name."""

    kind: Kind
    name: str

    @property
    def actor(self) -> str:
        """How the audit log names them."""
        return f"{self.kind.value}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Verbs, and the sites at which they may be done; None is every site, those to come too."""

    verbs: frozenset[Verb]
    sites: frozenset[str] | None

    def allow(self, verb: Verb, site: str | None) -> bool:
        """Tell whether the verb may be done at the site.

        Without a site it is about what belongs to none, for which every site is needed.
        """
        if verb not in self.verbs:
            return False
        return self.sites is None or (site is not None and site in self.sites)

    def within(self, other: "Rights") -> bool:
        """Tell whether whoever has the other rights has all of these."""
        if not self.verbs <= other.verbs:
            return False
        if other.sites is None:
            return True
        return self.sites is not None and self.sites <= other.sites


class Entry(NamedTuple):
    """Rights of somebody who is known by a name."""

    name: str
    rights: Rights


def read_rights(verbs: Iterable[str], sites: Iterable[str]) -> Rights:
    """Read rights as people write them: words, or `*` for all there are.

    Raises Invalid("verbs", …) and Invalid("sites", …).
    """
    return Rights(verbs=_verbs(tuple(verbs)), sites=_sites(tuple(sites)))


def written_verbs(rights: Rights) -> Sequence[str]:
    """The verbs, in the order in which they are declared."""
    return [verb.value for verb in Verb if verb in rights.verbs]


def written_sites(rights: Rights) -> Sequence[str]:
    """The names of the sites in their order, or `*` alone."""
    return [EVERY] if rights.sites is None else sorted(rights.sites)


def read_entry(text: str) -> Entry:
    """Read `NAME=VERB+VERB@SITE+SITE`: who may do what where, in one line.

    Raises Invalid("name", …), Invalid("verbs", …) or Invalid("sites", …).
    """
    name, _, rights = text.partition("=")
    check_caller("name", name)
    verbs, at, sites = rights.partition("@")
    if not at:
        raise Invalid("sites", f"expected NAME=VERB+VERB@SITE+SITE, or @{EVERY} for every site")
    return Entry(name, read_rights(verbs.split("+"), sites.split("+")))


def check_caller(field: str, name: str) -> None:
    """Raise Invalid(field, …) unless it can name a caller."""
    if len(name) > LONGEST_CALLER or _CALLER.fullmatch(name) is None:
        raise Invalid(
            field,
            f"expected 1 to {LONGEST_CALLER} letters, digits, blanks and any of -_.@:/, with a "
            "letter or a digit at both ends",
        )


def _verbs(given: Sequence[str]) -> frozenset[Verb]:
    if EVERY in given:
        return frozenset(Verb)
    known = {verb.value: verb for verb in Verb}
    for word in given:
        if word not in known:
            listed = ", ".join(known)
            raise Invalid("verbs", f'there is no "{word[:40]}"; expected {listed}, or {EVERY}')
    if not given:
        raise Invalid("verbs", f"expected one at least: {', '.join(known)}, or {EVERY}")
    return frozenset(known[word] for word in given)


def _sites(given: Sequence[str]) -> frozenset[str] | None:
    if EVERY in given:
        return None
    if not 1 <= len(given) <= MOST_SITES:
        raise Invalid("sites", f"expected 1 to {MOST_SITES} names of sites, or {EVERY}")
    for name in given:
        check_name("sites", name)
    return frozenset(given)
