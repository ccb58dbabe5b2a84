"""What a Kubernetes cluster asks for, brought into the database: namespaces, issuers, AccessGrants.

The database decides, and the status of a resource shows what it says. Whoever calls has read the
resources; nothing here knows how. All of it may be done again at any time: what is so already is
not written once more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from app.crypto.issuers import Issuer, load_issuer, without_text
from app.crypto.keys import to_pem
from app.crypto.sealing import NONCE_BYTES, Keyring
from app.domain import codes, policies
from app.domain.access_grants import Told, Wanted, kept_name
from app.domain.audit import Act, Entry
from app.domain.authorities import Authority, Purpose
from app.domain.grants import Grant, State
from app.domain.policies import NO_CEILINGS, Ceilings, Policy, check_ceilings
from app.domain.sites import Endpoint, in_stable_order
from app.domain.theft import SuspectedTheft
from app.errors import Broken, Conflict, Invalid, Missing
from app.services.authorities import key_purpose
from app.services.theft import suspected_in
from app.store import access_grants as rows
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store import grants as grant_rows
from app.store import renewals as renewal_rows
from app.store import sites as site_rows
from app.store.access_grants import AccessGrantRow, Mark
from app.store.engine import Connection, Database

ACTOR: Final = "kubernetes"
_MOST_TOLD: Final = 10  # redemptions that are told one by one
_MAX_CERTIFICATES: Final = 64 * 1024  # bytes of tls.crt
_RSA_MAX_BITS: Final = 4096
"""Of a key in a Secret. To check one that is twice as long keeps everybody waiting for seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSecret:
    """The CA that a Secret holds: its certificate, perhaps with a chain, and its key, in PEM."""

    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """The authority that stands for an issuer Secret, or what is wrong with that Secret.

    The times are UTC seconds, those of its certificate.
    """

    authority_id: int | None = None
    not_before: int = 0
    not_after: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A grant as the database has it, with what the status of its resource tells."""

    grant: Grant
    code: str = field(repr=False)
    theft: SuspectedTheft | None
    redemptions: Sequence[tuple[int, str, str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """An AccessGrant: what it is called, what it asks for, and what its status said before."""

    uid: str
    namespace: str
    name: str
    wanted: Wanted
    told: Told | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The verbs of the cluster's side; plain and synchronous, to be called from a thread."""

    database: Database
    keyring: Keyring
    code_keys: Mapping[str, bytes] = field(repr=False)
    clock: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    ceilings: Ceilings = NO_CEILINGS
    _signers: dict[tuple[str, bytes], Signer] = field(default_factory=dict, repr=False, init=False)
    _names: dict[str, tuple[str, str] | None] = field(default_factory=dict, init=False, repr=False)
    _fingerprints: dict[int, str] = field(default_factory=dict, repr=False, init=False)

    def led(self) -> "Cluster":
        """Begin to lead: give what remembers nothing, and writes as long as nobody else begins.

        What others may have changed since we led before is read again. Raises Unavailable.
        """
        return replace(self, database=self.database.led(self.clock()))

    def is_overtaken(self) -> bool:
        """Tell whether somebody else has begun to lead since we did. Raises Unavailable."""
        return self.database.is_overtaken()

    def signer(self, namespace: str, secret: str, held: IssuerSecret) -> Signer:
        """Keep the authority of an issuer Secret, its key sealed; what it holds may be anything.

        What was kept before is found again by its content, and not written twice.
        """
        origin = f"{namespace}/{secret}"
        content = sha256(b"%b\0%b" % (held.certificate_pem, held.key_pem)).digest()
        known = self._signers.get((origin, content))
        if known is not None and self._has_key(known):
            return known
        if len(held.certificate_pem) > _MAX_CERTIFICATES:
            return Signer(problem=f"tls.crt: expected at most {_MAX_CERTIFICATES} bytes")
        if b"\0" in held.certificate_pem:  # no database of ours stores it as text
            return Signer(problem="tls.crt is not a text")
        try:
            held.certificate_pem.decode()
            issuer, kept = self._bring_in(held, origin)
        except UnicodeDecodeError:
            return Signer(problem="tls.crt is not UTF-8")
        except Invalid as error:
            return Signer(problem=f"{_SECRET_FIELDS[error.field]}: {error.why}")
        signer = Signer(
            authority_id=kept,
            not_before=issuer.not_before,
            not_after=issuer.not_after,
        )
        self._signers[origin, content] = signer
        return signer

    def put_namespace(
        self, namespace: str, *, endpoints: Sequence[Endpoint], authority_id: int | None
    ) -> bool:
        """Bring endpoints and issuer of a namespace up to date; None: none that can sign.

        Tells whether anything had to be written. Raises Conflict when there is a site of this name
        that is none of the cluster's, and Missing when the authority is not the one that `signer`
        told: somebody has put another database in the place of ours.
        """
        wanted = in_stable_order(endpoints)
        with self.database.reading() as connection:
            if self._stands(connection, namespace, wanted, authority_id):
                return False
        with self.database.writing() as connection:
            known = rows.namespace(connection, namespace)
            if known is not None and known.origin is None:
                raise Conflict(_taken(namespace))
            self._check_authority(connection, authority_id)
            now = self.clock()
            issuer_id = authority_id or rows.no_issuer(connection, now)
            rows.put_namespace(
                connection, name=namespace, issuer_id=issuer_id, wanted=wanted, now=now
            )
            told = ", ".join(f"{one.group} {one.role}={one.host}:{one.port}" for one in wanted)
            issuer = authority_rows.by_id(connection, issuer_id)
            self._note(
                connection,
                Act.SITE_SET,
                f"site/{namespace}",
                {"issuer": None if issuer is None else issuer.name, "endpoints": told},
            )
        return True

    def forget_unused_keys(self, asked_for: frozenset[int] = frozenset()) -> None:
        """Delete the keys of issuer Secrets that nothing leads to any more.

        Those of the authorities that are `asked_for` stay: something is about to lead there.
        """
        with self.database.writing() as connection:
            forgotten = rows.forget_unused_keys(connection, asked_for, self.clock())
        if forgotten:
            self._signers.clear()

    def check(self, wanted: Wanted) -> None:
        """Raise Invalid, naming the field of the spec, for what exceeds the server's ceilings."""
        try:
            check_ceilings(
                self.ceilings,
                window_seconds=wanted.window_seconds,
                redemptions=wanted.allowed,
                policy=wanted.policy,
            )
        except Invalid as error:
            raise Invalid(_SPEC_FIELDS[error.field], error.why) from error

    def admit(self, resource: Resource, issuer_id: int | None, *, told_until: int) -> Known:
        """Bring the grant of an AccessGrant up to date, and tell what there is to know of it.

        One that was never seen is made; if its status says that somebody began it (Skupper, or
        we, whose database was lost), it goes on where that stands: what was used is never given
        back, what was revoked stays so, and so does its end, if its window can have given it.
        `issuer_id` is that of an issuer of its own.

        A live grant follows its resource: as often as it says now, but never less than was used;
        as long as it says now, from the moment when it was first seen; a code that is given
        replaces the one before at once. `told_until` is how many redemptions the status told:
        `redemptions` of the answer are those after it, the first ten. Raises Conflict when the
        namespace has a name that is taken, and Missing when it, or the issuer, is not there (yet,
        or any more): it has to be brought in first.
        """
        with self.database.reading() as connection:
            known = self._known(connection, resource, issuer_id, told_until)
        if known is not None:
            self._see(resource.uid, resource.namespace, resource.name)
            return known
        with self.database.writing() as connection:
            row = rows.by_id(connection, resource.uid)
            if row is None:
                self._add(connection, resource, issuer_id)
            else:
                self._change(connection, row, resource, issuer_id)
            known = self._known(connection, resource, issuer_id, told_until)
            if known is None:
                raise Broken(f"the grant {resource.uid} is not as it was just written")
        self._see(resource.uid, resource.namespace, resource.name)
        return known

    def catch_up(self, uid: str, told: Told) -> bool:
        """Bring a grant to what its status told, where the database tells less: it was set back.

        What was used is not given back, and what was revoked stays so. Tells whether anything had
        to be written.
        """
        with self.database.reading() as connection:
            grant = grant_rows.by_id(connection, uid)
        if grant is None or not _is_behind(grant, told):
            return False
        with self.database.writing() as connection:
            grant = grant_rows.by_id(connection, uid)
            if grant is None or not _is_behind(grant, told):
                return False
            rows.catch_up(connection, uid, told.spent)
            target, facts = f"grant/{uid}", {"name": grant.name, "site": grant.site}
            if told.spent > grant.spent:
                used: dict[str, str | int | None] = {"spent": told.spent, "by": "its status"}
                self._note(connection, Act.GRANT_CHANGED, target, facts | used)
            if told.revoked_at is not None and grant_rows.revoke(connection, uid, told.revoked_at):
                self._note(connection, Act.GRANT_REVOKED, target, {**facts, "by": "its status"})
                self._revoke_certificates(connection, grant, told.revoked_at)
        return True

    def lacks(self, uids: Sequence[str]) -> bool:
        """Tell whether the database knows nothing of some grant of these."""
        with self.database.reading() as connection:
            return rows.lacks(connection, uids)

    def known(self, uid: str, *, told_until: int) -> Known | None:
        """Tell of the grant of an AccessGrant as it is, whatever its resource asks for now.

        None when there is none. `told_until` is as for `admit`.
        """
        with self.database.reading() as connection:
            row, grant = rows.by_id(connection, uid), grant_rows.by_id(connection, uid)
            if row is None or grant is None:
                return None
            self._see(uid, row.namespace, row.name)
            return self._told(connection, row, grant, told_until)

    def _see(self, uid: str, namespace: str, name: str) -> None:
        """Have `marks` tell of a grant whose resource is there, also if it was noted as gone."""
        self._names[uid] = (namespace, name)

    def revoke(
        self, namespace: str, name: str, *, uid: str | None = None, but: str | None = None
    ) -> int:
        """Revoke the grants of a resource that is gone: that of its `uid`, where it is known.

        Else all that had its name, `but` the one that is there now.

        Their codes are forgotten. The certificates of one that was open still are revoked too:
        whoever deletes it wants to stop it. Of one that was over (used up, or expired) they stay
        good, and are renewed: whoever deletes that tidies up. Tells how many were not revoked
        before.
        """
        with self.database.reading() as connection:
            standing = rows.standing(connection, namespace, name)
        gone = [one for one in standing if one != but and uid in {None, one}]
        if not gone:
            return 0
        now = self.clock()
        with self.database.writing() as connection:
            before = [grant_rows.by_id(connection, one) for one in gone]
            revoked = [one for one in gone if grant_rows.revoke(connection, one, now)]
            for grant_id in gone:
                rows.note_gone(connection, grant_id)
                self._names[grant_id] = None
            for grant_id in revoked:
                self._note(
                    connection,
                    Act.GRANT_REVOKED,
                    f"grant/{grant_id}",
                    {"name": name, "site": namespace},
                )
            for grant in before:
                # One that was revoked before goes on being so, whoever revoked it.
                if grant is not None and grant.state(now) in {State.ACTIVE, State.REVOKED}:
                    self._revoke_certificates(connection, grant, now)
        return len(revoked)

    def _revoke_certificates(self, connection: Connection, grant: Grant, at: int) -> None:
        revoked = renewal_rows.revoke(connection, grant.id, at)
        if revoked:
            self._note(
                connection,
                Act.GRANT_CERTIFICATES_REVOKED,
                f"grant/{grant.id}",
                {"name": grant.name, "site": grant.site, "certificates": revoked},
            )

    def marks(self) -> Mapping[str, Mark]:
        """What may change without a resource: counters, revocations, suspicions, wrong codes."""
        with self.database.reading() as connection:
            return rows.marks(connection, self.clock(), self._names)

    def newest_entry(self) -> int:
        """How far the audit log goes."""
        with self.database.reading() as connection:
            return rows.newest_entry(connection)

    def entries_after(self, number: int) -> Mapping[int, tuple[str, str] | None]:
        """What was written down after an entry of the audit log, by number: the resource, or None.

        This takes as long as there is news, where `marks` takes as long as there are grants.
        """
        with self.database.reading() as connection:
            return rows.entries_after(connection, number, self._names)

    def live_names(self) -> Sequence[tuple[str, str]]:
        """Namespace and name of every resource that was there when it was last looked at."""
        with self.database.reading() as connection:
            return rows.live_names(connection)

    def namespaces(self) -> Sequence[str]:
        """The namespaces that have a site."""
        with self.database.reading() as connection:
            return rows.namespaces(connection)

    def remove_namespace(self, namespace: str) -> None:
        """Remove the site of a namespace without Site and AccessGrant, if no grant leads there.

        Grants that are over keep it until housekeeping deletes them, without endpoints and issuer.
        """
        with self.database.reading() as connection:
            known = rows.namespace(connection, namespace)
        if known is None or known.origin is None:
            return
        with self.database.writing() as connection:
            removed = rows.remove_namespace(connection, namespace)
            if removed:
                self._note(connection, Act.SITE_REMOVED, f"site/{namespace}", {})
        if not removed:
            self.put_namespace(namespace, endpoints=(), authority_id=None)

    def _has_key(self, signer: Signer) -> bool:
        with self.database.reading() as connection:
            authority = authority_rows.by_id(connection, signer.authority_id or 0)
        return authority is not None and bool(authority.sealed_key) and self._is_ours(authority)

    def _is_ours(self, authority: Authority) -> bool:
        """Tell whether an authority is what it was when we kept it, or found it, under its id."""
        return self._fingerprints.get(authority.id, authority.fingerprint) == authority.fingerprint

    def _check_authority(self, connection: Connection, authority_id: int | None) -> None:
        if authority_id is None:
            return
        authority = authority_rows.by_id(connection, authority_id)
        if authority is None or not self._is_ours(authority):
            raise Missing("authority", str(authority_id))

    def _bring_in(self, held: IssuerSecret, origin: str) -> tuple[Issuer, int]:
        """Read what a Secret holds, and keep it; raises Invalid.

        The key is checked once for each certificate: that takes long, and a Secret may be edited
        all the time.
        """
        pem = without_text(held.certificate_pem)
        with self.database.reading() as connection:
            known = rows.authority_of(connection, sha256(pem).hexdigest())
        if known is not None and known.sealed_key:
            issuer = load_issuer(pem, held.key_pem, rsa_max_bits=_RSA_MAX_BITS, checked=True)
            if self._has_key(Signer(authority_id=known.id)):
                self._fingerprints[known.id] = known.fingerprint
                return issuer, known.id
        issuer = load_issuer(pem, held.key_pem, rsa_max_bits=_RSA_MAX_BITS)
        return issuer, self._keep(issuer, origin)

    def _keep(self, issuer: Issuer, origin: str) -> int:
        """Keep an issuer under what all of its PEM says: two may differ in their chains alone."""
        fingerprint = sha256(issuer.certificate_pem).hexdigest()
        with self.database.writing() as connection:
            known = rows.authority_of(connection, fingerprint)
            if known is not None:
                self._fingerprints[known.id] = fingerprint
            if known is not None and known.sealed_key:
                return known.id
            sealed = self.keyring.seal(
                to_pem(issuer.key),
                purpose=key_purpose(fingerprint),
                random=self.random_bytes(NONCE_BYTES),
            )
            if known is not None:
                rows.give_key(connection, known.id, sealed, origin)
                return known.id
            name = f"kubernetes-{fingerprint[:16]}"
            added = authority_rows.add(
                connection,
                Authority(
                    id=0,
                    name=name,
                    purpose=Purpose.SITE,
                    certificate_pem=issuer.certificate_pem.decode(),
                    sealed_key=sealed,
                    fingerprint=fingerprint,
                    not_before=issuer.not_before,
                    not_after=issuer.not_after,
                    imported=True,
                    created_at=self.clock(),
                    origin=origin,
                ),
            )
            self._note(
                connection,
                Act.AUTHORITY_IMPORTED,
                f"authority/{name}",
                {
                    "origin": origin,
                    "fingerprint": issuer.fingerprint,
                    "not_after": issuer.not_after,
                },
            )
            self._fingerprints[added] = fingerprint
            return added

    def _stands(
        self,
        connection: Connection,
        namespace: str,
        wanted: Sequence[Endpoint],
        authority_id: int | None,
    ) -> bool:
        known = rows.namespace(connection, namespace)
        if known is None or known.origin is None:
            return False
        issuer = authority_rows.by_id(connection, known.issuer_id)
        signs = issuer is not None and bool(issuer.sealed_key) and self._is_ours(issuer)
        return (known.issuer_id if signs else None) == authority_id and site_rows.endpoints_of(
            connection, known.site_id
        ) == tuple(wanted)

    def _known(
        self, connection: Connection, resource: Resource, issuer_id: int | None, told_until: int
    ) -> Known | None:
        """Read a grant; None when it is not there, or not as its resource asks for."""
        row = rows.by_id(connection, resource.uid)
        grant = None if row is None else grant_rows.by_id(connection, resource.uid)
        if row is None or grant is None:
            return None
        code = self._opened(row)
        wanted = resource.wanted
        if grant.revoked_at is None and (
            row.issuer_id != self._issuer_id(connection, resource, issuer_id)
            or grant.allowed != max(wanted.allowed, grant.spent)
            or row.window_seconds != wanted.window_seconds
            or grant.policy != wanted.policy
            or (wanted.code is not None and wanted.code != code)
        ):
            return None
        return self._told(connection, row, grant, told_until)

    def _told(
        self, connection: Connection, row: AccessGrantRow, grant: Grant, told_until: int
    ) -> Known:
        told_until = min(max(told_until, 0), grant.spent)  # as the status says, so anything
        return Known(
            grant=grant,
            code=self._opened(row),
            theft=suspected_in(connection, grant.id),
            redemptions=rows.redeemed_after(connection, grant.id, told_until, _MOST_TOLD),
        )

    def _issuer_id(
        self, connection: Connection, resource: Resource, issuer_id: int | None
    ) -> int | None:
        """Which authority is written at the grant itself: of one that asks for its own alone."""
        if resource.wanted.issuer is None or issuer_id is not None:
            return issuer_id
        return rows.find_no_issuer(connection) or 0

    def _written_issuer_id(
        self, connection: Connection, resource: Resource, issuer_id: int | None
    ) -> int | None:
        if resource.wanted.issuer is None or issuer_id is not None:
            self._check_authority(connection, issuer_id)
            return issuer_id
        return rows.no_issuer(connection, self.clock())

    def _add(self, connection: Connection, resource: Resource, issuer_id: int | None) -> None:
        namespace = rows.namespace(connection, resource.namespace)
        if namespace is None:
            raise Missing("namespace", resource.namespace)
        if namespace.origin is None:
            raise Conflict(_taken(resource.namespace))
        wanted, told, now = resource.wanted, resource.told or Told(), self.clock()
        code = wanted.code or told.code or codes.generate(self.random_bytes)
        expires_at = now + wanted.window_seconds
        if told.expires_at is not None:
            # No later than a grant that begins now: whoever can write a status could give away
            # more than the resource does.
            expires_at = min(expires_at, told.expires_at)
        grant = Grant(
            id=resource.uid,
            name=kept_name(resource.name),
            site=resource.namespace,
            concealed_code=codes.conceal(code, self.code_keys),
            allowed=max(wanted.allowed, told.spent),
            spent=told.spent,
            cost=1,
            created_at=expires_at - wanted.window_seconds,
            expires_at=expires_at,
            revoked_at=told.revoked_at,
            policy=wanted.policy,
        )
        rows.add(
            connection,
            grant,
            AccessGrantRow(
                grant_id=resource.uid,
                namespace=resource.namespace,
                name=resource.name,
                sealed_code=self._sealed(resource.uid, code),
                window_seconds=wanted.window_seconds,
                spent_before=told.spent,
                issuer_id=self._written_issuer_id(connection, resource, issuer_id),
            ),
        )
        self._note(
            connection,
            Act.GRANT_CREATED,
            f"grant/{grant.id}",
            {
                "name": resource.name,
                "site": grant.site,
                "issuer": wanted.issuer,
                "cost": grant.cost,
                "allowed": grant.allowed,
                "spent": grant.spent,
                "expires_at": grant.expires_at,
                "revoked_at": grant.revoked_at,
                **_policy_told(grant.policy),
            },
        )

    def _change(
        self,
        connection: Connection,
        row: AccessGrantRow,
        resource: Resource,
        issuer_id: int | None,
    ) -> None:
        grant = grant_rows.by_id(connection, resource.uid)
        if grant is None or grant.revoked_at is not None:
            return
        wanted, code = resource.wanted, self._opened(row)
        sealed_code, concealed = row.sealed_code, grant.concealed_code
        if wanted.code is not None and wanted.code != code:
            sealed_code = self._sealed(resource.uid, wanted.code)
            concealed = codes.conceal(wanted.code, self.code_keys)
        expires_at = grant.expires_at + wanted.window_seconds - row.window_seconds
        rows.change(
            connection,
            replace(
                row,
                sealed_code=sealed_code,
                window_seconds=wanted.window_seconds,
                issuer_id=self._written_issuer_id(connection, resource, issuer_id),
            ),
            concealed_code=concealed,
            allowed=wanted.allowed,
            expires_at=expires_at,
        )
        if grant.policy != wanted.policy:
            grant_rows.change_policy(connection, grant.id, wanted.policy)
        self._note(
            connection,
            Act.GRANT_CHANGED,
            f"grant/{grant.id}",
            {
                "name": resource.name,
                "site": grant.site,
                "issuer": wanted.issuer,
                "allowed": wanted.allowed,
                "expires_at": expires_at,
                "code": "replaced" if concealed != grant.concealed_code else "kept",
                **_policy_told(wanted.policy),
            },
        )

    def _sealed(self, grant_id: str, code: str) -> bytes:
        return self.keyring.seal(
            code.encode(), purpose=code_purpose(grant_id), random=self.random_bytes(NONCE_BYTES)
        )

    def _opened(self, row: AccessGrantRow) -> str:
        if not row.sealed_code:
            return ""  # the resource was gone
        return self.keyring.open(row.sealed_code, purpose=code_purpose(row.grant_id)).decode()

    def _note(
        self,
        connection: Connection,
        act: Act,
        target: str,
        details: Mapping[str, str | int | None],
    ) -> None:
        audit_rows.add(
            connection,
            Entry(at=self.clock(), act=act, actor=ACTOR, target=target, details=details),
        )


_SECRET_FIELDS: Final = {"certificate": "tls.crt", "key": "tls.key"}
_SPEC_FIELDS: Final = {
    "window": "expirationWindow",
    "redemptions": "redemptionsAllowed",
    "lifetime": "policy-lifetime",
}


def _is_behind(grant: Grant, told: Told) -> bool:
    return grant.spent < told.spent or (grant.revoked_at is None and told.revoked_at is not None)


def _policy_told(policy: Policy | None) -> dict[str, str | int | None]:
    return {} if policy is None else {"policy": policies.written(policy)}


def code_purpose(grant_id: str) -> str:
    """Bind the sealed code of an AccessGrant to its grant."""
    return f"code of grant {grant_id}"


def _taken(namespace: str) -> str:
    return f'the server has a site "{namespace}" of its own: remove it, or rename the namespace'
