"""Settings that are good each by itself, and make no sense together."""

from collections.abc import Iterator

from app.domain.exposure import Way
from app.settings.model import Settings


def inconsistencies(settings: Settings) -> Iterator[str]:
    """Say what does not go together, and what would."""
    if settings.kubernetes.namespaces:
        yield from _of_exposure(settings)


def _of_exposure(settings: Settings) -> Iterator[str]:
    exposure = settings.exposure
    kind = f"GRANTSERVER_EXPOSURE_TYPE={exposure.way.value}"
    host = exposure.host or exposure.domain
    if exposure.way is Way.URL and not settings.reach.url:
        yield f"{kind} needs GRANTSERVER_REACH_URL"
    if exposure.way is Way.NODE_PORT and not host:
        yield f"{kind} needs GRANTSERVER_EXPOSURE_HOST, an address of the nodes"
    if exposure.way in {Way.INGRESS, Way.GATEWAY} and not host:
        yield f"{kind} needs GRANTSERVER_EXPOSURE_HOST or GRANTSERVER_EXPOSURE_DOMAIN"
    if exposure.way is Way.GATEWAY and not (exposure.class_name or exposure.gateway):
        yield f"{kind} needs GRANTSERVER_EXPOSURE_CLASS or GRANTSERVER_EXPOSURE_GATEWAY"
    if exposure.way in {Way.INGRESS, Way.GATEWAY, Way.ROUTE} and _is_ip(exposure.host):
        # By RFC 6066, section 3, and by the name alone they know whose connection it is.
        yield f"{kind} needs a name in GRANTSERVER_EXPOSURE_HOST: clients tell no IP address in TLS"


def _is_ip(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
