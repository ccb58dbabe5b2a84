"""Every setting once, with its default, its unit and its meaning; the frozen groups that they form.

The documentation is made from what stands here. Where values come from is no matter of this
module, and nothing here opens, creates or connects to what a setting names.
"""

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.domain.callers import Entry
from app.domain.certificates import KeyType
from app.domain.durations import MILLISECOND, SECOND
from app.domain.exposure import TrafficPolicy, Way
from app.domain.sites import HIGHEST_PORT
from app.logs import Format, Level
from app.settings.values import (
    Address,
    Network,
    ProxyProtocol,
    duration_reader,
    read_address,
    read_annotations,
    read_database_url,
    read_entries,
    read_hosts,
    read_labels,
    read_namespaces,
    read_networks,
    read_object_name,
    read_optional_address,
    read_optional_base_url,
    read_optional_class,
    read_optional_collector,
    read_optional_domain,
    read_optional_host,
    read_optional_ip,
    read_optional_object_name,
    read_optional_path,
    read_optional_plain_name,
    read_path,
    read_service_name,
)

DEFAULT_URL: Final = "https://localhost:9090"
"""What tokens carry where nobody has said anything, and no cluster does."""
DATA_DIR: Final = "<data dir>"  # stands in a default for whatever the data directory is


def _setting(
    default: str,
    meaning: str,
    *,
    expected: str,
    name: str | None = None,
    secret: bool = False,
    least: int | None = None,
    most: int | None = None,
) -> Any:
    """Declare a setting.

    `default` is the text that a user would write; `expected` completes "expected …" in a problem;
    `name` is the second part of the setting's name where the attribute carries a unit; the value
    of a `secret` one is never shown, because a password or key may have been put there.
    """
    facts: dict[str, Any] = {"default": default, "expected": expected, "secret": secret}
    return Field(description=meaning, alias=name, ge=least, le=most, json_schema_extra=facts)


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Data(_Group):
    """Where the server keeps what it must not lose."""

    dir: Annotated[Path, BeforeValidator(read_path)] = _setting(
        "./grantserver-data",
        "Directory of the database and the sealing keys; made with mode 0700 when it is absent.",
        expected='the path of a directory, printable, without "?" and "%"',
    )


class Database(_Group):
    """The ledger of what was granted and spent."""

    url: Annotated[str, BeforeValidator(read_database_url)] = _setting(
        f"sqlite:///{DATA_DIR}/grantserver.db",
        "Where grants and redemptions are kept: sqlite:///PATH (an absolute path makes it four "
        "slashes) or postgresql://USER:PASSWORD@HOST:PORT/NAME?sslmode=verify-full.",
        expected="sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME",
        secret=True,
    )
    connections: int = _setting(
        "5",
        "Most connections to PostgreSQL that each process keeps, beside the two of its ledger; "
        "SQLite needs no bound.",
        expected="a whole number, 1 or more",
        least=1,
    )


class Listen(_Group):
    """The addresses that the server listens on, and who may connect to them."""

    redemption: Annotated[Address, BeforeValidator(read_address)] = _setting(
        "0.0.0.0:9090",
        "HOST:PORT or [IPv6]:PORT of the HTTPS listener that redeems tokens.",
        expected="HOST:PORT or [IPv6]:PORT, port 0 to 65535 (0 takes any free one)",
    )
    ops: Annotated[Address, BeforeValidator(read_address)] = _setting(
        "0.0.0.0:9091",
        "HOST:PORT or [IPv6]:PORT of the HTTP listener for /metrics, /healthz and /readyz.",
        expected="HOST:PORT or [IPv6]:PORT, port 0 to 65535 (0 takes any free one)",
    )
    admin: Annotated[Address | None, BeforeValidator(read_optional_address)] = _setting(
        "",
        "HOST:PORT or [IPv6]:PORT of the HTTPS listener of the admin API, such as 127.0.0.1:9443; "
        "empty turns it off.",
        expected="HOST:PORT or [IPv6]:PORT, port 0 to 65535 (0 takes any free one)",
    )
    proxy_protocol: ProxyProtocol = _setting(
        ProxyProtocol.OFF.value,
        "Whether connections to the redemption listener must begin with a PROXY protocol header "
        "(version 1 or 2) that tells whose they are: off or required. Set the sources with it.",
        expected="off or required",
    )
    proxy_sources: Annotated[tuple[Network, ...], BeforeValidator(read_networks)] = _setting(
        "",
        "Networks and addresses of the load balancers that alone may connect to the redemption "
        "listener, separated by commas in the environment, a list in the file; empty is anybody.",
        expected="networks such as 10.1.0.0/16 or addresses: a list, or one text with commas "
        "between them",
    )


