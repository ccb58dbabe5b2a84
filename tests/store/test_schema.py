import asyncio
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    ForeignKeyConstraint,
    MetaData,
    Table,
    UniqueConstraint,
    delete,
    func,
    insert,
    inspect,
    select,
)

from app.domain import codes, grants, sites
from app.domain.authorities import Purpose, State
from app.domain.grants import Redemption
from app.domain.sites import Role
from app.errors import Broken, Conflict, Reason, Refused
from app.store import addresses, authorities, health, schema
from app.store.access_grants import NO_ISSUER, ORIGIN
from app.store.addresses import AddressRow
from app.store.engine import _MIGRATIONS, Database
from tests.builders import GRANT_ID, NOW, WINDOW, a_redemption, an_authority
from tests.postgresql import Cluster
from tests.store.spending import Outcome, all_of, opened, spend

OTHER_ID = GRANT_ID.replace("2", "3")
FIRST = "0001"
OLDEST = "0007"
# With a row that is there from the beginning.
BEGUN = {"heartbeat", "compatibility", "addresses", "leadership"}

# One valid row of each table, in an order in which they can be inserted.
ROWS: Mapping[str, Mapping[str, Any]] = {
    "authorities": {
        "id": 1, "name": "site-ca", "purpose": "site", "certificate_pem": "pem",
        "sealed_key": b"k", "fingerprint": "f1", "not_before": 1, "not_after": 2, "imported": 0,
        "created_at": NOW, "state": "active", "since": NOW, "cross_pem": "", "back_pem": "",
    },
    "server_certificates": {
        "id": 1, "authority_id": 1, "certificate_pem": "pem", "sealed_key": b"k",
        "fingerprint": "f1", "not_after": 2, "created_at": NOW, "origin": "", "ca_pem": "",
    },
    "sites": {"id": 1, "name": "west", "issuer_id": 1, "revision": 1, "created_at": NOW},
    "endpoints": {
        "site_id": 1, "position": 0, "role": "edge", "host": "h", "port": 1, "group_name": "g",
    },
    "grants": {
        "id": GRANT_ID, "site_id": 1, "name": "to-west", "concealed_code": "c", "issuer_id": None,
        "allowed": 2, "spent": 0, "cost": 1, "created_at": NOW, "expires_at": NOW + 1,
        "revoked_at": None, "policy": '{"perSubject":1}', "not_before": NOW, "labels": '{"a":"b"}',
        "description": "d",
    },
    "grant_labels": {"label": "a", "value": "b", "grant_id": GRANT_ID},
    "subject_uses": {"grant_id": GRANT_ID, "subject": "s", "used": 1, "most": 2},
    "redemptions": {
        "id": 1, "grant_id": GRANT_ID, "ordinal": 1, "name": "n", "subject": "s", "peer": "p",
        "serial": "s1", "fingerprint": "f1", "not_after": 1, "redeemed_at": 1, "revoked_at": None,
        "issuer_id": 1, "superseded_at": None,
    },
    "renewals": {
        "id": 1, "redemption_id": 1, "replaces": "s1", "key_hash": b"k" * 32, "serial": "r1",
        "fingerprint": "g1", "certificate_pem": "pem", "issuer_id": 1, "issued_at": 1,
        "not_after": 2, "superseded_at": None, "revoked_at": None,
    },
    "access_grants": {
        "grant_id": GRANT_ID, "namespace": "west", "name": "to-west", "sealed_code": b"c",
        "window_seconds": 1, "spent_before": 0,
    },
    "answers": {
        "id": 1, "claim_key": b"k" * 16, "ordinal": 1, "sealed": b"s", "expires_at": 1,
    },
    "suspicions": {
        "id": 1, "grant_id": GRANT_ID, "at": 1, "name": "n", "subject": "s", "peer": "p",
    },
    "wrong_codes": {"grant_id": GRANT_ID, "count": 1, "empty_at": 1},
    "audit": {"id": 1, "at": 1, "act": "a", "actor": "a", "target": "t", "details": "{}"},
    "audit_links": {"position": 1, "audit_id": 1, "hash": b"h" * 32},
    "audit_heads": {
        "id": 1, "kind": "sealed", "position": 1, "at": NOW, "highest_id": 1, "hash": b"h" * 32,
        "key_id": "k", "signature": b"s",
    },
    "admin_tokens": {
        "id": "a" * 12, "name": "ci", "concealed": "c", "verbs": "read", "sites": "*",
        "created_at": 1, "created_by": "cli:root", "expires_at": 2, "revoked_at": None,
        "last_used_at": 1, "last_used_from": "p",
    },
    "creations": {
        "id": 1, "asked": b"a" * 32, "body": b"b" * 32, "sealed": b"s", "expires_at": 1,
    },
    "webhooks": {
        "id": GRANT_ID, "name": "portal", "url": "https://h/", "events": "redeemed", "sites": None,
        "sealed_secret": b"s", "ca_pem": None, "enabled": 1, "created_at": NOW, "position": 0,
    },
    "deliveries": {
        "webhook_id": GRANT_ID, "position": 1, "event_id": "1-ab", "body": "{}", "attempts": 0,
        "next_at": NOW, "status": None, "failure": None, "dead_at": None,
    },
    "expiry_notices": {"serial": "s1", "not_after": NOW},
    "addresses": {"id": 1, "url": "u", "hosts": "h", "problem": "p", "changed_at": 1},
    "heartbeat": {"id": 1, "at": 1},
    "leadership": {"id": 1, "term": 1},
    "compatibility": {"id": 1, "oldest_revision": "0007"},
}  # fmt: skip

