"""The first tables.

Revision ID: 0001
Revises: nothing
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", BIG_NUMBER, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("act", sa.String(length=40), nullable=False),
        sa.Column("actor", sa.String(length=300), nullable=False),
        sa.Column("target", sa.String(length=300), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "authorities",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("certificate_pem", sa.Text(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("imported", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "purpose IN ('site', 'server')", name=op.f("ck_authorities_purpose_known")
        ),
        sa.CheckConstraint("imported IN (0, 1)", name=op.f("ck_authorities_imported_is_boolean")),
        sa.CheckConstraint(
            "not_after > not_before", name=op.f("ck_authorities_validity_is_positive")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_authorities"),
        sa.UniqueConstraint("fingerprint", name="uq_authorities_fingerprint"),
        sa.UniqueConstraint("name", name="uq_authorities_name"),
    )
    op.create_index(
        "uq_authorities_one_server",
        "authorities",
        ["purpose"],
        unique=True,
        sqlite_where=sa.text("purpose = 'server'"),
        postgresql_where=sa.text("purpose = 'server'"),
    )
    op.create_table(
        "heartbeat",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_heartbeat_one_row")),
        sa.PrimaryKeyConstraint("id", name="pk_heartbeat"),
    )
    op.create_table(
        "server_certificates",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("authority_id", sa.Integer(), nullable=False),
        sa.Column("certificate_pem", sa.Text(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["authority_id"], ["authorities.id"], name="fk_server_certificates_authority_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_server_certificates"),
        sa.UniqueConstraint("fingerprint", name="uq_server_certificates_fingerprint"),
    )
    op.create_table(
        "sites",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_sites_revision_is_positive")),
        sa.ForeignKeyConstraint(["issuer_id"], ["authorities.id"], name="fk_sites_issuer_id"),
        sa.PrimaryKeyConstraint("id", name="pk_sites"),
        sa.UniqueConstraint("name", name="uq_sites_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "endpoints",
        sa.Column("site_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("group_name", sa.String(length=63), nullable=False),
        sa.CheckConstraint(
            "role IN ('inter-router', 'edge')", name=op.f("ck_endpoints_role_known")
        ),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name=op.f("ck_endpoints_port_in_range")),
        sa.CheckConstraint("position >= 0", name=op.f("ck_endpoints_position_not_negative")),
        sa.ForeignKeyConstraint(
            ["site_id"], ["sites.id"], name="fk_endpoints_site_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("site_id", "position", name="pk_endpoints"),
        sa.UniqueConstraint(
            "site_id",
            "group_name",
            "role",
            "host",
            "port",
            name="uq_endpoints_site_id_group_name_role_host_port",
        ),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("site_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("concealed_code", sa.String(length=200), nullable=False),
        sa.Column("issuer_id", sa.Integer(), nullable=True),
        sa.Column("allowed", sa.Integer(), nullable=False),
        sa.Column("spent", sa.Integer(), nullable=False),
        sa.Column("cost", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "allowed BETWEEN 1 AND 1000000", name=op.f("ck_grants_allowed_in_range")
        ),
        sa.CheckConstraint("cost BETWEEN 1 AND 2147483647", name=op.f("ck_grants_cost_in_range")),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_grants_window_is_positive")),
        sa.CheckConstraint("length(id) = 36", name=op.f("ck_grants_id_is_uuid")),
        sa.CheckConstraint(
            "spent BETWEEN 0 AND allowed", name=op.f("ck_grants_spent_within_allowed")
        ),
        sa.ForeignKeyConstraint(["issuer_id"], ["authorities.id"], name="fk_grants_issuer_id"),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_grants_site_id"),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
        sa.UniqueConstraint("site_id", "name", name="uq_grants_site_id_name"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_grants_expires_at", "grants", ["expires_at"], unique=False)
    op.create_table(
        "redemptions",
        sa.Column("id", BIG_NUMBER, nullable=False),
        sa.Column("grant_id", sa.String(length=36), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("subject", sa.String(length=253), nullable=False),
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("redeemed_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("ordinal >= 1", name=op.f("ck_redemptions_ordinal_is_positive")),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["grants.id"], name="fk_redemptions_grant_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_redemptions"),
        sa.UniqueConstraint("grant_id", "ordinal", name="uq_redemptions_grant_id_ordinal"),
        sa.UniqueConstraint("serial", name="uq_redemptions_serial"),
    )
    op.bulk_insert(
        sa.table("heartbeat", sa.column("id", sa.Integer), sa.column("at", sa.BigInteger)),
        [{"id": 1, "at": 0}],
    )
