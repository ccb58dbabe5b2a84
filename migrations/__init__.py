"""Schema migrations, run by Alembic; packaged beside `app`."""