# A second row that differs from the first in everything that is unique.
OTHERS: Mapping[str, Mapping[str, Any]] = {
    "authorities": {"id": 2, "name": "other", "fingerprint": "f2"},
    "server_certificates": {"id": 2, "fingerprint": "f2"},
    "sites": {"id": 2, "name": "east"},
    "endpoints": {"position": 1, "port": 2},
    "grants": {"id": OTHER_ID, "name": "other"},
    "grant_labels": {"value": "c"},
    "subject_uses": {"subject": "t"},
    "redemptions": {"id": 2, "ordinal": 2, "serial": "s2", "fingerprint": "f2"},
    "renewals": {"id": 2, "key_hash": b"l" * 32, "serial": "r2"},
    "answers": {"id": 2, "claim_key": b"l" * 16},
    "suspicions": {"id": 2, "peer": "q"},
    "audit": {"id": 2},
    "audit_links": {"position": 2, "audit_id": 2},
    "audit_heads": {"id": 2},
    "admin_tokens": {"id": "b" * 12, "name": "portal"},
    "creations": {"id": 2, "asked": b"c" * 32},
    "webhooks": {"id": OTHER_ID, "name": "other"},
    "deliveries": {"position": 2},
    "expiry_notices": {"serial": "s2"},
}

# What each constraint must refuse in that second row, and what it must just let pass.
CHECKS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "ck_authorities_purpose_known": ({"purpose": "leaf"}, {"purpose": ""}, {"purpose": "SITE"}),
    "ck_authorities_imported_is_boolean": ({"imported": 2}, {"imported": -1}),
    "ck_authorities_state_known": ({"state": "new"}, {"state": ""}, {"state": "Active"}),
    "ck_authorities_validity_is_positive": ({"not_after": 1}, {"not_after": 0}),
    "ck_sites_revision_is_positive": ({"revision": 0}, {"revision": -1}),
    "ck_endpoints_role_known": ({"role": "interior"}, {"role": "Edge"}),
    "ck_endpoints_port_in_range": ({"port": 0}, {"port": 65536}, {"port": "http"}),
    "ck_endpoints_position_not_negative": ({"position": -1},),
    "ck_grants_id_is_uuid": ({"id": GRANT_ID[1:]}, {"id": GRANT_ID + "0"}, {"id": ""}),
    "ck_grants_allowed_in_range": ({"allowed": 0}, {"allowed": 1_000_001}),
    "ck_grants_spent_within_allowed": ({"spent": -1}, {"spent": 3}),
    "ck_grants_cost_in_range": ({"cost": 0}, {"cost": 2**31}),
    "ck_grants_window_is_positive": ({"expires_at": NOW}, {"expires_at": NOW - 1}),
    "ck_subject_uses_used_within_most": ({"used": 0}, {"used": 3}, {"most": 0}),
    "ck_redemptions_ordinal_is_positive": ({"ordinal": 0}, {"ordinal": -1}),
    "ck_renewals_key_hash_is_whole": ({"key_hash": b"k" * 31}, {"key_hash": b"k" * 33}),
    "ck_access_grants_spent_before_not_negative": ({"spent_before": -1},),
    "ck_access_grants_window_is_positive": ({"window_seconds": 0}, {"window_seconds": -1}),
    "ck_answers_claim_key_is_whole": ({"claim_key": b"k" * 15}, {"claim_key": b"k" * 17}),
    "ck_answers_ordinal_is_positive": ({"ordinal": 0}, {"ordinal": -1}),
    "ck_wrong_codes_count_is_positive": ({"count": 0}, {"count": -1}),
    "ck_audit_links_position_is_positive": ({"position": 0}, {"position": -1}),
    "ck_audit_links_hash_is_whole": ({"hash": b"h" * 31}, {"hash": b"h" * 33}),
    "ck_audit_heads_kind_known": ({"kind": "cut"}, {"kind": ""}),
    "ck_audit_heads_hash_is_whole": ({"hash": b"h" * 31}, {"hash": b"h" * 33}),
    "ck_admin_tokens_id_is_whole": ({"id": "a" * 11}, {"id": ""}),
    "ck_admin_tokens_window_is_positive": ({"expires_at": 1}, {"expires_at": 0}),
    "ck_creations_asked_is_whole": ({"asked": b"a" * 31}, {"asked": b"a" * 33}),
    "ck_creations_body_is_whole": ({"body": b"b" * 31}, {"body": b"b" * 33}),
    "ck_webhooks_id_is_uuid": ({"id": GRANT_ID[1:]}, {"id": ""}),
    "ck_webhooks_enabled_is_boolean": ({"enabled": 2}, {"enabled": -1}),
    "ck_webhooks_position_not_negative": ({"position": -1},),
    "ck_deliveries_attempts_not_negative": ({"attempts": -1},),
    "ck_addresses_one_row": ({"id": 2}, {"id": 0}),
    "ck_heartbeat_one_row": ({"id": 2}, {"id": 0}),
    "ck_leadership_one_row": ({"id": 2}, {"id": 0}),
    "ck_compatibility_one_row": ({"id": 2}, {"id": 0}),
}
UNIQUES: Mapping[str, tuple[str, ...]] = {
    "uq_authorities_name": ("name",),
    "uq_authorities_fingerprint": ("fingerprint",),
    "uq_server_certificates_fingerprint": ("fingerprint",),
    "uq_sites_name": ("name",),
    "uq_endpoints_site_id_group_name_role_host_port": (
        "site_id", "group_name", "role", "host", "port",
    ),
    "uq_grants_site_id_name": ("site_id", "name"),
    "uq_redemptions_serial": ("serial",),
    "uq_redemptions_grant_id_ordinal": ("grant_id", "ordinal"),
    "uq_renewals_serial": ("serial",),
    "uq_renewals_replaces_key_hash": ("replaces", "key_hash"),
    "uq_answers_claim_key": ("claim_key",),
    "uq_audit_links_audit_id": ("audit_id",),
    "uq_webhooks_name": ("name",),
    "uq_suspicions_grant_id_subject_peer": ("grant_id", "subject", "peer"),
    "uq_creations_asked": ("asked",),
}  # fmt: skip
FOREIGN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "fk_server_certificates_authority_id": ("server_certificates", {"authority_id": 99}),
    "fk_sites_issuer_id": ("sites", {"issuer_id": 99}),
    "fk_endpoints_site_id": ("endpoints", {"site_id": 99}),
    "fk_grants_site_id": ("grants", {"site_id": 99}),
    "fk_grants_issuer_id": ("grants", {"issuer_id": 99}),
    "fk_grant_labels_grant_id": ("grant_labels", {"grant_id": OTHER_ID}),
    "fk_subject_uses_grant_id": ("subject_uses", {"grant_id": OTHER_ID}),
    "fk_redemptions_grant_id": ("redemptions", {"grant_id": OTHER_ID}),
    "fk_renewals_redemption_id": ("renewals", {"redemption_id": 99}),
    "fk_access_grants_grant_id": ("access_grants", {"grant_id": OTHER_ID}),
    "fk_suspicions_grant_id": ("suspicions", {"grant_id": OTHER_ID}),
    "fk_deliveries_webhook_id": ("deliveries", {"webhook_id": OTHER_ID}),
    "fk_wrong_codes_grant_id": ("wrong_codes", {"grant_id": OTHER_ID}),
}
ALLOWED_EDGES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("authorities", {"imported": 1, "purpose": "server"}),
    ("endpoints", {"port": 65535, "role": "inter-router"}),
    ("grants", {"allowed": 1_000_000, "spent": 1_000_000, "cost": 2**31 - 1}),
    ("grants", {"allowed": 1, "spent": 1, "cost": 1}),
    ("grants", {"issuer_id": 1, "revoked_at": NOW, "expires_at": 2**62}),
    (
        "grants",
        {"policy": None, "not_before": None, "labels": None, "description": None},
    ),
    ("subject_uses", {"used": 2}),
    ("redemptions", {"ordinal": 1_000_000}),
    ("redemptions", {"issuer_id": None, "superseded_at": NOW}),
    ("renewals", {"issuer_id": 99, "superseded_at": NOW, "revoked_at": NOW}),
    ("authorities", {"origin": "n" * 63 + "/" + "s" * 253}),
    ("sites", {"origin": "kubernetes"}),
    ("authorities", {"state": "prepared", "due_at": NOW, "family": 1}),
    ("authorities", {"state": "retired", "sealed_key": b""}),
    ("authorities", {"state": "ended"}),
    ("server_certificates", {"authority_id": None, "origin": "secret"}),
    ("admin_tokens", {"expires_at": None, "last_used_at": None, "last_used_from": None}),
    ("admin_tokens", {"name": "ci", "revoked_at": 2}),
    ("webhooks", {"sites": "west", "ca_pem": "pem", "enabled": 0, "position": 2**62}),
    ("deliveries", {"status": 500, "failure": "status", "dead_at": NOW}),
)


