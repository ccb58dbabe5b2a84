"""Policies of grants, labels and descriptions, and the indices by which lists of grants are read.

Programs of 0006 do not run on, though they could: they know nothing of policies, and would let in
whoever has the code.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("grants", sa.Column("policy", sa.Text(), nullable=True))
    op.add_column("grants", sa.Column("not_before", sa.BigInteger(), nullable=True))
    op.add_column("grants", sa.Column("labels", sa.Text(), nullable=True))
    op.add_column("grants", sa.Column("description", sa.Text(), nullable=True))
    op.create_index(op.f("ix_grants_created_at_id"), "grants", ["created_at", "id"])
    op.create_index(op.f("ix_grants_name_id"), "grants", ["name", "id"])
    op.create_index(
        op.f("ix_grants_site_id_created_at_id"), "grants", ["site_id", "created_at", "id"]
    )
    op.create_table(
        "grant_labels",
        sa.Column("label", sa.String(length=320), nullable=False),
        sa.Column("value", sa.String(length=63), nullable=False),
        sa.Column("grant_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["grant_id"],
            ["grants.id"],
            name=op.f("fk_grant_labels_grant_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("label", "value", "grant_id", name=op.f("pk_grant_labels")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_grant_labels_grant_id"), "grant_labels", ["grant_id"])
    op.create_table(
        "subject_uses",
        sa.Column("grant_id", sa.String(length=36), nullable=False),
        sa.Column("subject", sa.String(length=253), nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.Column("most", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "used BETWEEN 1 AND most", name=op.f("ck_subject_uses_used_within_most")
        ),
        sa.ForeignKeyConstraint(
            ["grant_id"],
            ["grants.id"],
            name=op.f("fk_subject_uses_grant_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("grant_id", "subject", name=op.f("pk_subject_uses")),
        sqlite_with_rowid=False,
    )
    op.execute("UPDATE compatibility SET oldest_revision = '0007'")
