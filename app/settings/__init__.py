"""Environment, file and flags become one frozen Settings, or the full list of what is wrong."""

from app.settings.loading import PREFIX, catalog, from_environment, load
from app.settings.model import Settings
from app.settings.values import Address

__all__ = ["PREFIX", "Address", "Settings", "catalog", "from_environment", "load"]
