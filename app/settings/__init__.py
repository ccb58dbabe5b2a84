"""Environment, file and flags become one frozen Settings, or the full list of what is wrong."""

from app.settings.loading import PREFIX, catalog, from_environment, load, tell_library
from app.settings.model import DEFAULT_URL, Listen, Settings
from app.settings.values import EVERY_NAMESPACE, Address, ProxyProtocol

__all__ = [
    "DEFAULT_URL",
    "EVERY_NAMESPACE",
    "PREFIX",
    "Address",
    "Listen",
    "ProxyProtocol",
    "Settings",
    "catalog",
    "from_environment",
    "load",
    "tell_library",
]