class Reach(_Group):
    """How connecting sites reach the redemption listener."""

    url: Annotated[str, BeforeValidator(read_optional_base_url)] = _setting(
        "",
        "Base URL that tokens carry: https, and a host and port that connecting sites can reach. "
        "Empty, it is where the cluster lets us be reached, and without one https://localhost:9090.",
        expected="https://HOST or https://HOST:PORT, an IPv6 address in brackets",
    )
    hosts: Annotated[tuple[str, ...], BeforeValidator(read_hosts)] = _setting(
        "",
        "Further host names and IP addresses that the server certificate must carry, 32 at most, "
        "separated by commas in the environment, a list in the file.",
        expected="host names or IP addresses: a list, or one text with commas between them",
    )


class Tls(_Group):
    """The certificate of the redemption listener, where it is not to be one of our own CA."""

    certificate_file: Annotated[Path | None, BeforeValidator(read_optional_path)] = _setting(
        "",
        "PEM file of the server's certificate, then its intermediates. With the key's file it "
        "takes the place of what our own CA issues; both are looked at every two seconds and at "
        "SIGHUP.",
        expected='the path of a file, printable, without "?" and "%"',
    )
    key_file: Annotated[Path | None, BeforeValidator(read_optional_path)] = _setting(
        "",
        "PEM file of the private key of that certificate.",
        expected='the path of a file, printable, without "?" and "%"',
        secret=True,
    )
    ca_file: Annotated[Path | None, BeforeValidator(read_optional_path)] = _setting(
        "",
        "PEM file of the CA that tokens then carry; not needed where the certificate's file ends "
        "with a self-signed certificate.",
        expected='the path of a file, printable, without "?" and "%"',
    )
    secret: Annotated[str, BeforeValidator(read_optional_object_name)] = _setting(
        "",
        "Secret that somebody else keeps (cert-manager, say) with the server's certificate in "
        "tls.crt, tls.key and ca.crt, NAME (in the namespace of the pod) or NAMESPACE/NAME; it "
        "takes the place of what our own CA issues.",
        expected="NAME or NAMESPACE/NAME",
    )
    issued_secret: Annotated[str, BeforeValidator(read_optional_object_name)] = _setting(
        "grantserver-tls",
        "Secret that the certificate of our own CA is written to (tls.crt, tls.key, ca.crt), NAME "
        "(in the namespace of the pod) or NAMESPACE/NAME; empty writes none.",
        expected="NAME or NAMESPACE/NAME",
    )


class Admin(_Group):
    """Who may use the admin API, beside those who have one of its tokens."""

    client_ca_file: Annotated[Path | None, BeforeValidator(read_optional_path)] = _setting(
        "",
        "PEM file of the CAs whose client certificates are known to the admin API; empty asks "
        "nobody for one.",
        expected='the path of a file, printable, without "?" and "%"',
    )
    certificates: Annotated[tuple[Entry, ...], BeforeValidator(read_entries)] = _setting(
        "",
        "What holders of such certificates may: COMMON NAME=VERB+VERB@SITE+SITE, * for every verb "
        "or site, separated by commas in the environment, a list in the file. Whoever is not "
        "named is nobody.",
        expected="COMMON NAME=VERB+VERB@SITE+SITE: a list, or one text with commas between them",
    )
    accounts: bool = _setting(
        "false",
        "Whether accounts of the cluster may use the admin API, each as far as it may do the same "
        "with accessgrants in a namespace.",
        expected="true or false",
    )


class Grants(_Group):
    """How grants are found and redeemed."""

    redemption_by_key: bool = _setting(
        "false",
        "Whether POST /<namespace>/<grant name> redeems too, beside POST /<uid>.",
        expected="true or false",
    )
    retry_window_seconds: Annotated[int, BeforeValidator(duration_reader(least=0, step=SECOND))] = (
        _setting(
            "10m",
            "How long an answer is kept, sealed, for a site that asks again because it was lost on "
            "its way; a Go duration of whole seconds. With 0s a lost answer costs a redemption.",
            expected="a duration of whole seconds, such as 10m or 0s",
            name="retry_window",
        )
    )
    revoke_on_theft: bool = _setting(
        "false",
        "Whether certificates of a grant are marked as revoked when its code comes from somebody "
        "else after its last redemption.",
        expected="true or false",
    )


