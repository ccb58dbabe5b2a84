"""The tables, as the newest migration leaves them; a test compares the two.

Times are integers, UTC seconds. Whatever must be unique or within a range is a constraint here
as well as a check above: the database is the last to be fooled.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
    literal_column,
    text,
)

REVISION: Final = "0012"  # the migration that makes exactly these tables
# Programs before 0007 know no policies: they would let anybody in who has the code.
OLDEST_SERVED: Final = "0007"  # whose programs still run on them

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite numbers rows by itself only where the column is an INTEGER, which has 64 bits there.
BIG_NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")

authorities = Table(
    "authorities",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("purpose", String(16), nullable=False),
    Column("certificate_pem", Text, nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    Column("fingerprint", String(64), nullable=False, unique=True),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("imported", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("origin", String(320), nullable=True),  # "namespace/secret" of one that Kubernetes keeps
    Column("state", String(16), nullable=False, server_default="active"),
    Column("since", BigInteger, nullable=False, server_default="0"),  # of the state
    Column("due_at", BigInteger, nullable=True),  # when the next state is, or may be, its
    Column("family", Integer, nullable=True),  # id of its first generation; none for that one
    Column(
        "cross_pem", Text, nullable=False, server_default=text("''")
    ),  # as its predecessor signed it
    Column(
        "back_pem", Text, nullable=False, server_default=text("''")
    ),  # as its successor signed it
    CheckConstraint("state IN ('prepared', 'active', 'retired', 'ended')", name="state_known"),
    CheckConstraint("purpose IN ('site', 'server')", name="purpose_known"),
    CheckConstraint("imported IN (0, 1)", name="imported_is_boolean"),
    CheckConstraint("not_after > not_before", name="validity_is_positive"),
)
# One CA signs for the server itself; those before it are trusted still, for a while.
_SIGNS_FOR_SERVER: Final = "purpose = 'server' AND state = 'active'"
Index(
    "uq_authorities_one_active_server",
    authorities.c.purpose,
    unique=True,
    sqlite_where=text(_SIGNS_FOR_SERVER),
    postgresql_where=text(_SIGNS_FOR_SERVER),
)

server_certificates = Table(
    "server_certificates",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("authority_id", ForeignKey("authorities.id"), nullable=True),  # of ours, if it is one
    Column("certificate_pem", Text, nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    Column("fingerprint", String(64), nullable=False, unique=True),
    Column("not_after", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column(
        "origin", String(16), nullable=False, server_default=text("''")
    ),  # "secret": somebody else's
    Column(
        "ca_pem", Text, nullable=False, server_default=text("''")
    ),  # whom to trust for such a one
)

# One row: how the cluster lets us be reached, as it was last seen.
addresses = Table(
    "addresses",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("url", Text, nullable=False),  # empty while there is none
    Column("hosts", Text, nullable=False),  # further ones, separated by commas
    Column("problem", Text, nullable=False),  # why there is none, to people
    Column("changed_at", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

sites = Table(
    "sites",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("issuer_id", ForeignKey("authorities.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("origin", String(16), nullable=True),  # "kubernetes": it stands for a namespace
    CheckConstraint("revision >= 1", name="revision_is_positive"),
    # A removed site's number is never used again: what is kept in memory is kept under it.
    sqlite_autoincrement=True,
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("site_id", ForeignKey("sites.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("role", String(16), nullable=False),
    Column("host", String(253), nullable=False),
    Column("port", Integer, nullable=False),
    Column("group_name", String(63), nullable=False),
    UniqueConstraint("site_id", "group_name", "role", "host", "port"),
    CheckConstraint("role IN ('inter-router', 'edge')", name="role_known"),
    CheckConstraint("port BETWEEN 1 AND 65535", name="port_in_range"),
    CheckConstraint("position >= 0", name="position_not_negative"),
)

grants = Table(
    "grants",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("site_id", ForeignKey("sites.id"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("concealed_code", String(200), nullable=False),
    Column("issuer_id", ForeignKey("authorities.id"), nullable=True),
    Column("allowed", Integer, nullable=False),
    Column("spent", Integer, nullable=False),
    Column("cost", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger, nullable=True),
    Column("policy", Text, nullable=True),  # JSON; none of most grants
    Column("not_before", BigInteger, nullable=True),
    Column("labels", Text, nullable=True),  # JSON
    Column("description", Text, nullable=True),
    UniqueConstraint("site_id", "name"),
    CheckConstraint("length(id) = 36", name="id_is_uuid"),
    CheckConstraint("allowed BETWEEN 1 AND 1000000", name="allowed_in_range"),
    CheckConstraint("spent BETWEEN 0 AND allowed", name="spent_within_allowed"),
    CheckConstraint("cost BETWEEN 1 AND 2147483647", name="cost_in_range"),
    CheckConstraint("expires_at > created_at", name="window_is_positive"),
    sqlite_with_rowid=False,  # found by id alone: one tree to descend instead of two
)
# The orders of lists. None holds what a redemption changes, so that it touches none of them.
Index(None, grants.c.expires_at)
Index(None, grants.c.created_at, grants.c.id)
Index(None, grants.c.name, grants.c.id)
Index(None, grants.c.site_id, grants.c.created_at, grants.c.id)
Index(
    None,
    grants.c.revoked_at,
    sqlite_where=grants.c.revoked_at.is_not(None),
    postgresql_where=grants.c.revoked_at.is_not(None),
)

# The labels of grants once more, one by one, to find grants by them.
grant_labels = Table(
    "grant_labels",
    metadata,
    Column("label", String(320), primary_key=True),
    Column("value", String(63), primary_key=True),
    Column("grant_id", ForeignKey("grants.id", ondelete="CASCADE"), primary_key=True),
    sqlite_with_rowid=False,
)
Index(None, grant_labels.c.grant_id)

# How often a subject has redeemed a grant that bounds it. The bound stands in each row, so that
# the database itself refuses to go beyond.
subject_uses = Table(
    "subject_uses",
    metadata,
    Column("grant_id", ForeignKey("grants.id", ondelete="CASCADE"), primary_key=True),
    Column("subject", String(253), primary_key=True),
    Column("used", Integer, nullable=False),
    Column("most", Integer, nullable=False),
    CheckConstraint("used BETWEEN 1 AND most", name="used_within_most"),
    sqlite_with_rowid=False,
)

redemptions = Table(
    "redemptions",
    metadata,
    Column("id", BIG_NUMBER, primary_key=True),
    Column("grant_id", ForeignKey("grants.id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("name", String(253), nullable=False),
    Column("subject", String(253), nullable=False),
    Column("peer", String(64), nullable=False),
    Column("serial", String(40), nullable=False, unique=True),
    # Unique as well, since it covers the serial: an index more would cost each redemption a page.
    Column("fingerprint", String(64), nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("redeemed_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger, nullable=True),  # of the certificate
    # The generation that signed it: no reference, which would cost each redemption a look.
    Column("issuer_id", Integer, nullable=True),
    Column("superseded_at", BigInteger, nullable=True),  # when a renewed one has taken its place
    UniqueConstraint("grant_id", "ordinal"),
    CheckConstraint("ordinal >= 1", name="ordinal_is_positive"),
)

# Certificates of a redemption after the first, each in the place of one before.
renewals = Table(
    "renewals",
    metadata,
    Column("id", BIG_NUMBER, primary_key=True),
    Column("redemption_id", ForeignKey("redemptions.id", ondelete="CASCADE"), nullable=False),
    Column("replaces", String(40), nullable=False),  # serial of the one that was in hand
    Column("key_hash", LargeBinary, nullable=False),  # SHA-256 of its SubjectPublicKeyInfo
    Column("certificate_pem", Text, nullable=False),  # for who asks again, the answer being lost
    Column("serial", String(40), nullable=False, unique=True),
    Column("fingerprint", String(64), nullable=False),
    Column("issuer_id", Integer, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("issued_at", BigInteger, nullable=False),
    Column("superseded_at", BigInteger, nullable=True),
    Column("revoked_at", BigInteger, nullable=True),
    UniqueConstraint("replaces", "key_hash"),
    CheckConstraint("length(key_hash) = 32", name="key_hash_is_whole"),
)
Index(None, renewals.c.redemption_id)

# Rows that a revocation list has to have: few, and found without a look at all the others.
for _listed in (redemptions, renewals):
    for _moment in (_listed.c.revoked_at, _listed.c.superseded_at):
        Index(
            None,
            _moment,
            sqlite_where=_moment.is_not(None),
            postgresql_where=_moment.is_not(None),
        )

# What is known of a grant that stands for an AccessGrant resource. The code is sealed, because the
# resource's status has to tell it; it is deleted when the resource is gone.
access_grants = Table(
    "access_grants",
    metadata,
    Column("grant_id", ForeignKey("grants.id", ondelete="CASCADE"), primary_key=True),
    Column("namespace", String(63), nullable=False),
    Column("name", String(253), nullable=False),
    Column("sealed_code", LargeBinary, nullable=False),
    Column("window_seconds", BigInteger, nullable=False),
    Column("spent_before", Integer, nullable=False),  # when it came to us; no rows tell of these
    CheckConstraint("window_seconds >= 1", name="window_is_positive"),
    CheckConstraint("spent_before >= 0", name="spent_before_not_negative"),
)
Index(None, access_grants.c.namespace, access_grants.c.name)

# Answers of redemptions, for claims that come again because theirs was lost on its way. No
# reference to the grant: rows live for minutes, and a removed grant is not found to begin with.
answers = Table(
    "answers",
    metadata,
    Column("id", BIG_NUMBER, primary_key=True),
    Column("claim_key", LargeBinary, nullable=False, unique=True),
    Column("ordinal", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    CheckConstraint("length(claim_key) = 16", name="claim_key_is_whole"),
    CheckConstraint("ordinal >= 1", name="ordinal_is_positive"),
)

# Who came with the right code of a grant after its last redemption, and was nobody known.
suspicions = Table(
    "suspicions",
    metadata,
    Column("id", BIG_NUMBER, primary_key=True),
    Column("grant_id", ForeignKey("grants.id", ondelete="CASCADE"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("name", String(253), nullable=False),
    Column("subject", String(253), nullable=False),
    Column("peer", String(64), nullable=False),
    UniqueConstraint("grant_id", "subject", "peer"),
)

# Wrong codes of a grant, as a leaky bucket that all replicas fill: `empty_at` is the moment, in
# milliseconds since 1970, at which it will have leaked empty (GCRA's theoretical arrival time).
wrong_codes = Table(
    "wrong_codes",
    metadata,
    Column("grant_id", ForeignKey("grants.id", ondelete="CASCADE"), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("empty_at", BigInteger, nullable=False),
    CheckConstraint("count >= 1", name="count_is_positive"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BIG_NUMBER, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("act", String(40), nullable=False),
    Column("actor", String(300), nullable=False),
    Column("target", String(300), nullable=False),
    Column("details", Text, nullable=False),
    # Numbers are never used again, so a row that was cut off the end leaves a gap behind.
    sqlite_autoincrement=True,
)
# The story of one thing. Redemptions are left out: their own table has them, by grant, and an index
# with them would cost each redemption a page.
BESIDES_REDEMPTIONS: Final = audit.c.act != literal_column("'grant.redeemed'")
Index(
    None,
    audit.c.target,
    audit.c.id,
    sqlite_where=BESIDES_REDEMPTIONS,
    postgresql_where=BESIDES_REDEMPTIONS,
)

# The place of each row of the audit log in its chain, and links of it that were signed. No
# reference: what is missing is to be seen, not prevented.
audit_links = Table(
    "audit_links",
    metadata,
    Column("position", BIG_NUMBER, primary_key=True, autoincrement=False),
    Column("audit_id", BigInteger, nullable=False, unique=True),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("position >= 1", name="position_is_positive"),
    CheckConstraint("length(hash) = 32", name="hash_is_whole"),
)
audit_heads = Table(
    "audit_heads",
    metadata,
    Column("id", BIG_NUMBER, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("highest_id", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("signature", LargeBinary, nullable=False),
    CheckConstraint("kind IN ('sealed', 'pruned')", name="kind_known"),
    CheckConstraint("length(hash) = 32", name="hash_is_whole"),
)
Index(None, audit_heads.c.position)

# Who may use the admin API with a token. Of the token itself no more is kept than a keyed hash.
admin_tokens = Table(
    "admin_tokens",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("concealed", String(200), nullable=False),
    Column("verbs", Text, nullable=False),  # separated by commas
    Column("sites", Text, nullable=False),  # likewise, or *
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(300), nullable=False),
    Column("expires_at", BigInteger, nullable=True),
    Column("revoked_at", BigInteger, nullable=True),
    Column("last_used_at", BigInteger, nullable=True),
    Column("last_used_from", String(64), nullable=True),
    CheckConstraint("length(id) = 12", name="id_is_whole"),
    CheckConstraint("expires_at > created_at", name="window_is_positive"),
)
Index(None, admin_tokens.c.name, admin_tokens.c.id)
_NOT_REVOKED: Final = "revoked_at IS NULL"
Index(
    "uq_admin_tokens_name_not_revoked",
    admin_tokens.c.name,
    unique=True,
    sqlite_where=text(_NOT_REVOKED),
    postgresql_where=text(_NOT_REVOKED),
)

# Answers of creations, for who asks again under the same key. They may hold what is shown once.
creations = Table(
    "creations",
    metadata,
    Column("id", BIG_NUMBER, primary_key=True),
    Column("asked", LargeBinary, nullable=False, unique=True),  # who, what, under which key
    Column("body", LargeBinary, nullable=False),  # hash of what was sent
    Column("sealed", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    CheckConstraint("length(asked) = 32", name="asked_is_whole"),
    CheckConstraint("length(body) = 32", name="body_is_whole"),
)

# Who is told of events, and how far along the chain of the audit log each has got.
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("url", String(2048), nullable=False),
    Column("events", Text, nullable=False),  # separated by commas
    Column("sites", Text, nullable=True),  # separated by commas; none: of every site
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("ca_pem", Text, nullable=True),  # none: the CAs that the system trusts
    Column("enabled", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    CheckConstraint("length(id) = 36", name="id_is_uuid"),
    CheckConstraint("enabled IN (0, 1)", name="enabled_is_boolean"),
    CheckConstraint("position >= 0", name="position_not_negative"),
)

# Events on their way to a webhook, and those that were given up; what has arrived is deleted.
deliveries = Table(
    "deliveries",
    metadata,
    Column("webhook_id", ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True),
    Column("position", BIG_NUMBER, primary_key=True, autoincrement=False),
    Column("event_id", String(40), nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("status", Integer, nullable=True),  # of the last answer
    Column("failure", String(16), nullable=True),  # of the last attempt
    Column("dead_at", BigInteger, nullable=True),  # when it was given up
    CheckConstraint("attempts >= 0", name="attempts_not_negative"),
)
_PENDING: Final = "dead_at IS NULL"
Index(
    "ix_deliveries_pending",
    deliveries.c.webhook_id,
    deliveries.c.next_at,
    sqlite_where=text(_PENDING),
    postgresql_where=text(_PENDING),
)
_DEAD: Final = "dead_at IS NOT NULL"
Index(
    "ix_deliveries_dead",
    deliveries.c.dead_at,
    sqlite_where=text(_DEAD),
    postgresql_where=text(_DEAD),
)

# Certificates of which it was told that they end soon, so that it is told once.
expiry_notices = Table(
    "expiry_notices",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("not_after", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
Index(None, expiry_notices.c.not_after)

# One row that the readiness check writes, so that "writable" is seen and not guessed.
heartbeat = Table(
    "heartbeat",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

# One row: the number of the one who leads, raised by whoever begins to. What one who led before
# still wants to write is refused.
leadership = Table(
    "leadership",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("term", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

# One row: the oldest revision whose programs still run on these tables.
compatibility = Table(
    "compatibility",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("oldest_revision", String(32), nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)


def create(connection: Connection) -> None:
    """Make all tables in an empty database, with the rows that they begin with.

    A test holds what comes out against what the migrations make of an empty database.
    """
    metadata.create_all(connection)
    connection.execute(insert(heartbeat).values(id=1, at=0))
    connection.execute(insert(addresses).values(id=1, url="", hosts="", problem="", changed_at=0))
    connection.execute(insert(leadership).values(id=1, term=0))
    connection.execute(insert(compatibility).values(id=1, oldest_revision=OLDEST_SERVED))
    revision = Column("version_num", String(32), nullable=False)
    mark = Table(
        "alembic_version",
        MetaData(),
        revision,
        PrimaryKeyConstraint(revision, name="alembic_version_pkc"),
    )
    mark.create(connection)
    connection.execute(insert(mark).values(version_num=REVISION))