def fill(database: Database) -> Database:
    with database.writing() as connection:
        for table in BEGUN:
            connection.execute(delete(schema.metadata.tables[table]))
        for table, row in ROWS.items():
            connection.execute(insert(schema.metadata.tables[table]).values(row))
    return database


@pytest.fixture
def filled(database: Database) -> Database:
    return fill(database)


@pytest.fixture(scope="module")
def filled_sqlite(
    migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    path = tmp_path_factory.mktemp("filled") / "grantserver.db"
    shutil.copy(migrated_file, path)
    database = Database(f"sqlite:///{path}")
    yield fill(database)
    database.close()


@pytest.fixture(scope="module")
def filled_postgres(cluster: Cluster) -> Iterator[Database]:
    url = cluster.create()
    database = Database(url)
    yield fill(database)
    database.close()
    cluster.drop(url)


@pytest.fixture
def unharmed(request: pytest.FixtureRequest, kind: str) -> Database:
    """Open a filled database that many tests share: whatever they do to it, it must refuse."""
    made = request.getfixturevalue(f"filled_{kind}")
    assert isinstance(made, Database)
    return made


def put(database: Database, table: str, row: Mapping[str, Any]) -> None:
    with database.writing() as connection:
        connection.execute(insert(schema.metadata.tables[table]).values(row))


def refusal(database: Database, table: str, row: Mapping[str, Any]) -> str:
    """What the database says of a row that it must not take."""
    with pytest.raises((Conflict, Broken)) as refused:
        put(database, table, row)
    return str(refused.value)


def count(database: Database, table: str) -> int:
    with database.reading() as connection:
        query = select(func.count()).select_from(schema.metadata.tables[table])
        return connection.execute(query).scalar_one()


def table_of(constraint: str) -> str:
    name = constraint.split("_", 1)[1]
    return max((table for table in ROWS if name.startswith(table)), key=len)


def second(table: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**ROWS[table], **OTHERS.get(table, {}), **changes}


def constraints(kind: type[Any]) -> set[str]:
    return {
        str(constraint.name)
        for table in schema.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, kind)
    }