class Certificates(_Group):
    """The client certificates that redemptions mint."""

    lifetime_seconds: Annotated[
        int, BeforeValidator(duration_reader(least=SECOND, step=SECOND))
    ] = _setting(
        "8760h",
        "How long a certificate is valid, a Go duration of whole seconds; a certificate never "
        "outlives its issuer.",
        expected="a duration of whole seconds above zero, such as 720h or 8760h",
        name="lifetime",
    )
    key_type: KeyType = _setting(
        KeyType.P256.value,
        "Kind of the private keys that are made: p256, rsa-2048 (slow: it costs a thousand "
        "times as much) or ed25519.",
        expected="p256, rsa-2048 or ed25519",
    )
    rotation_wait_seconds: Annotated[
        int, BeforeValidator(duration_reader(least=0, step=SECOND))
    ] = _setting(
        "24h",
        "How long the next generation of a site authority waits before it signs, so that it can be "
        "brought to the routers first; a Go duration of whole seconds. With 0s it signs at once.",
        expected="a duration of whole seconds, such as 24h or 0s",
        name="rotation_wait",
    )
    overlap_seconds: Annotated[int, BeforeValidator(duration_reader(least=0, step=SECOND))] = (
        _setting(
            "1h",
            "How long a certificate that was renewed still counts beside the one that has taken "
            "its place; a Go duration of whole seconds. After that it can be renewed no more, and "
            "stands in the revocation list.",
            expected="a duration of whole seconds, such as 1h or 0s",
            name="overlap",
        )
    )


class Ceilings(_Group):
    """What no grant may exceed, whoever makes it: command line or AccessGrant."""

    window_seconds: Annotated[int, BeforeValidator(duration_reader(least=0, step=SECOND))] = (
        _setting(
            "0s",
            "Longest window of a grant, from when it is made until it ends, also when it is "
            "extended; a Go duration of whole seconds. With 0s there is no such bound.",
            expected="a duration of whole seconds, such as 24h or 0s",
            name="window",
        )
    )
    redemptions: int = _setting(
        "0",
        "How many redemptions a grant may allow at most; 0 is a million.",
        expected="a whole number, 0 to 1000000",
        least=0,
        most=1_000_000,
    )


class Sealing(_Group):
    """How private keys are protected at rest."""

    key_file: Annotated[Path, BeforeValidator(read_path)] = _setting(
        f"{DATA_DIR}/sealing.keys",
        "File of the keys that seal private keys in the database; made with mode 0600 when it is "
        "absent. Back it up, apart from the database.",
        expected='the path of a file, printable, without "?" and "%"',
        secret=True,
    )


class Logs(_Group):
    """What is written to standard error."""

    format: Format = _setting(
        Format.TEXT.value, "Form of the log lines: text or json.", expected="text or json"
    )
    level: Level = _setting(
        Level.INFO.value,
        "Least level that is written: debug, info, warning or error.",
        expected="debug, info, warning or error",
    )


class Traces(_Group):
    """Where OpenTelemetry traces go."""

    endpoint: Annotated[str, BeforeValidator(read_optional_collector)] = _setting(
        "",
        "URL of a collector that takes OpenTelemetry traces by OTLP/HTTP, such as "
        "http://collector:4318/v1/traces (without a path, that one is meant); empty sends none.",
        expected="http://HOST:PORT or https://HOST:PORT, with the path for traces or without",
    )


class Limits(_Group):
    """What one client may take from the others."""

    connections: int = _setting(
        "1000",
        "Most connections open at once on the redemption listener, at least 16.",
        expected="a whole number, 16 or more",
        least=16,
    )
    handshake_seconds: Annotated[float, BeforeValidator(duration_reader())] = _setting(
        "5s",
        "Most time that a TLS handshake may take, a Go duration.",
        expected="a duration above zero, such as 500ms or 5s",
        name="handshake",
    )
    request_seconds: Annotated[float, BeforeValidator(duration_reader())] = _setting(
        "10s",
        "Most time from the connection to the whole request, a Go duration; unmodified "
        "clients give up after 10s.",
        expected="a duration above zero, such as 500ms or 10s",
        name="request",
    )
    peer_failures: int = _setting(
        "20",
        "Failed attempts (wrong code, unknown grant, a claim that makes no sense) that one peer "
        "has at once; an IPv6 peer is its /64. 0 turns it off, for clients that all come from one "
        "address, such as a load balancer's.",
        expected="a whole number, 0 to 1000000",
        least=0,
        most=1_000_000,
    )
    peer_recovery_seconds: Annotated[
        float, BeforeValidator(duration_reader(least=MILLISECOND, step=MILLISECOND))
    ] = _setting(
        "3s",
        "Time after which a peer has one failed attempt more, a Go duration of whole milliseconds.",
        expected="a duration of whole milliseconds above zero, such as 500ms or 3s",
        name="peer_recovery",
    )
    grant_failures: int = _setting(
        "100",
        "Wrong codes after which a grant is locked for the addresses that they came from, and for "
        "nobody else; 0 turns it off.",
        expected="a whole number, 0 to 1000000",
        least=0,
        most=1_000_000,
    )
    grant_recovery_seconds: Annotated[
        float, BeforeValidator(duration_reader(least=MILLISECOND, step=MILLISECOND))
    ] = _setting(
        "1m",
        "Time after which a grant has room for one wrong code more, a Go duration of whole "
        "milliseconds.",
        expected="a duration of whole milliseconds above zero, such as 10s or 1m",
        name="grant_recovery",
    )


