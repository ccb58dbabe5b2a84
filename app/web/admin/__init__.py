"""The admin API: HTTP around the services, and nothing decided here."""