def in_full(url: str) -> tuple[Any, ...]:
    """Describe everything that a database holds beside its rows."""
    database = Database(url)
    with database.reading() as connection:
        found = inspect(connection)
        described = tuple(
            (
                table,
                [
                    (one["name"], str(one["type"]), one["nullable"], one["default"])
                    for one in found.get_columns(table)
                ],
                found.get_pk_constraint(table),
                by_name(found.get_foreign_keys(table)),
                by_name(found.get_unique_constraints(table)),
                by_name(found.get_check_constraints(table)),
                by_name(found.get_indexes(table)),
                connection.dialect.name == "sqlite"
                and "AUTOINCREMENT" in sql_of(connection, table),
            )
            for table in sorted(found.get_table_names())
        )
    database.close()
    return described


def rows_of(url: str) -> Mapping[str, list[tuple[Any, ...]]]:
    """Every row of a database, its revision included."""
    database, tables = Database(url), MetaData()
    with database.reading() as connection:
        tables.reflect(connection)
        rows = {
            table.name: [tuple(row) for row in connection.execute(select(table))]
            for table in tables.sorted_tables
        }
    database.close()
    return rows


def by_name(rows: Any) -> list[dict[str, Any]]:
    return sorted((plain(row) for row in rows), key=lambda row: row["name"])


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: plain(value) if isinstance(value, Mapping) else str(value)
        for key, value in row.items()
    }


