"""Kept answers, suspicions of theft, wrong codes, revoked certificates.

Rows as revision 0001 writes them are taken by these tables, but its programs ask for their own
revision exactly. From here on a database says itself which is the oldest that it serves.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BIG_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("redemptions", sa.Column("revoked_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "answers",
        sa.Column("id", BIG_NUMBER, nullable=False),
        sa.Column("claim_key", sa.LargeBinary(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("length(claim_key) = 16", name=op.f("ck_answers_claim_key_is_whole")),
        sa.CheckConstraint("ordinal >= 1", name=op.f("ck_answers_ordinal_is_positive")),
        sa.PrimaryKeyConstraint("id", name="pk_answers"),
        sa.UniqueConstraint("claim_key", name="uq_answers_claim_key"),
    )
    op.create_table(
        "suspicions",
        sa.Column("id", BIG_NUMBER, nullable=False),
        sa.Column("grant_id", sa.String(length=36), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("subject", sa.String(length=253), nullable=False),
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["grants.id"], name="fk_suspicions_grant_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_suspicions"),
        sa.UniqueConstraint(
            "grant_id", "subject", "peer", name="uq_suspicions_grant_id_subject_peer"
        ),
    )
    op.create_table(
        "wrong_codes",
        sa.Column("grant_id", sa.String(length=36), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("empty_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("count >= 1", name=op.f("ck_wrong_codes_count_is_positive")),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["grants.id"], name="fk_wrong_codes_grant_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("grant_id", name="pk_wrong_codes"),
    )
    compatibility = op.create_table(
        "compatibility",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("oldest_revision", sa.String(length=32), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_compatibility_one_row")),
        sa.PrimaryKeyConstraint("id", name="pk_compatibility"),
    )
    op.bulk_insert(compatibility, [{"id": 1, "oldest_revision": "0002"}])
