"""An index of the grants that are revoked, which are few, so that a list of them is.

Programs of 0007 run on.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    revoked = sa.text("revoked_at IS NOT NULL")
    op.create_index(
        op.f("ix_grants_revoked_at"),
        "grants",
        ["revoked_at"],
        sqlite_where=revoked,
        postgresql_where=revoked,
    )
