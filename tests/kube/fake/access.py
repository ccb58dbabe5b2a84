"""Who may do what: bearer tokens, and rules as a Role has them."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.kube import errors

Rule = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request wants to do."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whose a token is, and for whom it is meant; the empty audience is the API server's own."""

    name: str
    rules: Sequence[Rule] | None
    """None: may do everything."""
    audience: str = ""
    uid: str = ""

    @property
    def groups(self) -> Sequence[str]:
        """What a service account is in."""
        namespace = self.name.split(":")[2]
        return (
            "system:serviceaccounts",
            f"system:serviceaccounts:{namespace}",
            "system:authenticated",
        )


class Access:
    """The tokens that were given out."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}

    def token(self, user: str, rules: Sequence[Rule] | None, audience: str = "") -> str:
        """A new token for a user, which other tokens may have had before."""
        token = uuid.uuid4().hex
        self._users[token] = User(
            name=user, rules=rules, audience=audience, uid=str(uuid.uuid5(uuid.NAMESPACE_OID, user))
        )
        return token

    def known(self, token: str) -> User | None:
        """Whose it is, whoever it is meant for."""
        return self._users.get(token)

    def may(self, user: str, asked: Asked) -> bool:
        """Whether a user may do that, by any of their tokens' rules.

        Without a namespace it is about all of them.
        """
        known = [one for one in self._users.values() if one.name == user]
        return any(
            one.rules is None or any(_allows(rule, asked) for rule in one.rules) for one in known
        )

    def expire(self, token: str) -> None:
        """From now on the token is nobody's."""
        self._users.pop(token, None)

    def user(self, authorization: str) -> str:
        """Whose token a request carries; `KubeError` 401."""
        return self._find(authorization).name

    def check(self, authorization: str, asked: Asked) -> None:
        """`KubeError` 401 or 403."""
        user = self._find(authorization)
        if user.rules is not None and not any(_allows(rule, asked) for rule in user.rules):
            resource = asked.resource + (f"/{asked.subresource}" if asked.subresource else "")
            scope = f'in the namespace "{asked.namespace}"' if asked.namespace else ""
            why = (
                f'User "{user.name}" cannot {asked.verb} resource "{resource}" '
                f'in API group "{asked.group}" {scope or "at the cluster scope"}'
            )
            shown = asked.resource + (f".{asked.group}" if asked.group else "")
            raise errors.forbidden(shown, asked.name, why)

    def _find(self, authorization: str) -> User:
        kind, _, token = authorization.partition(" ")
        user = self._users.get(token.strip())
        if kind.lower() != "bearer" or user is None or user.audience:
            raise errors.unauthorized()
        return user


def _allows(rule: Rule, asked: Asked) -> bool:
    resource = asked.resource + (f"/{asked.subresource}" if asked.subresource else "")
    names, namespaces = rule.get("resourceNames"), rule.get("namespaces")
    return (
        _has(rule.get("apiGroups", ()), asked.group)
        and (
            _has(rule.get("resources", ()), resource)
            or f"*/{asked.subresource}" in rule.get("resources", ())
        )
        and _has(rule.get("verbs", ()), asked.verb)
        and (not names or asked.name in names)
        and (not namespaces or asked.namespace in namespaces)
    )


def _has(allowed: Sequence[str], wanted: str) -> bool:
    return wanted in allowed or "*" in allowed
