"""Admin tokens.

Programs of 0007 run on: they know nothing of them, and ask nobody for one.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "admin_tokens",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("concealed", sa.String(length=200), nullable=False),
        sa.Column("verbs", sa.Text(), nullable=False),
        sa.Column("sites", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=300), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_from", sa.String(length=64), nullable=True),
        sa.CheckConstraint("length(id) = 12", name=op.f("ck_admin_tokens_id_is_whole")),
        sa.CheckConstraint(
            "expires_at > created_at", name=op.f("ck_admin_tokens_window_is_positive")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_tokens")),
    )
    op.create_index(op.f("ix_admin_tokens_name_id"), "admin_tokens", ["name", "id"])
    op.create_index(
        "uq_admin_tokens_name_not_revoked",
        "admin_tokens",
        ["name"],
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
