"""Answers of creations, kept for who asks again under the same key.

Programs of 0007 run on: they create nothing under a key.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    big_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "creations",
        sa.Column("id", big_number, nullable=False),
        sa.Column("asked", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("length(asked) = 32", name=op.f("ck_creations_asked_is_whole")),
        sa.CheckConstraint("length(body) = 32", name=op.f("ck_creations_body_is_whole")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_creations")),
        sa.UniqueConstraint("asked", name=op.f("uq_creations_asked")),
    )
