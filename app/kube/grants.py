"""The AccessGrant reconciler: resources become grants, and statuses show how the grants stand.

The database has each grant as its resource asks for, and decides alone what is redeemed. Every step
may be repeated, and may be stopped anywhere: what is left is done by the next one, here or in the
replica that leads then.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from app.domain.access_grants import Told, Wanted, read_told, read_wanted
from app.domain.grants import State
from app.domain.reach import Reach
from app.errors import Conflict, Invalid, Missing
from app.kube.applier import write_status
from app.kube.client import Kube
from app.kube.informer import Informer
from app.kube.namespaces import NOTHING, Namespace, Namespaces
from app.kube.recorder import Importance, Recorder
from app.kube.resources import ACCESS_GRANTS, Key, Object, key_of
from app.kube.standing import Facts, Standing, standing, theft
from app.kube.threads import in_thread
from app.services.cluster import Cluster, Known, Resource
from app.store.access_grants import Mark

_FOREIGN: Final = ("message",)
"""Fields that another controller may want otherwise: written only along with a change of ours."""


_ENDS: Final = {State.EXPIRED: "Expired", State.USED_UP: "UsedUp", State.REVOKED: "Revoked"}
"""How an Event calls the end of a grant, which is nothing to be warned of."""


def kept(found: Object) -> Object:
    """Give what an informer keeps of an AccessGrant: all but what only others read."""
    metadata = {name: one for name, one in found["metadata"].items() if name != "managedFields"}
    metadata.pop("annotations", None)
    return found | {"metadata": metadata}


class AccessGrants:
    """Reconciles AccessGrants, of which `grants` is the informer.

    `reach` tells how the server is reached now, None while nobody knows, and then `lack` what is
    waited for. `settle` is called with a namespace that has to be settled before its grants can
    be. Used from one event loop, by one worker for a grant.
    """

    def __init__(
        self,
        kube: Kube,
        cluster: Cluster,
        grants: Informer,
        namespaces: Namespaces,
        recorder: Recorder,
        *,
        reach: Callable[[], Reach | None],
        lack: Callable[[], str],
        settle: Callable[[str], None],
        clock: Callable[[], int],
    ) -> None:
        self._kube = kube
        self._cluster = cluster
        self._grants = grants
        self._namespaces = namespaces
        self._recorder = recorder
        self._reach = reach
        self._lack = lack
        self._settle = settle
        self._clock = clock
        self._keys: defaultdict[str, set[Key]] = defaultdict(set)
        self._uids: dict[Key, str] = {}
        self._waiting: defaultdict[str, set[Key]] = defaultdict(set)
        self._told: dict[str, int] = {}  # redemptions of a grant, by its UID
        self._written: dict[Key, str] = {}  # the version that our last write made
        self._caught_up: set[str] = set()  # whose grant is not behind its status, by its UID
        self._seen: dict[str, Mark] = {}  # as the database had them, by their UIDs

    def note(self, key: Key) -> None:
        """Remember where there is an AccessGrant, or was."""
        self._keys[key.namespace].add(key)

    def begin_anew(self) -> None:
        """Take what statuses told for true once more: the database was set back."""
        self._caught_up = set()
        self._uids = {}  # those that went before may stand again

    def seen(self) -> Mapping[str, Mark]:
        """Take what was read of grants since this was asked the last time, by their UIDs.

        Of each the counters that only grow: a database that tells less was set back.
        """
        seen, self._seen = self._seen, {}
        return seen

    def wrote(self, key: Key, found: Object | None) -> bool:
        """Tell whether an AccessGrant is as our own write left it: then there is nothing to do."""
        version = None if found is None else found["metadata"]["resourceVersion"]
        return version is not None and self._written.get(key) == version

    def of(self, namespace: str) -> frozenset[Key]:
        """The AccessGrants of a namespace."""
        keys = self._keys.get(namespace, set())
        keys.difference_update([key for key in keys if self._grants.get(key) is None])
        return frozenset(keys)

    def waiting(self, namespace: str) -> frozenset[Key]:
        """Take those that were put off until their namespace is settled."""
        return frozenset(self._waiting.pop(namespace, ()))

    def issuers(self, namespace: str) -> frozenset[str]:
        """The issuer Secrets that the AccessGrants of a namespace name."""
        named = (self._spec(self._grants.get(key)).get("issuer") for key in self.of(namespace))
        return frozenset(one for one in named if isinstance(one, str) and one)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one AccessGrant up to date; gives the seconds until it changes by itself.

        Raises Unavailable when database or API server do not serve us, Conflict when the resource
        has changed meanwhile: then it is to be done again.
        """
        found = self._grants.get(key)
        if found is None or found["metadata"].get("deletionTimestamp"):
            # Another of its name may be there by now, which is not to go with this one.
            await in_thread(self._cluster.revoke, *key, uid=self._uids.get(key))
            self._forget(key)
            if found is None:
                self._settle(key.namespace)  # which may be wanted no more
            return None
        uid = found["metadata"]["uid"]
        if self._uids.get(key) != uid:
            await in_thread(self._cluster.revoke, *key, but=uid)
            self._forget(key)
            self._uids[key] = uid
        facts = await self._facts(key, found)
        if facts is None:
            self._waiting[key.namespace].add(key)
            self._settle(key.namespace)
            return None
        if facts.known is not None:
            grant = facts.known.grant
            self._seen[uid] = Mark(*key, grant.spent, grant.revoked_at is not None, 0, 0)
        stands = standing(facts)
        await self._show(found, stands, facts)
        return self._next(facts)

    def _forget(self, key: Key) -> None:
        uid = self._uids.pop(key, "")
        self._told.pop(uid, None)
        self._caught_up.discard(uid)
        self._written.pop(key, None)

    async def _facts(self, key: Key, found: Object) -> Facts | None:
        """Gather what there is to know; None when the namespace has to be settled first."""
        namespace = self._namespaces.get(key.namespace)
        if namespace is None:
            return None
        problem, wanted, known = namespace.problem, None, None
        try:
            asked = read_wanted(self._spec(found))
            self._cluster.check(asked)
            wanted = asked
        except Invalid as error:
            problem = _told_problem(error, self._spec(found))
        issuer = namespace.issuer if wanted is None else wanted.issuer or namespace.issuer
        signer = namespace.signers.get(issuer)
        if wanted is not None and signer is None:
            return None
        told = self._told_before(found)
        await self._catch_up(found, told)
        if wanted is not None and problem is None:
            try:
                known = await self._admit(found, wanted, namespace, told)
            except Conflict as error:
                problem = str(error)
            except Missing:
                self._namespaces.forget(key.namespace)
                return None
        else:
            # What it asked for before goes on, and is counted.
            uid = found["metadata"]["uid"]
            known = await in_thread(self._cluster.known, uid, told_until=self._told_until(found))
        return Facts(
            problem=problem,
            site=namespace.site,
            issuer=issuer,
            signer=signer or NOTHING,
            reach=self._reach(),
            waiting=self._lack(),
            known=known,
            told=told,
            now=self._clock(),
        )

    async def _catch_up(self, found: Object, told: Told | None) -> None:
        """See to it once that the database is not behind a status: it may have been set back.

        Later a status that tells more than the database was edited, and is corrected.
        """
        uid, caught_up = found["metadata"]["uid"], self._caught_up
        if uid in caught_up:
            return
        if told is not None:
            await in_thread(self._cluster.catch_up, uid, told)
        caught_up.add(uid)

    def _told_before(self, found: Object) -> Told | None:
        """What the status says, and of redemptions what we have told, if that is more."""
        told = read_told(found.get("status") or {}) or Told()
        spent = self._told.get(found["metadata"]["uid"], 0)
        told = replace(told, spent=max(told.spent, spent))
        return None if told == Told() else told

    async def _admit(
        self, found: Object, wanted: Wanted, namespace: Namespace, told: Told | None
    ) -> Known:
        metadata = found["metadata"]
        own = namespace.signers[wanted.issuer].authority_id if wanted.issuer else None
        return await in_thread(
            self._cluster.admit,
            Resource(
                uid=metadata["uid"],
                namespace=metadata["namespace"],
                name=metadata["name"],
                wanted=wanted,
                told=told,
            ),
            own,
            told_until=self._told_until(found),
        )

    def _told_until(self, found: Object) -> int:
        """How many redemptions were told; a status that was set back does not repeat them."""
        shown = (found.get("status") or {}).get("redemptions")
        told = self._told.get(found["metadata"]["uid"], 0)
        return max(shown if isinstance(shown, int) else 0, told)

    async def _show(self, found: Object, stands: Standing, facts: Facts) -> None:
        try:
            written = await write_status(
                self._kube,
                ACCESS_GRANTS,
                found,
                stands.fields,
                stands.conditions,
                now=facts.now,
                only_along=_FOREIGN,
            )
        except Missing:
            return  # its end is on its way to us
        if written is not None:
            self._written[key_of(found)] = written["metadata"]["resourceVersion"]
            self._grants.put(written, instead_of=found["metadata"]["resourceVersion"])
            self._tell(found, stands, facts)

    def _tell(self, found: Object, stands: Standing, facts: Facts) -> None:
        """Tell the Events of what the status did not show before."""
        before = _ready(found)
        known = facts.known
        for ordinal, name, subject, peer in known.redemptions if known is not None else ():
            self._recorder.tell(
                ACCESS_GRANTS,
                found,
                "Redeemed",
                f'Redemption {ordinal} by "{subject}" from {peer}, for a link "{name}"',
            )
        if known is not None:
            self._told[known.grant.id] = known.grant.spent
        message = stands.conditions[2].message
        if stands.ready and before.get("status") != "True":
            self._recorder.tell(ACCESS_GRANTS, found, "Ready", "The grant can be redeemed")
        elif not stands.ready and before.get("message") != message:
            state = State.ACTIVE if known is None else known.grant.state(facts.now)
            reason = _ENDS.get(state, stands.conditions[2].reason)
            self._recorder.tell(
                ACCESS_GRANTS,
                found,
                reason,
                message,
                importance=Importance.WARNING if reason == "Error" else Importance.NORMAL,
            )
        if known is not None and known.theft is not None:
            told = theft(known.theft)
            if told in message and told not in str(before.get("message")):
                self._recorder.tell(
                    ACCESS_GRANTS,
                    found,
                    "SuspectedTokenTheft",
                    told,
                    importance=Importance.WARNING,
                )

    def tell_refused(self, key: Key, wrong_codes: int) -> None:
        """Tell the Event of wrong codes that were tried."""
        found = self._grants.get(key)
        if found is not None:
            times = "once" if wrong_codes == 1 else f"{wrong_codes} times"
            self._recorder.tell(
                ACCESS_GRANTS,
                found,
                "Refused",
                f"A wrong code was tried {times}",
                importance=Importance.WARNING,
            )

    def _next(self, facts: Facts) -> float | None:
        times = [self._namespaces.soonest(self._namespace_of(facts), facts.now)]
        known = facts.known
        if known is not None and known.grant.state(facts.now) is State.ACTIVE:
            times.append(float(known.grant.expires_at - facts.now))
        return min((one for one in times if one is not None), default=None)

    @staticmethod
    def _namespace_of(facts: Facts) -> str:
        return "" if facts.known is None else facts.known.grant.site

    @staticmethod
    def _spec(found: Object | None) -> dict[str, Any]:
        spec = None if found is None else found.get("spec")
        return spec if isinstance(spec, dict) else {}


def _ready(found: Object) -> Object:
    conditions = (found.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == "Ready"), {})


def _told_problem(error: Invalid, spec: dict[str, Any]) -> str:
    """Say what is wrong with a spec; of durations in the words that people search for."""
    if error.field == "expirationWindow":
        shown = str(spec.get("expirationWindow"))[:40]
        return f'Invalid duration "{shown}": {error.why}'
    return f"Invalid {error.field}: {error.why}"
