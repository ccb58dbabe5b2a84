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
class _User:
    name: str
    rules: Sequence[Rule] | None
    """None: may do everything."""


class Access:
    """The tokens that were given out."""

    def __init__(self) -> None:
        self._users: dict[str, _User] = {}

    def token(self, user: str, rules: Sequence[Rule] | None) -> str:
        """A new token for a user, which other tokens may have had before."""
        token = uuid.uuid4().hex
        self._users[token] = _User(name=user, rules=rules)
        return token

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

    def _find(self, authorization: str) -> _User:
        kind, _, token = authorization.partition(" ")
        user = self._users.get(token.strip())
        if kind.lower() != "bearer" or user is None:
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
