"""Redeeming: a code comes in, a bundle goes out, and exactly one redemption is spent.

Mint first, spend last. Whatever can fail has happened before the ledger is asked, and nothing
secret leaves before the ledger has committed.
"""

import asyncio
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.crypto.answers import NONCE_BYTES, AnswerKeys, answer_keys
from app.crypto.facts import facts
from app.crypto.requests import RequestedKey, kind_of, read_request
from app.domain import codes
from app.domain.access_grants import kept_name
from app.domain.attempts import attempt
from app.domain.certificates import Credentials
from app.domain.documents import bundle, link_documents
from app.domain.grants import Claim, Grant, Redemption, judge, judge_policy
from app.domain.kept_answers import KeptAnswer, unpacked
from app.domain.names import check_claimed_name, common_name
from app.domain.policies import Policy, is_address_fit
from app.domain.prospects import Hindrance
from app.domain.renewals import judge as judge_certificate
from app.domain.theft import SuspectedTheft, suspicion
from app.errors import Broken, Invalid, Reason, Refused, Unready
from app.metrics import Stage
from app.services.attempts import Attempts
from app.services.issuance import Issuance
from app.services.limits import GrantLocks
from app.services.prospects import in_the_way
from app.services.theft import TheftAlarm, suspected_in
from app.store import grants as grant_rows
from app.store import renewals as renewal_rows
from app.store.ledger import Found, Keeping, Kept, Ledger, Spending, too_often

