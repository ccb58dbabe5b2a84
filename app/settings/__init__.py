"""Environment, file and flags become one frozen Settings, or the full list of what is wrong."""

from app.settings.loading import PREFIX, catalog, from_environment, load, tell_library
from app.settings.model import Listen, Settings
from app.settings.values import Address, ProxyProtocol

__all__ = [
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