def sql_of(connection: Connection, table: str) -> str:
    query = f"SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{table}'"
    return str(connection.exec_driver_sql(query).scalar())


def test_the_migrations_make_exactly_the_tables_of_the_schema(
    database: Database, url: str, empty_url: str
) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, schema.metadata) == []
    # Alembic does not compare CHECK constraints, predicates of indexes and AUTOINCREMENT.
    upgrade_to(empty_url, "head")
    assert in_full(url) == in_full(empty_url)
    assert rows_of(url) == rows_of(empty_url)


def test_the_newest_migration_is_our_revision_and_the_only_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.REVISION]


def test_a_new_database_holds_the_rows_that_it_begins_with_and_nothing_else(
    database: Database,
) -> None:
    for table in schema.metadata.tables:
        assert count(database, table) == (1 if table in BEGUN else 0)


def upgrade_to(url: str, revision: str) -> None:
    """Be an older release."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    database = Database(url)
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    database.close()


def test_the_schema_names_the_oldest_release_that_it_serves(database: Database) -> None:
    with database.reading() as connection:
        oldest = connection.execute(select(schema.compatibility.c.oldest_revision)).scalar_one()
    assert oldest == OLDEST
    assert oldest <= schema.REVISION


@pytest.mark.parametrize("later", [False, True], ids=["before the upgrade", "after the upgrade"])
def test_rows_as_every_release_that_is_served_writes_them_are_taken(
    empty_url: str, *, later: bool
) -> None:
    """The oldest one knows its own columns only; its rows are there before and come after."""
    upgrade_to(empty_url, OLDEST)
    old = MetaData()
    database = Database(empty_url)
    with database.reading() as connection:
        old.reflect(connection)
    if later:
        database.upgrade()
    with database.writing() as connection:
        for table in BEGUN & set(old.tables):
            connection.execute(delete(old.tables[table]))
        for table in ROWS:
            if table in old.tables:
                known = old.tables[table].columns.keys()
                row = {name: value for name, value in ROWS[table].items() if name in known}
                connection.execute(insert(old.tables[table]).values(row))
    database.upgrade()
    database.check_revision()
    for table in old.tables:
        if table != "alembic_version":
            assert count(database, table) == 1
            with database.reading() as connection:  # and this release can read them
                connection.execute(select(schema.metadata.tables[table])).one()
    database.close()


def test_what_was_there_before_generations_were_known_is_active_and_ours(empty_url: str) -> None:
    """The database of the release before, with what it has served and issued."""
    upgrade_to(empty_url, "0003")
    database, old = Database(empty_url), MetaData()
    with database.writing() as connection:
        old.reflect(connection)
        for table in ("authorities", "server_certificates"):
            known = old.tables[table].columns.keys()
            row = {name: value for name, value in ROWS[table].items() if name in known}
            connection.execute(insert(old.tables[table]).values(row))
        other = {**second("authorities", {"purpose": "server"}), "name": "server-ca"}
        known = old.tables["authorities"].columns.keys()
        row = {name: value for name, value in other.items() if name in known}
        connection.execute(insert(old.tables["authorities"]).values(row))
    database.upgrade()
    with database.reading() as connection:
        for authority in authorities.every(connection):
            assert (authority.state, authority.since, authority.due_at) == (State.ACTIVE, 0, None)
            assert (authority.family, authority.root) == (None, authority.id)
            assert (authority.cross_pem, authority.back_pem) == ("", "")
        kept = authorities.current_server_certificate(connection)
        assert kept is not None
        assert (kept.authority_id, kept.origin, kept.ca_pem) == (1, "", "")
        assert addresses.read(connection) == AddressRow(url="")
    database.close()


def test_a_database_of_the_first_release_is_brought_to_this_one_with_all_that_is_in_it(
    empty_url: str,
) -> None:
    """Revision by revision, as somebody who skipped no release; what was spent stays spent."""
    upgrade_to(empty_url, FIRST)
    database, old = Database(empty_url), MetaData()
    grants_then: tuple[dict[str, Any], ...] = (
        {"allowed": 2, "spent": 1, "expires_at": NOW + WINDOW},
        {"id": OTHER_ID, "name": "other", "allowed": 1, "spent": 1, "expires_at": NOW + WINDOW},
    )
    redemptions_then: tuple[dict[str, Any], ...] = (
        {},
        {"grant_id": OTHER_ID, "serial": "s2", "fingerprint": "f2"},
    )
    with database.writing() as connection:
        old.reflect(connection)
        for table in ("authorities", "server_certificates", "sites", "endpoints", "grants"):
            for changes in grants_then if table == "grants" else ({},):
                connection.execute(insert(old.tables[table]).values(known(old, table, changes)))
        for changes in redemptions_then:
            row = known(old, "redemptions", changes)
            del row["id"]  # the database numbers them
            connection.execute(insert(old.tables["redemptions"]).values(row))
        row = known(old, "audit", {})
        del row["id"]
        connection.execute(insert(old.tables["audit"]).values(row))
        then = contents(connection, old)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    revisions = [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()]
    assert revisions[-1] == FIRST
    for revision in reversed(revisions):
        upgrade_to(empty_url, revision)
    database.upgrade()
    database.check_revision()
    with database.reading() as connection:
        assert contents(connection, old) == then
    assert health.integrity_problems(database, NOW) == []

    async def the_rest() -> list[Outcome]:
        async with opened(database) as ledger:
            wanted = [
                a_redemption(serial=f"new-{number}", fingerprint=f"n{number}", grant_id=grant_id)
                for number, grant_id in enumerate((GRANT_ID, GRANT_ID, OTHER_ID))
            ]
            return await all_of([spend(ledger, one) for one in wanted])

    first, second_one, third = asyncio.run(the_rest())
    assert isinstance(first, Redemption)
    assert first.ordinal == 2
    for one in (second_one, third):
        assert isinstance(one, Refused)
        assert one.reason is Reason.USED_UP
    assert health.integrity_problems(database, NOW) == []
    database.close()


def known(old: MetaData, table: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A row as an older release writes it, who knows its own columns only."""
    names = old.tables[table].columns.keys()
    return {name: value for name, value in {**ROWS[table], **changes}.items() if name in names}


