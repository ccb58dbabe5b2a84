"""What the auditor takes and what it does not, on a database that was tampered with."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import text

from prove.agreement import Auditor, Disagreement, Story
from prove.history import Answer, Operation
from prove.jobs import Target
from prove.plan import Claim
from tests.running import Server, running

CLAIMS = tuple(Claim(f"link-{number}", f"site-{number}", "127.0.0.1") for number in range(2))


@dataclass(frozen=True, kw_only=True)
class Redeemed:
    """A grant of two, redeemed twice."""

    server: Server
    story: Story
    bundles: dict[str, bytes]

    def tamper(self, statement: str) -> None:
        with self.server.home.database.writing() as connection:
            connection.execute(text(statement))

    def audit(self) -> Auditor:
        auditor = Auditor(self.server.home)
        auditor.check([self.story], self.bundles)
        auditor.finish()
        return auditor


@pytest.fixture
def redeemed(tmp_path: Path) -> Iterator[Redeemed]:
    with running(tmp_path) as server:
        issued = server.issue(redemptions=2)
        operations, bundles = [], {}
        for number, claim in enumerate(CLAIMS):
            body = server.redeem(issued, name=claim.name, subject=claim.subject).body
            digest = hashlib.sha256(body).hexdigest()
            bundles[digest] = body
            operations.append(
                Operation(
                    claim=number,
                    right=True,
                    began=float(number),
                    ended=number + 0.5,
                    answer=Answer.BUNDLE,
                    digest=digest,
                    status=200,
                    where="a",
                )
            )
        story = Story(
            target=Target(issued.grant.id, issued.code, issued.grant.expires_at),
            allowed=2,
            claims=CLAIMS,
            end=None,
            operations=operations,
        )
        yield Redeemed(server=server, story=story, bundles=bundles)


def test_what_was_done_agrees_with_what_was_seen(redeemed: Redeemed) -> None:
    tally = redeemed.audit().tally
    assert (tally.grants, tally.redemptions, tally.heard, tally.kept) == (1, 2, 2, 2)
    assert len(tally.certificates) == 2


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE grants SET spent = 1", "the counter says 1"),
        ("UPDATE redemptions SET ordinal = 3 WHERE ordinal = 2", "ordinals"),
        ("UPDATE redemptions SET ordinal = 3 - ordinal + 10", "lower ordinal|ordinals"),
        ("UPDATE redemptions SET subject = 'x' WHERE ordinal = 1", "by nobody|no redemption"),
        ("UPDATE redemptions SET serial = '0' || serial || '1' WHERE ordinal = 1", "serial"),
        ("UPDATE redemptions SET fingerprint = 'x' WHERE ordinal = 1", "fingerprint"),
        ("UPDATE redemptions SET not_after = 1 WHERE ordinal = 1", "the end"),
        ("DELETE FROM redemptions WHERE ordinal = 2", "no redemption"),
        ("DELETE FROM answers WHERE ordinal = 1", "no answer"),
        ("UPDATE answers SET sealed = substr(sealed, 2) WHERE ordinal = 1", "altered"),
        ("DELETE FROM audit WHERE details LIKE '%ordinal_\\:2%'", "audit rows: 1"),
        ("UPDATE audit SET actor = 'site:x' WHERE act = 'grant.redeemed'", "audit log"),
        ("INSERT INTO answers VALUES (99, zeroblob(16), 1, zeroblob(9), 1)", "answers kept: 3"),
    ],
)
def test_whatever_is_changed_in_the_database_is_noticed(
    redeemed: Redeemed, statement: str, why: str
) -> None:
    redeemed.tamper(statement)
    with pytest.raises(Disagreement, match=why):
        redeemed.audit()


def test_an_answer_that_was_altered_on_its_way_is_noticed(redeemed: Redeemed) -> None:
    (one, other), (first, second) = redeemed.story.operations, redeemed.bundles
    swapped = [replace(one, digest=second), replace(other, digest=first)]
    story = replace(redeemed.story, operations=swapped)
    with pytest.raises(Disagreement, match="not a Secret of the claim"):
        replace(redeemed, story=story).audit()
