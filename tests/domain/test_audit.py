import re

from app.domain.audit import Act
from tests.builders import an_entry


def test_acts_are_stored_so_none_is_ever_changed_or_taken_away() -> None:
    assert {act.value for act in Act} >= {
        "authority.created",
        "authority.imported",
        "grant.created",
        "grant.revoked",
        "grant.removed",
        "grant.redeemed",
        "grant.locked",
        "grant.theft_suspected",
        "grant.certificates_revoked",
        "site.set",
        "site.removed",
        "server.certificate_issued",
    }


def test_acts_read_as_noun_and_verb_and_fit_their_column() -> None:
    for act in Act:
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", act)
        assert len(act) <= 40


def test_an_entry_without_details_has_none() -> None:
    assert an_entry(details={}).details == {}