def contents(connection: Connection, tables: MetaData) -> Mapping[str, list[tuple[Any, ...]]]:
    """What is in the tables and columns of an older release, but for the revision."""
    return {
        table.name: sorted(map(tuple, connection.execute(select(table))), key=str)
        for table in tables.sorted_tables
        if table.name != "alembic_version"
    }


def test_there_is_a_violation_here_for_every_constraint() -> None:
    assert set(CHECKS) == constraints(CheckConstraint)
    assert set(UNIQUES) == constraints(UniqueConstraint)
    assert set(FOREIGN) == constraints(ForeignKeyConstraint)
    assert set(ROWS) == set(schema.metadata.tables)


def test_a_second_row_that_breaks_nothing_is_taken(filled: Database) -> None:
    for table in OTHERS:
        put(filled, table, second(table, {}))


@pytest.mark.parametrize(("table", "changes"), ALLOWED_EDGES)
def test_the_edges_of_the_ranges_are_taken(
    filled: Database, table: str, changes: Mapping[str, Any]
) -> None:
    put(filled, table, second(table, changes))


@pytest.mark.parametrize(
    ("constraint", "changes"),
    [(constraint, changes) for constraint, cases in CHECKS.items() for changes in cases],
)
def test_a_value_out_of_range_is_refused(
    unharmed: Database, kind: str, constraint: str, changes: Mapping[str, Any]
) -> None:
    table = table_of(constraint)
    said = refusal(unharmed, table, second(table, changes))
    assert re.search(
        {
            "sqlite": f"CHECK constraint failed: {constraint}$",
            # Some values do not even fit into the type.
            "postgres": f'violates check constraint "{constraint}"$|does not take a value',
        }[kind],
        said,
    )


