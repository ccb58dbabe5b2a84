"""Questions that are put as objects and kept nowhere: whose token it is, and who may what."""

from collections.abc import Mapping
from typing import Any, Final

from tests.kube import errors
from tests.kube.fake.access import Access, Asked
from tests.kube.fake.kinds import Kind
from tests.kube.fake.ownership import Object

TOKENS: Final = Kind(
    group="authentication.k8s.io",
    version="v1",
    kind="TokenReview",
    plural="tokenreviews",
    singular="tokenreview",
    namespaced=False,
    schema={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
)
SUBJECTS: Final = Kind(
    group="authorization.k8s.io",
    version="v1",
    kind="SubjectAccessReview",
    plural="subjectaccessreviews",
    singular="subjectaccessreview",
    namespaced=False,
    schema={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
)
KINDS: Final = {one.key: one for one in (TOKENS, SUBJECTS)}


def answer(access: Access, kind: Kind, given: Object) -> Object:
    """The review with its status."""
    spec = given.get("spec")
    if not isinstance(spec, dict):
        raise errors.bad_request("spec is required")
    status = _token(access, spec) if kind is TOKENS else _subject(access, spec)
    about = {"apiVersion": kind.api_version, "kind": kind.kind}
    # A real one has no name for it, and says when it was made: never.
    return about | {"metadata": {"creationTimestamp": None}, "spec": spec, "status": status}


def _token(access: Access, spec: Mapping[str, Any]) -> Object:
    found = access.known(str(spec.get("token", "")))
    wanted = spec.get("audiences") or [""]
    if found is None or found.audience not in wanted:
        return {"user": {}, "error": "[invalid bearer token, Token has been invalidated]"}
    user: Object = {"username": found.name, "uid": found.uid, "groups": list(found.groups)}
    user["extra"] = {"authentication.kubernetes.io/credential-id": [f"JTI={found.uid}"]}
    return {"authenticated": True, "user": user, "audiences": [found.audience]}


def _subject(access: Access, spec: Mapping[str, Any]) -> Object:
    wanted = spec.get("resourceAttributes") or {}
    asked = Asked(
        verb=wanted.get("verb", ""),
        group=wanted.get("group", ""),
        resource=wanted.get("resource", ""),
        namespace=wanted.get("namespace", ""),
    )
    if not spec.get("user") and not spec.get("groups"):
        why = 'Invalid value: "": at least one of user or group must be specified'
        raise errors.invalid(SUBJECTS.kind, SUBJECTS.group, "", [("spec.user", why)])
    return {"allowed": access.may(str(spec.get("user", "")), asked)}
