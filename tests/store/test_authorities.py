from dataclasses import replace

import pytest
from sqlalchemy import insert, select, update

from app.domain.authorities import Authority, Purpose, ServerCertificate, State
from app.errors import Broken, Conflict
from app.services import grants, sites
from app.store import authorities, schema
from app.store.engine import Database
from tests.builders import NOW, WINDOW, Stand, a_server_certificate, an_authority
from tests.services.clusters import a_cluster, admit
from tests.services.clusters import put as put_namespace


def add(database: Database, authority: Authority) -> Authority:
    with database.writing() as connection:
        return replace(authority, id=authorities.add(connection, authority))


def test_an_authority_comes_back_as_it_was_by_name_and_by_id(database: Database) -> None:
    added = add(database, an_authority(id=77, imported=True, sealed_key=b"\x00\xff"))
    assert added.id != 77
    with database.reading() as connection:
        assert authorities.by_name(connection, "site-ca") == added
        assert authorities.by_id(connection, added.id) == added
        assert authorities.every(connection) == [added]


def test_what_is_not_there_is_none(database: Database) -> None:
    with database.reading() as connection:
        assert authorities.by_name(connection, "site-ca") is None
        assert authorities.by_id(connection, 1) is None
        assert authorities.of_server(connection) is None
        assert authorities.every(connection) == []
        assert authorities.soonest_expiry(connection) is None
        assert authorities.current_server_certificate(connection) is None


def test_all_of_them_come_in_the_order_of_their_names(database: Database) -> None:
    for name in ("b", "c", "a"):
        add(database, an_authority(name=name))
    with database.reading() as connection:
        assert [one.name for one in authorities.every(connection)] == ["a", "b", "c"]


def test_a_name_or_certificate_that_is_kept_already_conflicts(database: Database) -> None:
    kept = add(database, an_authority())
    for twin in (an_authority(), an_authority(name="b", fingerprint=kept.fingerprint)):
        with pytest.raises(Conflict):
            add(database, twin)


def test_one_authority_signs_for_the_server_whatever_its_other_generations(
    database: Database,
) -> None:
    add(database, an_authority())
    old = add(
        database, an_authority(name="a", purpose=Purpose.SERVER, state=State.RETIRED, since=NOW)
    )
    server = add(
        database,
        an_authority(name="server-ca", purpose=Purpose.SERVER, family=old.id, cross_pem="cross"),
    )
    with database.reading() as connection:
        assert authorities.of_server(connection) == server
        assert authorities.server_family(connection) == [old, server]
    with pytest.raises(Conflict):
        add(database, an_authority(name="server-ca-2", purpose=Purpose.SERVER))


def test_generations_belong_to_the_first_of_them(database: Database) -> None:
    add(database, an_authority(name="other"))
    first = add(database, an_authority(name="b"))
    second = add(database, an_authority(name="a", family=first.id))
    with database.reading() as connection:
        for one in (first, second):
            assert authorities.family(connection, one.root) == [first, second]


def test_what_a_step_changes_is_written_and_the_rest_stays(database: Database) -> None:
    other = add(database, an_authority(name="other"))
    kept = add(database, an_authority())
    changed = replace(
        kept,
        name="site-ca-1",
        state=State.RETIRED,
        since=NOW + 1,
        due_at=NOW + 2,
        sealed_key=b"",
        cross_pem="c",
        back_pem="b",
    )
    with database.writing() as connection:
        authorities.change(connection, changed)
        assert authorities.by_id(connection, kept.id) == changed
        assert authorities.by_id(connection, other.id) == other
        with pytest.raises(Broken, match="gone"):
            authorities.change(connection, replace(changed, id=99))


def test_only_what_has_a_next_step_is_in_rotation(database: Database) -> None:
    ids = {state: add(database, an_authority(name=state.value, state=state)).id for state in State}
    with database.reading() as connection:
        assert authorities.in_rotation(connection) == [ids[State.PREPARED], ids[State.RETIRED]]


def test_sites_and_grants_are_handed_over_and_told(stand: Stand) -> None:
    with stand.database.writing() as connection:
        own = authorities.add(connection, an_authority(name="own-ca"))
        new = authorities.add(connection, an_authority(name="new-ca"))
    for name in ("plain", "mixed", "other"):
        stand.set_site(name)
    stand.set_site("led", issuer="own-ca")
    stand.make_grant(site="mixed", name="own", issuer="own-ca")
    stand.make_grant(site="mixed", name="plain")
    before = {one.name: one.revision for one in sites.every(stand.database)}
    with stand.database.writing() as connection:
        authorities.tell_sites(connection, [own])
        authorities.hand_over(connection, own, new)
    after = {one.name: one for one in sites.every(stand.database)}
    told = {name for name in after if after[name].revision > before[name]}
    assert told == {"led", "mixed"}
    issuers = {name: one.issuer for name, one in after.items()}
    assert issuers == {"led": "new-ca", "mixed": "site-ca", "plain": "site-ca", "other": "site-ca"}
    assert {one.name: one.issuer for one in grants.every(stand.database)} == {
        "own": "new-ca",
        "plain": None,
    }


