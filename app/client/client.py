"""The operations of the admin API as methods: shapes in, shapes out, errors of this program.

All methods raise Unauthenticated, Forbidden, Unavailable, Broken, Invalid naming a field, and
Invalid("server", …) for somebody who is no admin API, beside what is said of each of them. After
Unavailable, a change may have been made all the same: whoever asks for it again looks first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar
from urllib.parse import quote, urlencode

from pydantic import BaseModel

from app import __version__
from app.api.admin_tokens import AdminToken, AdminTokenPage, CreatedAdminToken, NewAdminToken
from app.api.audit import Entry, EntryListing, EntryPage
from app.api.authorities import Authority, AuthorityPage
from app.api.grants import (
    CreatedGrant,
    Extension,
    Grant,
    GrantChange,
    GrantListing,
    GrantPage,
    NewGrant,
    Revocation,
    RevokedGrant,
)
from app.api.info import Info
from app.api.redemptions import Redemption, RedemptionPage, RevokedRedemption
from app.api.shapes import LARGEST_PAGE, Listing
from app.api.sites import Site, SitePage, SiteWish
from app.api.tokens import IssuedToken, NewToken
from app.client.connection import Answer, Connection
from app.client.problems import error_of, no_api, read
from app.errors import Conflict, Invalid, Unavailable

TIME_LIMIT_SECONDS: Final = 30.0  # for everything that an operation takes, its retries included
RETRIES: Final = 3
"""So often a question is asked again whose answer was lost, where asking twice does no harm."""
_PREFIX: Final = "/api/v1"
_KEY_BYTES: Final = 16
_LONGEST_TOKEN: Final = 16 * 1024

_Shape = TypeVar("_Shape", bound=BaseModel)
_Item_co = TypeVar("_Item_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Tagged(Generic[_Shape]):
    """Something as it was when it was looked at: `etag` is for `if_match`."""

    value: _Shape
    etag: str | None


class _Page(Protocol[_Item_co]):
    @property
    def items(self) -> tuple[_Item_co, ...]: ...

    @property
    def next(self) -> str | None: ...


class Client:
    """A client of one server, over one connection that is kept; for one thread at a time."""

    def __init__(
        self,
        url: str,
        *,
        ca_pem: str,
        token: str,
        monotonic: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        seconds: float = TIME_LIMIT_SECONDS,
    ) -> None:
        """Take where the admin API is, the only CA that is trusted, and what we show there.

        Nothing is asked yet. `seconds` bound each operation. Raises Invalid, whose field is
        `server`, `ca` or `token`.
        """
        if not token or len(token) > _LONGEST_TOKEN or not all("!" <= one <= "~" for one in token):
            # The library's own error would show it.
            raise Invalid("token", "it has characters that cannot be sent, or is empty")
        self._connection = Connection(url, ca_pem=ca_pem, monotonic=monotonic)
        self._token = token
        self._monotonic = monotonic
        self._random_bytes = random_bytes
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"Client({self._connection.where})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next operation would open another."""
        self._connection.close()

    def info(self) -> Info:
        """What the server says of itself, and of us."""
        return self._get("/info", Info).value

    def grants(self, listing: GrantListing, *, most: int) -> Iterator[Grant]:
        """At most so many grants, page by page as they are taken."""
        return self._pages("/grants", listing, GrantPage, most)

    def create_grant(self, wish: NewGrant) -> CreatedGrant:
        """Create a grant. Raises Missing for an unknown site, Conflict for a name in use."""
        return self._create("/grants", wish, CreatedGrant)

    def get_grant(self, grant_id: str) -> Tagged[Grant]:
        """Look at a grant. Raises Missing."""
        return self._get(f"/grants/{_part(grant_id)}", Grant)

    def change_grant(
        self, grant_id: str, change: GrantChange, *, if_match: str | None = None
    ) -> Grant:
        """Change a grant. Raises Missing, Conflict, and Stale unless it is as `if_match` says."""
        return self._change("PATCH", f"/grants/{_part(grant_id)}", Grant, change, if_match)

    def extend_grant(
        self, grant_id: str, extension: Extension, *, if_match: str | None = None
    ) -> Grant:
        """Let a grant live longer, counted from now, or be redeemed more often; as for a change."""
        return self._change("POST", f"/grants/{_part(grant_id)}/extend", Grant, extension, if_match)

    def revoke_grant(
        self, grant_id: str, revocation: Revocation, *, if_match: str | None = None
    ) -> RevokedGrant:
        """End a grant for good. Raises Missing and Stale."""
        path = f"/grants/{_part(grant_id)}/revoke"
        return self._change("POST", path, RevokedGrant, revocation, if_match)

    def delete_grant(self, grant_id: str, *, if_match: str | None = None) -> None:
        """Delete a grant with its redemptions. Raises Missing, Conflict and Stale."""
        self._delete(f"/grants/{_part(grant_id)}", if_match)

    def redemptions(self, grant_id: str, *, most: int) -> Iterator[Redemption]:
        """At most so many redemptions of a grant, the first ones first. Raises Missing."""
        path = f"/grants/{_part(grant_id)}/redemptions"
        return self._pages(path, Listing(), RedemptionPage, most)

    def get_redemption(self, grant_id: str, ordinal: int) -> Redemption:
        """Look at one redemption. Raises Missing."""
        return self._get(f"/grants/{_part(grant_id)}/redemptions/{ordinal}", Redemption).value

    def revoke_redemption(self, grant_id: str, ordinal: int) -> RevokedRedemption:
        """Revoke the certificates of one redemption. Raises Missing."""
        path = f"/grants/{_part(grant_id)}/redemptions/{ordinal}/revoke"
        return self._change("POST", path, RevokedRedemption, None, None)

    def issue_token(self, wish: NewToken) -> IssuedToken:
        """Make a grant and its token in one; raises what `create_grant` does."""
        return self._create("/tokens", wish, IssuedToken)

    def sites(self, *, most: int) -> Iterator[Site]:
        """At most so many of the sites that we may read, by name."""
        return self._pages("/sites", Listing(), SitePage, most)

    def get_site(self, name: str) -> Tagged[Site]:
        """Look at a site. Raises Missing."""
        return self._get(f"/sites/{_part(name)}", Site)

    def set_site(
        self, name: str, wish: SiteWish, *, if_match: str | None = None, new: bool = False
    ) -> Site:
        """Make a site or replace its endpoints; if it is to be `new`, only make one.

        Raises Conflict for one that is the cluster's, and Stale unless it is as `if_match` says,
        or where there is one and it was to be new.
        """
        headers = {"If-None-Match": "*"} if new else {}
        path = f"/sites/{_part(name)}"
        return self._change("PUT", path, Site, wish, if_match, headers, repeatable=not new)

    def delete_site(self, name: str, *, if_match: str | None = None) -> None:
        """Remove a site. Raises Missing, Conflict while a grant leads to it, and Stale."""
        self._delete(f"/sites/{_part(name)}", if_match)

    def authorities(self, *, most: int) -> Iterator[Authority]:
        """At most so many authorities, every generation of them."""
        return self._pages("/authorities", Listing(), AuthorityPage, most)

    def get_authority(self, name: str) -> Authority:
        """Look at the public parts of an authority. Raises Missing."""
        return self._get(f"/authorities/{_part(name)}", Authority).value

    def entries(self, listing: EntryListing, *, most: int) -> Iterator[Entry]:
        """At most so many entries of the audit log, the newest first."""
        return self._pages("/audit", listing, EntryPage, most)

    def admin_tokens(self, *, most: int) -> Iterator[AdminToken]:
        """At most so many admin tokens, by name."""
        return self._pages("/admin-tokens", Listing(), AdminTokenPage, most)

    def create_admin_token(self, wish: NewAdminToken) -> CreatedAdminToken:
        """Make an admin token. Raises Conflict for a name in use."""
        return self._create("/admin-tokens", wish, CreatedAdminToken)

    def get_admin_token(self, name: str) -> AdminToken:
        """Look at an admin token. Raises Missing."""
        return self._get(f"/admin-tokens/{_part(name)}", AdminToken).value

    def revoke_admin_token(self, name: str) -> AdminToken:
        """Revoke an admin token. Raises Missing."""
        return self._change("DELETE", f"/admin-tokens/{_part(name)}", AdminToken, None, None)

    def _get(self, path: str, shape: type[_Shape]) -> Tagged[_Shape]:
        answer = self._done(200, "GET", path, repeatable=True)
        return Tagged(read(answer, shape, self._connection.where), answer.etag)

    def _create(self, path: str, wish: BaseModel, shape: type[_Shape]) -> _Shape:
        key = {"Idempotency-Key": self._random_bytes(_KEY_BYTES).hex()}
        answer = self._done(201, "POST", path, wish, key, repeatable=True)
        return read(answer, shape, self._connection.where)

    def _change(
        self,
        method: str,
        path: str,
        shape: type[_Shape],
        wish: BaseModel | None,
        if_match: str | None,
        headers: dict[str, str] | None = None,
        *,
        repeatable: bool = False,
    ) -> _Shape:
        sent = (headers or {}) | _guard(if_match)
        # A change that was made would make its own repetition stale.
        may = repeatable and if_match is None
        answer = self._done(200, method, path, wish, sent, repeatable=may)
        return read(answer, shape, self._connection.where)

    def _delete(self, path: str, if_match: str | None) -> None:
        self._done(204, "DELETE", path, None, _guard(if_match), repeatable=False)

    def _pages(
        self, path: str, listing: BaseModel, shape: type[_Page[_Item_co]], most: int
    ) -> Iterator[_Item_co]:
        asked: dict[str, Any] = listing.model_dump(mode="json", exclude_none=True)
        left = most
        while left > 0:
            asked["limit"] = min(left, LARGEST_PAGE)
            answer = self._done(200, "GET", f"{path}?{urlencode(asked)}", repeatable=True)
            page: Any = read(answer, shape, self._connection.where)  # type: ignore[type-var]
            yield from page.items[:left]
            left -= len(page.items)
            if page.next is None:
                return
            if not page.items:  # it would go on for ever
                raise no_api(self._connection.where, "an empty page that is not the last")
            asked["cursor"] = page.next

    def _done(
        self,
        success: int,
        method: str,
        path: str,
        body: BaseModel | None = None,
        headers: dict[str, str] | None = None,
        *,
        repeatable: bool,
    ) -> Answer:
        answer = self._answer(method, path, body, headers or {}, repeatable=repeatable)
        if answer.status == success:
            return answer
        raise error_of(answer, self._connection.where)

    def _answer(
        self,
        method: str,
        path: str,
        body: BaseModel | None,
        headers: dict[str, str],
        *,
        repeatable: bool,
    ) -> Answer:
        """Ask until there is an answer, where asking twice does no harm; else once."""
        sent = {
            "Accept": "application/json",
            "Authorization": f"Bearer {self._token}",
            "User-Agent": f"grantserver/{__version__}",
            **headers,
        }
        text = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            text = body.model_dump_json(exclude_none=True).encode()
        if not repeatable:
            # On one that was kept, an end that came meanwhile looks like an answer that was lost.
            self._connection.close()
        deadline = self._monotonic() + self._seconds
        left = RETRIES if repeatable else 0
        lost = False
        while True:
            self._connection.open(deadline)
            try:
                answer = self._connection.exchange(
                    method, _PREFIX + path, headers=sent, body=text, deadline=deadline
                )
            except Unavailable:
                if not left or self._monotonic() >= deadline:
                    raise
                lost = True
            else:
                # While the first of our questions is under way, the next is in its way.
                mine = lost and isinstance(error_of(answer, self._connection.where), Conflict)
                if not (mine and left):
                    return answer
            left -= 1


def _part(text: str) -> str:
    """Write a name as one part of a path, whatever is in it."""
    return quote(text, safe="") if text not in {"", ".", ".."} else "-"


def _guard(if_match: str | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": if_match}
