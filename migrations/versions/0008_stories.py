"""An index by which the story of one thing is found in the audit log.

Redemptions are not in it: their own table has them, and redeeming shall not cost a page more.
Programs of 0007 run on.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    besides_redemptions = sa.text("act != 'grant.redeemed'")
    op.create_index(
        op.f("ix_audit_target_id"),
        "audit",
        ["target", "id"],
        sqlite_where=besides_redemptions,
        postgresql_where=besides_redemptions,
    )