@pytest.mark.parametrize(("constraint", "columns"), UNIQUES.items())
def test_what_must_be_unique_is_refused_the_second_time(
    unharmed: Database, kind: str, constraint: str, columns: tuple[str, ...]
) -> None:
    table = table_of(constraint)
    row = second(table, {column: ROWS[table][column] for column in columns})
    named = re.escape(", ".join(f"{table}.{column}" for column in columns))
    said = {
        "sqlite": f"UNIQUE constraint failed: {named}$",
        "postgres": f'violates unique constraint "{constraint}"$',
    }
    assert re.search(said[kind], refusal(unharmed, table, row))


@pytest.mark.parametrize("table", OTHERS)
def test_a_primary_key_is_refused_the_second_time(
    unharmed: Database, kind: str, table: str
) -> None:
    keys = [column.name for column in schema.metadata.tables[table].primary_key]
    said = {"sqlite": "UNIQUE constraint failed", "postgres": f'unique constraint "pk_{table}"'}
    row = second(table, {key: ROWS[table][key] for key in keys})
    assert said[kind] in refusal(unharmed, table, row)


def test_one_authority_signs_for_the_server_and_any_number_did_or_sign_for_others(
    filled: Database,
) -> None:
    put(filled, "authorities", second("authorities", {"purpose": "server"}))
    third = second("authorities", {"id": 3, "name": "third", "fingerprint": "f3"})
    assert "unique" in refusal(filled, "authorities", {**third, "purpose": "server"}).lower()
    for place, state in enumerate(("prepared", "retired", "ended", "retired")):
        other = {"id": 10 + place, "name": f"n{place}", "fingerprint": f"g{place}"}
        put(filled, "authorities", {**third, **other, "purpose": "server", "state": state})
    put(filled, "authorities", third)


@pytest.mark.parametrize("constraint", FOREIGN)
def test_a_reference_to_nothing_is_refused(unharmed: Database, kind: str, constraint: str) -> None:
    table, changes = FOREIGN[constraint]
    said = {
        "sqlite": "FOREIGN KEY constraint failed",
        "postgres": f'violates foreign key constraint "{constraint}"',
    }
    assert said[kind] in refusal(unharmed, table, second(table, changes))


def columns() -> Iterator[tuple[Table, Column[Any]]]:
    for table in schema.metadata.tables.values():
        for column in table.columns:
            yield table, column


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (table.name, column.name)
        for table, column in columns()
        if not column.nullable and (not column.primary_key or len(table.primary_key) > 1)
    ],
)
def test_what_must_be_there_is_refused_when_it_is_not(
    unharmed: Database, kind: str, table: str, column: str
) -> None:
    said = {
        "sqlite": f"NOT NULL constraint failed: {table}.{column}",
        "postgres": f'null value in column "{column}" of relation "{table}"',
    }
    assert said[kind] in refusal(unharmed, table, second(table, {column: None}))


