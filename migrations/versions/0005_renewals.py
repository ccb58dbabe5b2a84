"""Certificates that follow one another, who signed each, and from when on one counts no more.

And a number that whoever begins to lead raises, which keeps a former leader from writing.

Programs of revision 0002 run on these tables too: they redeem as ever. They know nothing of
certificates that were renewed, so none of them is to prune, or to end an authority, once any was.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("redemptions", sa.Column("issuer_id", sa.Integer(), nullable=True))
    op.add_column("redemptions", sa.Column("superseded_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "renewals",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "redemption_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
        ),
        sa.Column("replaces", sa.String(length=40), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("certificate_pem", sa.Text(), nullable=False),
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("superseded_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("length(key_hash) = 32", name=op.f("ck_renewals_key_hash_is_whole")),
        sa.ForeignKeyConstraint(
            ["redemption_id"],
            ["redemptions.id"],
            name=op.f("fk_renewals_redemption_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_renewals")),
        sa.UniqueConstraint("replaces", "key_hash", name=op.f("uq_renewals_replaces_key_hash")),
        sa.UniqueConstraint("serial", name=op.f("uq_renewals_serial")),
    )
    op.create_index(op.f("ix_renewals_redemption_id"), "renewals", ["redemption_id"])
    for table in ("redemptions", "renewals"):
        for column in ("revoked_at", "superseded_at"):
            which = sa.text(f"{column} IS NOT NULL")
            op.create_index(
                f"ix_{table}_{column}",
                table,
                [column],
                sqlite_where=which,
                postgresql_where=which,
            )
    leadership = op.create_table(
        "leadership",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_leadership_one_row")),
        sa.PrimaryKeyConstraint("id", name="pk_leadership"),
    )
    op.bulk_insert(leadership, [{"id": 1, "term": 0}])
