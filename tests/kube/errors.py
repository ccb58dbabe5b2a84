"""What an API server answers instead of an object: a Status, as an exception."""

from collections.abc import Mapping, Sequence
from typing import Any, Self


class KubeError(Exception):
    """A refusal of the API server, the fake one's and the real one's alike."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    @property
    def status(self) -> dict[str, Any]:
        """The body of the answer."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        return status | ({"details": self.details} if self.details else {}) | {"code": self.code}

    @classmethod
    def of(cls, status: Mapping[str, Any], code: int) -> Self:
        """Read a refusal back from what was answered."""
        return cls(
            int(status.get("code", code)),
            str(status.get("reason", "")),
            str(status.get("message", "")),
            status.get("details"),
        )


def bad_request(message: str) -> KubeError:
    return KubeError(400, "BadRequest", message)


def unauthorized() -> KubeError:
    return KubeError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: str, name: str, message: str) -> KubeError:
    shown = f'{resource} "{name}"' if name else resource
    return KubeError(403, "Forbidden", f"{shown} is forbidden: {message}", {"name": name})


def not_found(resource: str, group: str, name: str) -> KubeError:
    shown = f"{resource}.{group}" if group else resource
    details = {"name": name, "kind": resource} | ({"group": group} if group else {})
    return KubeError(404, "NotFound", f'{shown} "{name}" not found', details)


def no_such_path() -> KubeError:
    return KubeError(404, "NotFound", "the server could not find the requested resource")


def not_supported() -> KubeError:
    message = "the server does not allow this method on the requested resource"
    return KubeError(405, "MethodNotAllowed", message)


def already_exists(resource: str, group: str, name: str) -> KubeError:
    shown = f"{resource}.{group}" if group else resource
    details = {"name": name, "kind": resource} | ({"group": group} if group else {})
    return KubeError(409, "AlreadyExists", f'{shown} "{name}" already exists', details)


def conflict(resource: str, group: str, name: str, why: str = "") -> KubeError:
    shown = f"{resource}.{group}" if group else resource
    why = why or (
        "the object has been modified; please apply your changes to the latest version "
        "and try again"
    )
    message = f'Operation cannot be fulfilled on {shown} "{name}": {why}'
    details = {"name": name, "kind": resource} | ({"group": group} if group else {})
    return KubeError(409, "Conflict", message, details)


def manager_conflict(causes: Sequence[tuple[str, str]]) -> KubeError:
    """Fields of an apply that belong to others: pairs of field and whose it is."""
    many = f"{len(causes)} conflicts" if len(causes) > 1 else "1 conflict"
    told = "; ".join(f"{whose}: {field}" for field, whose in causes)
    message = f"Apply failed with {many}: {told}"
    listed = [
        {"reason": "FieldManagerConflict", "message": whose, "field": field}
        for field, whose in causes
    ]
    return KubeError(409, "Conflict", message, {"causes": listed})


def expired(message: str) -> KubeError:
    return KubeError(410, "Expired", message)


def unsupported_media_type(message: str) -> KubeError:
    return KubeError(415, "UnsupportedMediaType", message)


def invalid(kind: str, group: str, name: str, causes: Sequence[tuple[str, str]]) -> KubeError:
    """An object against its schema or the rules: pairs of field and what is wrong with it."""
    shown = f"{kind}.{group}" if group else kind
    told = ", ".join(f"{field}: {why}" for field, why in causes)
    message = f'{shown} "{name}" is invalid: {told if len(causes) == 1 else f"[{told}]"}'
    details = {
        "name": name,
        "kind": kind,
        "causes": [
            {"reason": "FieldValueInvalid", "message": why, "field": field} for field, why in causes
        ],
    } | ({"group": group} if group else {})
    return KubeError(422, "Invalid", message, details)


def unprocessable(message: str) -> KubeError:
    return KubeError(422, "Invalid", message)