def test_only_what_may_be_absent_is_nullable() -> None:
    nullable = {f"{table.name}.{column.name}" for table, column in columns() if column.nullable}
    assert nullable == {
        "webhooks.sites",
        "webhooks.ca_pem",
        "deliveries.status",
        "deliveries.failure",
        "deliveries.dead_at",
        "authorities.origin",
        "admin_tokens.expires_at",
        "admin_tokens.last_used_at",
        "admin_tokens.last_used_from",
        "admin_tokens.revoked_at",
        "authorities.due_at",
        "authorities.family",
        "server_certificates.authority_id",
        "sites.origin",
        "grants.issuer_id",
        "grants.revoked_at",
        "grants.policy",
        "grants.not_before",
        "grants.labels",
        "grants.description",
        "redemptions.revoked_at",
        "redemptions.issuer_id",
        "redemptions.superseded_at",
        "renewals.revoked_at",
        "renewals.superseded_at",
    }


@pytest.mark.parametrize("parent", ["authorities", "sites"])
def test_what_others_depend_on_cannot_be_deleted(unharmed: Database, parent: str) -> None:
    with pytest.raises(Conflict, match=r"(?i)foreign key"), unharmed.writing() as connection:
        connection.execute(delete(schema.metadata.tables[parent]))


def test_what_belongs_to_something_goes_with_it(filled: Database) -> None:
    with filled.writing() as connection:
        connection.execute(delete(schema.grants))
    for table in ("redemptions", "renewals", "access_grants", "suspicions", "wrong_codes"):
        assert count(filled, table) == 0
    with filled.writing() as connection:
        connection.execute(delete(schema.sites))
    assert count(filled, "endpoints") == 0


@pytest.mark.parametrize("table", ["sites", "audit"])
def test_a_number_is_never_used_again(filled: Database, table: str) -> None:
    numbered = schema.metadata.tables[table]
    row = {name: value for name, value in second(table, {}).items() if name != "id"}
    numbers = []
    with filled.writing() as connection:
        connection.execute(delete(schema.grants))
        for _ in range(2):
            connection.execute(delete(numbered))
            adding = insert(numbered).values(row).returning(numbered.c.id)
            numbers.append(connection.execute(adding).scalar_one())
    assert numbers[0] < numbers[1]


def length(table: str, column: str) -> int:
    return int(getattr(schema.metadata.tables[table].c[column].type, "length", 0))


def test_ranges_and_words_are_those_of_the_domain() -> None:
    text = {
        str(constraint.name): str(constraint.sqltext)
        for table in schema.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    words = re.findall("'([^']*)'", text["ck_endpoints_role_known"])
    assert sorted(words) == sorted(role.value for role in Role)
    words = re.findall("'([^']*)'", text["ck_authorities_purpose_known"])
    assert sorted(words) == sorted(purpose.value for purpose in Purpose)
    words = re.findall("'([^']*)'", text["ck_authorities_state_known"])
    assert sorted(words) == sorted(state.value for state in State)
    assert text["ck_grants_allowed_in_range"].endswith(f"1 AND {grants.MOST_REDEMPTIONS}")
    assert text["ck_grants_cost_in_range"].endswith(f"1 AND {sites.HIGHEST_COST}")
    assert text["ck_endpoints_port_in_range"].endswith(f"1 AND {sites.HIGHEST_PORT}")


def test_columns_are_wide_enough_for_what_the_domain_lets_pass() -> None:
    assert length("grants", "name") == length("sites", "name") == 63
    assert length("redemptions", "name") == length("redemptions", "subject") == 253
    assert length("endpoints", "host") == 253
    assert length("access_grants", "namespace") == length("sites", "name")  # a namespace is a label
    assert length("access_grants", "name") == 253
    assert length("authorities", "origin") >= 63 + len("/") + 253
    assert length("sites", "origin") >= len(ORIGIN)
    assert length("authorities", "name") >= len(NO_ISSUER)
    assert length("audit", "actor") >= len("site:") + 253
    assert length("audit", "target") >= len("authority/") + 253
    assert length("redemptions", "serial") >= 2 * 20
    assert length("renewals", "serial") == length("renewals", "replaces") >= 2 * 20
    assert length("authorities", "fingerprint") == len(an_authority().fingerprint)
    concealed = codes.conceal("x", {"0" * 8: b"x" * 32})
    assert length("grants", "concealed_code") >= len(concealed)


def test_grants_are_kept_in_one_tree_by_their_id(sqlite_database: Database) -> None:
    with sqlite_database.reading() as connection:
        sql = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'grants'")
        assert "WITHOUT ROWID" in sql.scalar_one()
