"""Generations of authorities, certificates that others issued, the addresses of a cluster.

Programs of revision 0002 run on these tables too: what they do not know has a value without them.
They know one generation of the server's CA only, so it is not to be rotated while any of them runs.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_STATES = "state IN ('prepared', 'active', 'retired', 'ended')"
_SIGNS_FOR_SERVER = "purpose = 'server' AND state = 'active'"


def upgrade() -> None:
    # Alembic knows no column that brings its constraint along, and SQLite no constraint without.
    op.execute(
        "ALTER TABLE authorities ADD COLUMN state VARCHAR(16) DEFAULT 'active' NOT NULL"
        f" CONSTRAINT ck_authorities_state_known CHECK ({_STATES})"
    )
    for column in (
        sa.Column("since", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("family", sa.Integer(), nullable=True),
        sa.Column("cross_pem", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("back_pem", sa.Text(), server_default=sa.text("''"), nullable=False),
    ):
        op.add_column("authorities", column)
    op.drop_index("uq_authorities_one_server", "authorities")
    op.create_index(
        "uq_authorities_one_active_server",
        "authorities",
        ["purpose"],
        unique=True,
        sqlite_where=sa.text(_SIGNS_FOR_SERVER),
        postgresql_where=sa.text(_SIGNS_FOR_SERVER),
    )
    with op.batch_alter_table("server_certificates") as table:
        table.alter_column("authority_id", existing_type=sa.Integer(), nullable=True)
        table.add_column(
            sa.Column("origin", sa.String(length=16), server_default=sa.text("''"), nullable=False)
        )
        table.add_column(
            sa.Column("ca_pem", sa.Text(), server_default=sa.text("''"), nullable=False)
        )
    addresses = op.create_table(
        "addresses",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("hosts", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_addresses_one_row")),
        sa.PrimaryKeyConstraint("id", name="pk_addresses"),
    )
    op.bulk_insert(addresses, [{"id": 1, "url": "", "hosts": "", "problem": "", "changed_at": 0}])