def may_come(database: Database, made_until: int = NOW, now: int = NOW) -> bool:
    with database.reading() as connection:
        return authorities.tokens_may_come(
            connection, made_until=made_until, now=now, retry_seconds=600
        )


def test_a_token_may_come_while_its_grant_can_be_redeemed(stand: Stand) -> None:
    stand.set_site()
    assert not may_come(stand.database)
    grant = stand.make_grant(redemptions=1).grant
    assert may_come(stand.database)
    assert not may_come(stand.database, made_until=NOW - 1)
    assert may_come(stand.database, now=grant.expires_at - 1)
    assert not may_come(stand.database, now=grant.expires_at)
    with stand.database.writing() as connection:
        connection.execute(update(schema.grants).values(spent=1))
    assert not may_come(stand.database)
    with stand.database.writing() as connection:
        connection.execute(update(schema.grants).values(spent=0, revoked_at=NOW))
    assert not may_come(stand.database)


def test_who_redeemed_it_lately_may_come_again(stand: Stand) -> None:
    stand.set_site()
    grant = stand.make_grant(redemptions=1).grant
    last = grant.expires_at - 1
    with stand.database.writing() as connection:
        connection.execute(update(schema.grants).values(spent=1))
        row = {
            "id": 1, "grant_id": grant.id, "ordinal": 1, "name": "n", "subject": "s", "peer": "p",
            "serial": "s", "fingerprint": "f", "not_after": last + 5000, "redeemed_at": last,
        }  # fmt: skip
        connection.execute(insert(schema.redemptions).values(row))
    assert may_come(stand.database, now=last + 599)
    assert not may_come(stand.database, now=last + 600)


def test_a_used_up_grant_that_may_come_to_allow_more_counts_until_its_window_ends(
    stand: Stand,
) -> None:
    cluster = a_cluster(stand)
    put_namespace(cluster)
    admit(cluster, redemptionsAllowed=1)
    with stand.database.writing() as connection:
        connection.execute(update(schema.grants).values(spent=1))
    assert may_come(stand.database, now=NOW + WINDOW - 1)
    assert not may_come(stand.database, now=NOW + WINDOW)
    with stand.database.writing() as connection:
        connection.execute(update(schema.grants).values(revoked_at=NOW))
    assert not may_come(stand.database)


def test_the_last_token_is_that_of_a_grant_that_may_be_redeemed(stand: Stand) -> None:
    def last(now: int = NOW) -> int | None:
        with stand.database.reading() as connection:
            return authorities.last_token_ends(connection, now=now)

    stand.set_site()
    assert last() is None
    stand.make_grant(name="a", window_seconds=1000)
    longer = stand.make_grant(name="b", window_seconds=5000, redemptions=1).grant
    assert last() == NOW + 5000
    assert last(NOW + 5000) is None
    with stand.database.writing() as connection:
        spent = update(schema.grants).where(schema.grants.c.id == longer.id).values(spent=1)
        connection.execute(spent)
    assert last() == NOW + 1000
    with stand.database.writing() as connection:
        connection.execute(update(schema.grants).values(revoked_at=NOW))
    assert last() is None


def test_the_last_certificate_of_a_time_is_found(stand: Stand) -> None:
    stand.set_site()
    grant = stand.make_grant(redemptions=9).grant
    times = [(NOW, 100), (NOW, 300), (NOW + 1, 900)]
    with stand.database.writing() as connection:
        for place, (redeemed_at, lives) in enumerate(times, start=1):
            row = {
                "id": place, "grant_id": grant.id, "ordinal": place, "name": "n", "subject": "s",
                "peer": "p", "serial": f"{place}", "fingerprint": "f",
                "not_after": NOW + lives, "redeemed_at": redeemed_at,
            }  # fmt: skip
            connection.execute(insert(schema.redemptions).values(row))
        renewal = {
            "redemption_id": 1, "replaces": "1", "key_hash": bytes(32), "certificate_pem": "PEM",
            "serial": "r", "fingerprint": "f", "issuer_id": 1, "not_after": NOW + 2000,
            "issued_at": NOW + 2,
        }  # fmt: skip
        connection.execute(insert(schema.renewals).values(renewal))
    with stand.database.reading() as connection:
        for now, until, found in (
            (NOW, NOW, NOW + 300),
            (NOW, NOW + 1, NOW + 900),
            (NOW, NOW + 2, NOW + 2000),
            (NOW + 2001, NOW + 2, None),
            (NOW + 300, NOW, NOW + 300),
            (NOW + 301, NOW, None),
        ):
            assert authorities.last_certificate_ends(connection, made_until=until, now=now) == found


