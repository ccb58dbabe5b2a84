"""Every operation of the admin API, for every kind of caller: exactly the documented answer.

One server, one grant of site `west` and one of site `team-a`, which stands for a namespace of that
name. Whatever an operation would change is asked for in a way that a caller with the right is told
it is stale, missing or a conflict, so that the order of the questions does not matter.
"""

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from app import ambient
from app.domain.callers import read_rights
from app.services import admin_tokens, webhooks
from app.store import authorities as authority_rows
from app.store import sites as site_rows
from app.store.schema import sites
from tests.kube.api_server import FakeKube
from tests.pki import a_root
from tests.running import Answer, Server, running

CALLERS = a_root("callers")
STALE = {"If-Match": '"another"'}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How an operation is asked for, and the answers to callers with the right and to others.

    `reader` is what a caller is told who may only read there, `outsider` one who has every right
    at another site.
    """

    method: str
    path: str
    body: object = None
    headers: tuple[tuple[str, str], ...] = ()
    right: int = 200
    reader: int = 403
    outsider: int = 404


G = "/grants/{grant}"
ENDPOINTS = {"endpoints": [{"role": "edge", "host": "w.example", "port": 1}]}
IF_MATCH = tuple(STALE.items())
OPERATIONS = {
    "get_info": Asked(method="GET", path="/info", reader=200, outsider=200),
    "list_grants": Asked(method="GET", path="/grants", reader=200, outsider=200),
    "create_grant": Asked(
        method="POST", path="/grants", body={"name": "taken", "site": "{site}"}, right=409,
        outsider=403,
    ),
    "get_grant": Asked(method="GET", path=G, reader=200),
    "change_grant": Asked(method="PATCH", path=G, body={}, headers=IF_MATCH, right=412),
    "extend_grant": Asked(
        method="POST", path=f"{G}/extend", body={"redemptions": 9}, headers=IF_MATCH, right=412
    ),
    "revoke_grant": Asked(method="POST", path=f"{G}/revoke", headers=IF_MATCH, right=412),
    "delete_grant": Asked(method="DELETE", path=G, headers=IF_MATCH, right=412),
    "explain_grant": Asked(method="GET", path=f"{G}/timeline", reader=200),
    "issue_token": Asked(
        method="POST", path="/tokens", body={"name": "taken", "site": "{site}"}, right=409,
        outsider=403,
    ),
    "list_redemptions": Asked(method="GET", path=f"{G}/redemptions", reader=200),
    "get_redemption": Asked(method="GET", path=f"{G}/redemptions/1", reader=200),
    "revoke_redemption": Asked(method="POST", path=f"{G}/redemptions/1/revoke"),
    "list_sites": Asked(method="GET", path="/sites", reader=200, outsider=200),
    "get_site": Asked(method="GET", path="/sites/{site}", reader=200),
    "set_site": Asked(
        method="PUT", path="/sites/{site}", body=ENDPOINTS, headers=IF_MATCH, right=412,
        outsider=403,
    ),
    "delete_site": Asked(method="DELETE", path="/sites/{site}", headers=IF_MATCH, right=412),
    "list_authorities": Asked(method="GET", path="/authorities", reader=200, outsider=200),
    "get_authority": Asked(method="GET", path="/authorities/site-ca", reader=200, outsider=200),
    "list_audit": Asked(method="GET", path="/audit?limit=1", outsider=403),
    "list_admin_tokens": Asked(method="GET", path="/admin-tokens?limit=1", outsider=403),
    "create_admin_token": Asked(
        method="POST", path="/admin-tokens", right=409, outsider=403,
        body={"name": "taken", "verbs": ["read"], "sites": ["west"]},
    ),
    "get_admin_token": Asked(method="GET", path="/admin-tokens/taken", outsider=403),
    "revoke_admin_token": Asked(
        method="DELETE", path="/admin-tokens/nobody", right=404, outsider=403
    ),
    "list_webhooks": Asked(method="GET", path="/webhooks", outsider=403),
    "create_webhook": Asked(
        method="POST", path="/webhooks", right=409, outsider=403,
        body={"name": "taken", "url": "https://portal.example.com/", "events": ["redeemed"]},
    ),
    "get_webhook": Asked(method="GET", path="/webhooks/taken", outsider=403),
    "change_webhook": Asked(
        method="PATCH", path="/webhooks/taken", body={"enabled": False}, outsider=403
    ),
    "delete_webhook": Asked(method="DELETE", path="/webhooks/none", right=404, outsider=403),
    "list_dead_deliveries": Asked(method="GET", path="/webhooks/taken/dead", outsider=403),
    "redeliver": Asked(method="POST", path="/webhooks/taken/redeliver", outsider=403),
    "follow_events": Asked(method="GET", path="/events?seconds=0", reader=200, outsider=200),
}  # fmt: skip
OF_NO_SITE = frozenset(
    name for name in OPERATIONS if "admin_token" in name or "webhook" in name
) | {"list_audit", "list_dead_deliveries", "redeliver"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """How a caller shows who they are, and the site that they are to ask about."""

    token: str | None = None
    context: ssl.SSLContext | None = None
    site: str = "west"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """A server with a grant of each of two sites, and one caller of every kind."""

    server: Server
    grants: Mapping[str, str]
    callers: Mapping[str, Caller]

    def ask(self, caller: Caller, asked: Asked) -> Answer:
        names = {"grant": self.grants[caller.site], "site": caller.site}
        body = asked.body
        if isinstance(body, dict):
            body = {key: caller.site if value == "{site}" else value for key, value in body.items()}
        return self.server.admin(
            asked.method,
            f"/api/v1{asked.path.format(**names)}",
            body,
            token=caller.token,
            context=caller.context,
            headers=dict(asked.headers),
        )


def furnish(server: Server, site: str) -> str:
    """Make a grant that was redeemed once, and one whose name is in the way of others."""
    issued = server.issue("kept", site=site, redemptions=5)
    server.issue("taken", site=site)
    assert server.redeem(issued).status == 200
    return issued.grant.id


def showing(server: Server, directory: Path, name: str) -> ssl.SSLContext:
    certified = CALLERS.certify(name=name, client=True)
    file = directory / f"{name}.pem"
    file.write_bytes(certified.pem + certified.key_pem)
    context = ssl.create_default_context(cadata=server.home.reach().ca_pem)
    context.load_cert_chain(file)
    return context


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    directory = tmp_path_factory.mktemp("who-may")
    (directory / "ca.pem").write_bytes(CALLERS.pem)
    kube = FakeKube()
    for namespace in ("team-a", "nowhere"):
        kube.namespace(namespace)
    config = kube.kubeconfig(directory / "kubeconfig", kube.token("grantserver"))
    further = {
        "GRANTSERVER_LISTEN_ADMIN": "127.0.0.1:0",
        "GRANTSERVER_LIMITS_PEER_FAILURES": "0",
        "GRANTSERVER_ADMIN_CLIENT_CA_FILE": str(directory / "ca.pem"),
        "GRANTSERVER_ADMIN_CERTIFICATES": "boss=*@*, looker=read@west",
        "GRANTSERVER_ADMIN_ACCOUNTS": "true",
        # Another than that of the site below, which would be taken away for lack of its Site.
        "GRANTSERVER_KUBERNETES_NAMESPACES": "nowhere",
        "GRANTSERVER_KUBERNETES_KUBECONFIG": str(config),
        "GRANTSERVER_EXPOSURE_TYPE": "url",
    }

    def account(name: str, *verbs: str) -> Caller:
        rules = [
            {
                "apiGroups": ["skupper.io"],
                "resources": ["accessgrants"],
                "verbs": list(verbs),
                "namespaces": ["team-a"],
            }
        ]
        shown = kube.token(name, rules if verbs else [], audience="grantserver")
        return Caller(token=shown, site="team-a")

    with running(directory, **further) as server:
        with server.home.database.writing() as connection:
            west = site_rows.by_name(connection, "west")
            assert west is not None
            issuer = authority_rows.by_name(connection, west.issuer)
            assert issuer is not None
            site_rows.put(
                connection,
                name="team-a",
                issuer_id=issuer.id,
                wanted=west.endpoints,
                now=ambient.utc_now(),
            )
            connection.execute(
                sites.update().where(sites.c.name == "team-a").values(origin="kubernetes")
            )
        admin_tokens.create(
            server.home.database,
            name="taken",
            rights=read_rights(["read"], ["west"]),
            window_seconds=None,
            keys=server.home.admin_token_keys,
            actor="test",
            now=ambient.utc_now(),
            random_bytes=ambient.random_bytes,
        )
        webhooks.create(
            server.home.database,
            server.home.keyring,
            webhooks.Wish(name="taken", url="https://portal.example.com/", events=["redeemed"]),
            actor="test",
            now=ambient.utc_now(),
            random_bytes=ambient.random_bytes,
        )
        ended = server.admin_token(window_seconds=10, ago=10)
        yield Stand(
            server=server,
            grants={site: furnish(server, site) for site in ("west", "team-a")},
            callers={
                "nobody": Caller(),
                "wrong token": Caller(token=ended[:-1] + ("0" if ended[-1] != "0" else "1")),
                "no token at all": Caller(token="secret"),
                "expired token": Caller(token=ended),
                "token of another site": Caller(token=server.admin_token(sites=["east"])),
                "reading token": Caller(token=server.admin_token("read", sites=["west"])),
                "token of everything": Caller(token=server.admin_token()),
                "reading certificate": Caller(context=showing(server, directory, "looker")),
                "certificate of everything": Caller(context=showing(server, directory, "boss")),
                "strange certificate": Caller(context=showing(server, directory, "stranger")),
                "account with the right": account("portal", "list", "create", "update", "delete"),
                "reading account": account("viewer", "list"),
                "account without a right": account("nobody"),
            },
        )
    kube.stop()


UNKNOWN = frozenset(
    {"nobody", "wrong token", "no token at all", "expired token", "strange certificate"}
)


def expected(who: str, name: str, asked: Asked) -> int:
    """The documented answer."""
    answer = asked.right
    if who in UNKNOWN:
        answer = 401
    elif "account" in who and name in OF_NO_SITE | {"set_site"}:
        answer = 403
    elif who == "account without a right":
        # It may read nowhere, and so no authority either.
        answer = 403 if name in {"list_authorities", "get_authority"} else asked.outsider
    elif who == "account with the right" and name == "delete_site":
        answer = 403
    elif "reading" in who:
        answer = asked.reader
    elif who == "token of another site":
        answer = asked.outsider
    return answer


WHO = (
    *sorted(UNKNOWN),
    "token of another site",
    "reading token",
    "token of everything",
    "reading certificate",
    "certificate of everything",
    "account with the right",
    "reading account",
    "account without a right",
)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("who", WHO)
def test_every_caller_gets_the_documented_answer(stand: Stand, who: str, name: str) -> None:
    asked = OPERATIONS[name]
    answer = stand.ask(stand.callers[who], asked)
    assert answer.status == expected(who, name, asked), answer.body


def test_no_operation_and_no_caller_is_left_out(stand: Stand) -> None:
    described = stand.server.admin(
        "GET", "/openapi.json", token=stand.callers["token of everything"].token
    ).json()
    assert set(OPERATIONS) == {
        operation["operationId"]
        for operations in described["paths"].values()
        for operation in operations.values()
    }
    assert set(WHO) == set(stand.callers)


def test_lists_show_no_more_than_may_be_read(stand: Stand) -> None:
    for who, named in (
        ("token of everything", {"west", "team-a"}),
        ("reading token", {"west"}),
        ("token of another site", set()),
        ("account with the right", {"team-a"}),
        ("reading account", {"team-a"}),
        ("account without a right", set()),
    ):
        caller = stand.callers[who]
        shown = stand.ask(caller, OPERATIONS["list_sites"]).json()["items"]
        assert {site["name"] for site in shown} == named, who
        shown = stand.ask(caller, OPERATIONS["list_grants"]).json()["items"]
        assert {grant["site"] for grant in shown} == named, who


def test_what_an_account_does_is_written_down_under_its_name(stand: Stand) -> None:
    caller = stand.callers["account with the right"]
    answer = stand.ask(caller, Asked(method="POST", path="/tokens", body={"site": "{site}"}))
    assert answer.status == 201
    target = f"grant/{answer.json()['grant']['id']}"
    boss = stand.callers["token of everything"]
    audit = Asked(method="GET", path=f"/audit?target={target}")
    (entry,) = stand.ask(boss, audit).json()["items"]
    assert entry["actor"] == "account:default/portal"
