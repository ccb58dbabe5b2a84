"""The audit log's chain: a link for each row, and links that were signed.

Programs before this one do not run on these tables: they would delete rows of the log without
saying so in the chain.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "audit_links",
        sa.Column("position", big, autoincrement=False, nullable=False),
        sa.Column("audit_id", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("position >= 1", name=op.f("ck_audit_links_position_is_positive")),
        sa.CheckConstraint("length(hash) = 32", name=op.f("ck_audit_links_hash_is_whole")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_audit_links")),
        sa.UniqueConstraint("audit_id", name=op.f("uq_audit_links_audit_id")),
    )
    op.create_table(
        "audit_heads",
        sa.Column("id", big, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("highest_id", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("kind IN ('sealed', 'pruned')", name=op.f("ck_audit_heads_kind_known")),
        sa.CheckConstraint("length(hash) = 32", name=op.f("ck_audit_heads_hash_is_whole")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_heads")),
    )
    op.create_index(op.f("ix_audit_heads_position"), "audit_heads", ["position"])
    op.execute("UPDATE compatibility SET oldest_revision = '0006'")