def test_what_does_not_sign_ends_without_anybodys_notice(database: Database) -> None:
    for state in (State.PREPARED, State.RETIRED, State.ENDED):
        add(database, an_authority(name=state.value, state=state, not_after=NOW + 1))
    with database.reading() as connection:
        assert authorities.soonest_expiry(connection) is None


def test_the_soonest_expiry_is_that_of_a_site_authority(database: Database) -> None:
    add(database, an_authority(name="server-ca", purpose=Purpose.SERVER, not_after=NOW + 1))
    add(database, an_authority(name="a", not_after=NOW + 30))
    add(database, an_authority(name="b", not_after=NOW + 20))
    with database.reading() as connection:
        assert authorities.soonest_expiry(connection) == NOW + 20


def test_one_that_cannot_sign_any_more_ends_without_anybodys_notice(database: Database) -> None:
    add(database, an_authority(name="a", not_after=NOW + 30))
    add(database, an_authority(name="b", not_after=NOW + 20, sealed_key=b"", origin="west/ca"))
    with database.reading() as connection:
        assert authorities.soonest_expiry(connection) == NOW + 30


def test_where_an_authority_comes_from_is_kept(database: Database) -> None:
    added = add(database, an_authority(origin="west/skupper-site-ca"))
    with database.reading() as connection:
        assert authorities.by_name(connection, "site-ca") == added
        assert added.origin == "west/skupper-site-ca"


def test_the_one_without_a_certificate_is_found_by_its_id_alone(database: Database) -> None:
    added = add(database, an_authority(name="(none)", fingerprint="", certificate_pem=""))
    with database.reading() as connection:
        assert authorities.by_id(connection, added.id) == added
        assert authorities.by_name(connection, "(none)") is None
        assert authorities.every(connection) == []


def rows_of_certificates(database: Database) -> list[tuple[int, bytes]]:
    table = schema.server_certificates
    with database.reading() as connection:
        query = select(table.c.id, table.c.sealed_key).order_by(table.c.id)
        return [(row.id, row.sealed_key) for row in connection.execute(query)]


def put(database: Database, *certificates: ServerCertificate) -> None:
    for one in certificates:
        with database.writing() as connection:
            authorities.add_server_certificate(connection, one)


def test_the_newest_server_certificate_is_the_current_one_and_alone_has_a_key(
    database: Database,
) -> None:
    authority = add(database, an_authority(purpose=Purpose.SERVER))
    old = a_server_certificate(authority_id=authority.id)
    new = a_server_certificate(created_at=NOW - 5)
    put(database, old, new)
    with database.reading() as connection:
        assert authorities.current_server_certificate(connection) == new
        assert authorities.latest_server_certificates(connection, 5) == [
            new,
            replace(old, sealed_key=b""),
        ]
        assert authorities.latest_server_certificates(connection, 1) == [new]


def test_each_origin_has_a_current_server_certificate_with_its_key(database: Database) -> None:
    ours, theirs = a_server_certificate(), a_server_certificate(origin="secret", ca_pem="theirs")
    put(database, ours, theirs)
    with database.reading() as connection:
        assert authorities.current_server_certificate(connection) == theirs
        assert authorities.current_server_certificate(connection, "") == ours
        assert authorities.current_server_certificate(connection, "secret") == theirs
        assert authorities.latest_server_certificates(connection, 5, "") == [ours]
    put(database, replace(theirs, fingerprint=ours.fingerprint))
    with database.reading() as connection:
        assert authorities.current_server_certificate(connection, "") is None


def test_what_has_no_key_is_not_current(database: Database) -> None:
    """As an earlier release has left them, which erased the keys of all but one."""
    put(database, a_server_certificate(sealed_key=b""), a_server_certificate(origin="secret"))
    with database.reading() as connection:
        assert authorities.current_server_certificate(connection, "") is None


def test_keys_that_are_to_be_kept_are_kept(database: Database) -> None:
    first, second, third = (a_server_certificate(origin="secret") for _ in range(3))
    put(database, first, second)
    with database.writing() as connection:
        authorities.add_server_certificate(connection, third, keep=[second.fingerprint])
    with database.reading() as connection:
        latest = authorities.latest_server_certificates(connection, 5, "secret")
    assert latest == [third, second, replace(first, sealed_key=b"")]


def test_a_certificate_that_comes_again_is_the_newest_under_a_new_number(
    database: Database,
) -> None:
    one, other = a_server_certificate(), a_server_certificate()
    seen = []
    for certificate in (one, one, other, one):
        put(database, certificate)
        seen.append(rows_of_certificates(database)[-1][0])
        with database.reading() as connection:
            assert authorities.current_server_certificate(connection) == certificate
    assert seen == sorted(set(seen))
    assert len(rows_of_certificates(database)) == 2


def test_certificates_of_long_ago_are_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorities, "_CERTIFICATES_KEPT", 3)
    put(database, *[a_server_certificate() for _ in range(5)])
    assert len(rows_of_certificates(database)) == 3