MOST_REQUEST_CHARACTERS: Final = 4096  # in base64; one for an RSA key of 4096 bits has 1,600
_MOST_SHOWN: Final = 20
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redeemed:
    """What a successful claim gets, and what the log says of it.

    `serial` is that of the certificate that was minted; None when the claim repeats an earlier
    one: then `bundle` is the answer of that one, byte for byte, and nothing was spent again.
    """

    bundle: bytes = field(repr=False)
    grant: Grant
    name: str
    subject: str
    ordinal: int
    serial: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What the holder of a code may know of its grant without using it.

    `redemptions` are the newest twenty at most, the oldest of them first; `now` is when it was
    looked at; `theft` says who else came with the code, if anybody did. `hindrances` are what a
    claim from the same address would be refused for, and `address_fits` whether that is in the
    networks that the policy asks for; None where it asks for none.
    """

    grant: Grant
    redemptions: tuple[Redemption, ...]
    now: int
    theft: SuspectedTheft | None = None
    hindrances: tuple[Hindrance, ...] = ()
    address_fits: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Redeemer:
    """Redeems claims.

    `code_keys` are the keys under which codes are stored, `answer_salts` those from which the
    keys of kept answers are derived, by the same ids. An answer is kept for `retry_seconds`
    (0: not at all) and given again to the same claim. `on_stage` is told how long the stages of a
    redemption took.
    """

    ledger: Ledger
    issuance: Issuance
    locks: GrantLocks
    thefts: TheftAlarm
    attempts: Attempts
    code_keys: Mapping[str, bytes] = field(repr=False)
    answer_salts: Mapping[str, bytes] = field(repr=False)
    retry_seconds: int
    clock: Callable[[], int]
    monotonic: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    on_stage: Callable[[Stage, float], None]

    async def redeem(self, claim: Claim) -> Redeemed:
        """Redeem a claim, once; the same claim again gets the same answer again.

        Raises Refused, and Unready, Unavailable or Broken when the fault is on our side;
        nothing has been spent when it raises.
        """
        now, began = self.clock(), self.monotonic()
        found = await self._find(claim)
        grant = found.grant
        self._check_code(claim, grant)
        name = claim.name or grant.name
        subject = claim.subject or name
        try:
            redeemed = await self._answer(claim, found, name, subject, now, began)
        except Refused as refused:
            self._note(claim, grant, name, subject, refused.reason, str(refused))
            raise
        except Unready as unready:
            self._note(claim, grant, name, subject, unready.lack)
            raise
        if redeemed.serial is None:
            self._note(claim, grant, name, subject)
        return redeemed

    async def _answer(
        self, claim: Claim, found: Found, name: str, subject: str, now: int, began: float
    ) -> Redeemed:
        """Answer a claim with the right code."""
        grant = found.grant
        requested = None if claim.csr is None else _requested(claim.csr)
        if grant.policy is not None or grant.not_before is not None:
            judge_policy(grant, name=name, subject=subject, peer=claim.peer, now=now)
        keys = self._answer_keys(claim, grant, name, subject, requested)
        if keys is not None and grant.spent and grant.revoked_at is None:
            # Before "used up" or "expired" is said: the last redemption may have been this claim's.
            kept = await self.ledger.find_kept(keys.claim_key, now)
            if kept is not None:
                return await self._repeat(kept, keys, grant, name, subject)
        try:
            return await self._spend(claim, found, name, subject, requested, keys, now, began)
        except Refused as refused:
            # Told that it has expired as well, it comes all the same after the last redemption.
            over = refused.reason is Reason.EXPIRED and grant.spent >= grant.allowed
            if over or refused.reason is Reason.USED_UP:
                await self.thefts.suspect(
                    suspicion(
                        grant_id=grant.id, at=now, name=name, subject=subject, peer=claim.peer
                    )
                )
            raise

    async def _spend(
        self,
        claim: Claim,
        found: Found,
        name: str,
        subject: str,
        requested: RequestedKey | None,
        keys: AnswerKeys | None,
        now: int,
        began: float,
    ) -> Redeemed:
        """Judge, mint, spend, in this order; `keys` are those of the answer, if it is kept."""
        grant = found.grant
        judge(grant, now=now)
        check_claimed_name(name)
        certificate_name = common_name(subject)
        policy = grant.policy
        if policy is not None:
            await self._check_policy(policy, grant.id, subject, requested)
        judged = self.monotonic()
        links = link_documents(await self.issuance.links(found, name), credentials=name)
        trust = await self.issuance.trust(found)
        minted = await self.issuance.mint(found, certificate_name, now, requested)
        answer = KeptAnswer(
            issuer_ids=trust.issuer_ids,
            certificate_pem=minted.certificate_pem,
            key_pem=minted.key_pem,
            links=links,
        )
        signed = self.monotonic()
        outcome = await self.ledger.spend(
            Spending(
                redemption=Redemption(
                    grant_id=grant.id,
                    ordinal=0,  # the ledger counts
                    name=name,
                    subject=subject,
                    peer=claim.peer,
                    serial=minted.serial,
                    fingerprint=minted.fingerprint,
                    not_after=minted.not_after,
                    redeemed_at=now,
                    issuer_id=found.issuer_id,
                ),
                keeping=None if keys is None else self._keeping(keys, answer, now),
                per_subject=None if policy is None else policy.per_subject,
            )
        )
        if isinstance(outcome, Kept):
            if keys is None:
                raise Broken("the ledger gave an answer that was not asked for")
            return await self._repeat(outcome, keys, grant, name, subject)
        self.on_stage(Stage.JUDGE, judged - began)
        self.on_stage(Stage.MINT, signed - judged)
        self.on_stage(Stage.COMMIT, self.monotonic() - signed)
        credentials = Credentials(
            certificate_pem=minted.certificate_pem, key_pem=minted.key_pem, ca_pem=trust.ca_pem
        )
        return Redeemed(
            bundle=bundle(name, credentials, links),
            grant=grant,
            name=name,
            subject=subject,
            ordinal=outcome.ordinal,
            serial=outcome.serial,
        )

    def _note(
        self,
        claim: Claim,
        grant: Grant,
        name: str,
        subject: str,
        refused: str | None = None,
        detail: str = "",
    ) -> None:
        """Have it written down that somebody with the right code got nothing new."""
        self.attempts.note(
            attempt(
                grant_id=grant.id,
                name=name,
                subject=subject,
                peer=claim.peer,
                refused=refused,
                detail=detail,
            )
        )

    async def _check_policy(
        self, policy: Policy, grant_id: str, subject: str, requested: RequestedKey | None
    ) -> None:
        """Ask what the claim alone does not tell; how often, the ledger asks once more."""
        kind = policy.key_type
        if requested is not None and kind is not None and kind_of(requested.public_key) != kind:
            raise Refused(Reason.POLICY, f"the certificate request is for no key of kind {kind}")
        most = policy.per_subject
        if most is not None and await self.ledger.uses(grant_id, subject) >= most:
            raise too_often(most)

    async def inspect(self, claim: Claim) -> Inspection:
        """Tell the holder of the right code what is left, until when, who used it, or why not.

        Nothing is spent. Raises Refused(UNKNOWN_GRANT, RATE_LIMITED or WRONG_CODE), Unavailable.
        """
        grant = (await self._find(claim)).grant
        self._check_code(claim, grant)
        return await asyncio.to_thread(self._look, grant, claim.peer)

    async def _find(self, claim: Claim) -> Found:
        """Find the claim's grant, or refuse after as much work as a wrong code costs."""
        namespace, slash, name = claim.key.partition("/")
        ledger = self.ledger
        if slash:
            found = await ledger.find_by_name(namespace, kept_name(name))
        else:
            found = await ledger.find(claim.key)
        if found is None:
            codes.check_against_nothing(claim.presented_code, self.code_keys)
            raise Refused(Reason.UNKNOWN_GRANT)
        return found

    def _check_code(self, claim: Claim, grant: Grant) -> None:
        """Raise Refused unless the code is right, and the grant open to this peer's tries."""
        self.locks.admit(grant.id, claim.peer)
        try:
            codes.check(claim.presented_code, grant.concealed_code, self.code_keys)
        except Refused:
            self.locks.wrong(grant.id, claim.peer)
            raise
        self.locks.right(grant.id, claim.peer)

    def _answer_keys(
        self,
        claim: Claim,
        grant: Grant,
        name: str,
        subject: str,
        requested: RequestedKey | None,
    ) -> AnswerKeys | None:
        """Say which claims count as this one come again; None where answers are not kept.

        A subject that is no UUID may be shared by two sites, so then the address counts too; or
        the key does where the claim brings one, which no two sites share.
        """
        if not self.retry_seconds:
            return None
        salt = self.answer_salts[codes.key_id(grant.concealed_code)]
        if requested is not None:
            same = (grant.id, name, subject, "", requested.hash.hex())
            return answer_keys(salt, claim.presented_code, *same)
        whence = "" if _UUID.fullmatch(subject) else claim.peer
        return answer_keys(salt, claim.presented_code, grant.id, name, subject, whence)

    def _keeping(self, keys: AnswerKeys, answer: KeptAnswer, now: int) -> Keeping:
        return Keeping(
            claim_key=keys.claim_key,
            sealed=keys.seal(answer.packed(), self.random_bytes(NONCE_BYTES)),
            until=now + self.retry_seconds,
        )

    async def _repeat(
        self, kept: Kept, keys: AnswerKeys, grant: Grant, name: str, subject: str
    ) -> Redeemed:
        """Write an answer again from what was kept of it, if its certificate is any good still."""
        answer = unpacked(keys.open(kept.sealed))
        await asyncio.to_thread(self._check_given, answer.certificate_pem)
        credentials = Credentials(
            certificate_pem=answer.certificate_pem,
            key_pem=answer.key_pem,
            ca_pem=await self.issuance.ca_pem(answer.issuer_ids),
        )
        return Redeemed(
            bundle=bundle(name, credentials, answer.links),
            grant=grant,
            name=name,
            subject=subject,
            ordinal=kept.ordinal,
            serial=None,
        )

    def _check_given(self, certificate_pem: bytes) -> None:
        """Raise Refused unless a certificate that was given before counts still.

        It may have been revoked, or renewed by whoever asks: nobody is to go back to it.
        """
        serial = facts(certificate_pem).serial
        with self.issuance.database.reading() as connection:
            given = renewal_rows.by_serial(connection, serial)
            grant = None if given is None else grant_rows.by_id(connection, given.grant_id)
        if given is None or grant is None:
            raise Refused(Reason.UNKNOWN_GRANT, "the redemption was removed meanwhile")
        if given.revoked_at is not None and grant.revoked_at is not None:
            # Revoked since it was found: the claim is told what one that comes later is told.
            raise Refused(Reason.REVOKED)
        judge_certificate(given, now=self.clock())

    def _look(self, grant: Grant, peer: str) -> Inspection:
        now, policy = self.clock(), grant.policy
        with self.issuance.database.reading() as connection:
            newest = grant_rows.newest_redemptions(connection, grant.id, _MOST_SHOWN)
            return Inspection(
                grant=grant,
                redemptions=tuple(newest),
                now=now,
                theft=suspected_in(connection, grant.id),
                hindrances=tuple(in_the_way(connection, grant, now=now, peer=peer)),
                address_fits=None if policy is None else is_address_fit(policy, peer),
            )


def _requested(csr: bytes) -> RequestedKey:
    """Read a certificate request as it came in a header. Raises Refused(CSR)."""
    if len(csr) > MOST_REQUEST_CHARACTERS:
        raise Refused(
            Reason.CSR, f"the request is longer than {MOST_REQUEST_CHARACTERS} characters"
        )
    try:
        return read_request(binascii.a2b_base64(csr.strip(b" \t"), strict_mode=True))
    except ValueError as error:  # binascii's own is one
        raise Refused(Reason.CSR, "the request is not in base64") from error
    except Invalid as error:
        raise Refused(Reason.CSR, error.why) from error
