"""A whole linking, played on this machine for a newcomer to watch."""
