"""Grants, sites and authorities that stand for resources of a Kubernetes cluster.

Programs of revision 0002 run on these tables too: nothing they know was changed or taken away.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("authorities", sa.Column("origin", sa.String(length=320), nullable=True))
    op.add_column("sites", sa.Column("origin", sa.String(length=16), nullable=True))
    op.create_table(
        "access_grants",
        sa.Column("grant_id", sa.String(length=36), nullable=False),
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("sealed_code", sa.LargeBinary(), nullable=False),
        sa.Column("window_seconds", sa.BigInteger(), nullable=False),
        sa.Column("spent_before", sa.Integer(), nullable=False),
        sa.CheckConstraint("window_seconds >= 1", name=op.f("ck_access_grants_window_is_positive")),
        sa.CheckConstraint(
            "spent_before >= 0", name=op.f("ck_access_grants_spent_before_not_negative")
        ),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["grants.id"], name="fk_access_grants_grant_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("grant_id", name="pk_access_grants"),
    )
    op.create_index("ix_access_grants_namespace_name", "access_grants", ["namespace", "name"])