class Ledger(_Group):
    """How redemptions are committed."""

    spacing_seconds: Annotated[float, BeforeValidator(duration_reader(least=0))] = _setting(
        "10ms",
        "Least time between two commits of redemptions that wait together, a Go duration; "
        "0s turns it off.",
        expected="a duration, such as 10ms or 0s",
        name="spacing",
    )


class Events(_Group):
    """What others are told of."""

    expiring_seconds: Annotated[int, BeforeValidator(duration_reader(least=0, step=SECOND))] = (
        _setting(
            "168h",
            "How long before its end it is told of a certificate that nothing has taken the place "
            "of, a Go duration; 0s turns it off.",
            expected="a duration in whole seconds, such as 168h, or 0s",
            name="expiring",
        )
    )


class Housekeeping(_Group):
    """How long the store keeps what nobody needs any more."""

    interval_seconds: Annotated[float, BeforeValidator(duration_reader(least=SECOND))] = _setting(
        "1m",
        "Time from one deletion of what need not be kept any longer to the next, a Go duration.",
        expected="a duration of at least one second, such as 1m",
        name="interval",
    )
    grants_kept_seconds: Annotated[int, BeforeValidator(duration_reader(least=0, step=SECOND))] = (
        _setting(
            "2160h",
            "How long grants and their redemptions are kept after the end of their window, a Go "
            "duration of whole seconds; they stay while a certificate that was issued with them is "
            "valid. 0s keeps them for ever.",
            expected="a duration of whole seconds, such as 2160h or 0s",
            name="grants_kept",
        )
    )
    audit_kept_seconds: Annotated[int, BeforeValidator(duration_reader(least=0, step=SECOND))] = (
        _setting(
            "8760h",
            "How long entries of the audit log are kept, a Go duration of whole seconds; 0s keeps "
            "them for ever.",
            expected="a duration of whole seconds, such as 8760h or 0s",
            name="audit_kept",
        )
    )


class Kubernetes(_Group):
    """Which AccessGrants of which cluster are served, and which AccessTokens are redeemed."""

    namespaces: Annotated[tuple[str, ...], BeforeValidator(read_namespaces)] = _setting(
        "",
        "Namespaces whose AccessGrants are served, separated by commas in the environment, a list "
        "in the file; * is all of them, and empty serves none.",
        expected="names of namespaces, or *: a list, or one text with commas between them",
    )
    token_namespaces: Annotated[tuple[str, ...], BeforeValidator(read_namespaces)] = _setting(
        "",
        "Namespaces whose AccessTokens are redeemed, and whose links are renewed, where Skupper's "
        "controller does not; separated by commas in the environment, a list in the file; * is all "
        "of them, and empty redeems none.",
        expected="names of namespaces, or *: a list, or one text with commas between them",
    )
    kubeconfig: Annotated[Path | None, BeforeValidator(read_optional_path)] = _setting(
        "",
        "Kubeconfig file that says how to reach the API server; empty in a pod, which has a "
        "service account for it.",
        expected='the path of a file, printable, without "?" and "%"',
    )
    api: Annotated[Address, BeforeValidator(read_address)] = _setting(
        "kubernetes.default.svc:443",
        "HOST:PORT at which a pod finds the API server; not used with a kubeconfig.",
        expected="HOST:PORT or [IPv6]:PORT, port 1 to 65535",
    )
    lease: Annotated[str, BeforeValidator(read_object_name)] = _setting(
        "grantserver",
        "The Lease by which replicas agree on who writes to resources, NAME (in the namespace of "
        "the pod) or NAMESPACE/NAME.",
        expected="NAME or NAMESPACE/NAME",
    )


class Exposure(_Group):
    """What the server makes in a cluster so that it is reached from outside."""

    way: Way = _setting(
        Way.AUTO.value,
        "The way in: route, loadbalancer, nodeport, ingress, gateway, clusterip, or url, which "
        "makes nothing and needs GRANTSERVER_REACH_URL. auto is url where that is set, else route "
        "where Routes are served, else loadbalancer.",
        expected="auto, route, loadbalancer, nodeport, ingress, gateway, clusterip or url",
        name="type",
    )
    objects: Annotated[str, BeforeValidator(read_service_name)] = _setting(
        "grantserver-public",
        "Name of the objects that are made, NAME (in the namespace of the pod) or NAMESPACE/NAME.",
        expected="NAME or NAMESPACE/NAME, where NAME can be that of a Service",
        name="name",
    )
    deployment: Annotated[str, BeforeValidator(read_optional_plain_name)] = _setting(
        "grantserver",
        "Deployment in the same namespace that they belong to, and are removed with; empty, or "
        "absent there, is none.",
        expected="the name of a Deployment",
    )
    selector: Annotated[tuple[tuple[str, str], ...], BeforeValidator(read_labels)] = _setting(
        "app.kubernetes.io/name=grantserver",
        "Labels of the pods that are reached: KEY=VALUE, separated by commas in the environment, a "
        "table in the file.",
        expected="labels: a table, or one text of KEY=VALUE with commas between them",
    )
    annotations: Annotated[tuple[tuple[str, str], ...], BeforeValidator(read_annotations)] = (
        _setting(
            "",
            "Annotations of what faces outside: the Service of a load balancer or node port, the "
            "Route, the Ingress, Gateway and TLSRoute. A value with a comma and an equals sign "
            "after it needs the table in the file.",
            expected="annotations: a table, or one text of KEY=VALUE with commas between them",
        )
    )
    labels: Annotated[tuple[tuple[str, str], ...], BeforeValidator(read_labels)] = _setting(
        "",
        "Labels of what faces outside.",
        expected="labels: a table, or one text of KEY=VALUE with commas between them",
    )
    class_name: Annotated[str, BeforeValidator(read_optional_class)] = _setting(
        "",
        "Class of the load balancer, the Ingress (nginx if empty) or the Gateway.",
        expected="the name of a class, such as nginx or example.com/internal",
        name="class",
    )
    load_balancer_ip: Annotated[str, BeforeValidator(read_optional_ip)] = _setting(
        "",
        "IP address that the load balancer is asked for (spec.loadBalancerIP).",
        expected="an IP address",
    )
    host: Annotated[str, BeforeValidator(read_optional_host)] = _setting(
        "",
        "Public host: of the Route, the Ingress or the TLSRoute; for a node port an address of the "
        "nodes; for a load balancer a name that leads to it.",
        expected="a host name or an IP address",
    )
    domain: Annotated[str, BeforeValidator(read_optional_domain)] = _setting(
        "",
        "Where no host is given, it is NAME.NAMESPACE.DOMAIN.",
        expected="a domain, such as apps.example.com",
    )
    port: int = _setting(
        "0",
        "Public port: of the Service (9090 if 0), the node port (any), the Gateway's listener "
        "(8443), or that on which a Route's or Ingress's router listens (443).",
        expected="a port, 1 to 65535, or 0",
        least=0,
        most=HIGHEST_PORT,
    )
    gateway: Annotated[str, BeforeValidator(read_optional_object_name)] = _setting(
        "",
        "Gateway that the TLSRoute is attached to, NAME (in the namespace of the objects) or "
        "NAMESPACE/NAME; empty makes one.",
        expected="NAME or NAMESPACE/NAME",
    )
    traffic_policy: TrafficPolicy = _setting(
        TrafficPolicy.LOCAL.value,
        "externalTrafficPolicy of a load balancer or node port: Local keeps the address of the "
        "client, Cluster lets every node take connections.",
        expected="Local or Cluster",
    )


class Settings(_Group):
    """Every setting, checked; made by `app.settings.loading` only."""

    workers: int = _setting(
        "1",
        "Server processes that share the listeners, and the work between them; one for each core "
        "is enough.",
        expected="a whole number, 1 or more",
        least=1,
    )
    data: Data
    database: Database
    listen: Listen
    reach: Reach
    tls: Tls
    admin: Admin
    grants: Grants
    ceilings: Ceilings
    certificates: Certificates
    sealing: Sealing
    logs: Logs
    traces: Traces
    limits: Limits
    ledger: Ledger
    housekeeping: Housekeeping
    events: Events
    kubernetes: Kubernetes
    exposure: Exposure
