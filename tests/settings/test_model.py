import pytest

from app.logs import Level
from app.settings import load
from tests.settings.cases import Case, each_setting, problems_of


@each_setting
def test_a_setting_has_its_promised_default(case: Case) -> None:
    assert case.read(load({})) == case.default


def test_settings_cannot_be_changed() -> None:
    found = load({})
    with pytest.raises(ValueError, match="frozen"):
        found.logs = found.logs  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        found.logs.level = Level.DEBUG  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "text", "why"),
    [
        ("WORKERS", "0", "expected a whole number, 1 or more"),
        ("DATA_DIR", "", "expected the path of a directory"),
        ("DATABASE_URL", "mysql://localhost/x", "got mysql://…; expected sqlite:///PATH or"),
        (
            "DATABASE_URL",
            "postgresql://a:b@c",
            "expected postgresql://USER:PASSWORD@HOST:PORT/NAME",
        ),
        ("DATABASE_CONNECTIONS", "0", "expected a whole number, 1 or more"),
        ("DATABASE_URL", "sqlite://", "got sqlite://…; expected sqlite:///PATH"),
        ("LISTEN_REDEMPTION", ":9090", "expected HOST:PORT or [IPv6]:PORT"),
        ("LISTEN_OPS", ":9091", "expected HOST:PORT"),
        ("LISTEN_PROXY_PROTOCOL", "on", "expected off or required"),
        (
            "LISTEN_PROXY_SOURCES",
            "lb.example",
            "expected networks such as 10.1.0.0/16 or addresses",
        ),
        ("LISTEN_OPS", "-a:1", "expected a DNS name, an IPv4 address or an IPv6 address as host"),
        ("REACH_URL", "localhost:9090", "expected https://HOST or https://HOST:PORT"),
        ("REACH_URL", "http://a", "expected https: clients refuse every other token"),
        ("REACH_HOSTS", "*.example", "expected a DNS name"),
        ("REACH_HOSTS", "lb.123", "expected a host that a certificate can name"),
        ("REACH_URL", "https://my_host.example", "expected a host that a certificate can name"),
        ("EXPOSURE_HOST", "my_host.example", "expected a host that a certificate can name"),
        ("GRANTS_REDEMPTION_BY_KEY", "maybe", "expected true or false"),
        ("CERTIFICATES_LIFETIME", "0s", "expected a duration of whole seconds above zero"),
        ("CERTIFICATES_LIFETIME", "1.5s", "expected a duration of whole seconds above zero"),
        ("CERTIFICATES_LIFETIME", "365d", "expected a duration of whole seconds above zero"),
        ("CERTIFICATES_KEY_TYPE", "rsa", "expected p256, rsa-2048 or ed25519"),
        ("SEALING_KEY_FILE", "", "expected the path of a file"),
        ("LOGS_FORMAT", "xml", "expected text or json"),
        ("LOGS_LEVEL", "INFO", "expected debug, info, warning or error"),
        ("LIMITS_CONNECTIONS", "15", "expected a whole number, 16 or more"),
        ("LIMITS_CONNECTIONS", "many", "expected a whole number, 16 or more"),
        ("LIMITS_HANDSHAKE", "0s", "expected a duration above zero"),
        ("LIMITS_REQUEST", "10", "expected a duration above zero"),
        ("LEDGER_SPACING", "-5ms", "expected a duration"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_what_is_expected(
    variable: str, text: str, why: str
) -> None:
    (problem,) = problems_of({f"GRANTSERVER_{variable}": text})
    assert problem.startswith(f"GRANTSERVER_{variable}: got ")
    assert why in problem


@pytest.mark.parametrize("value", [False, 0, {}])
def test_what_is_no_list_of_hosts_is_refused_even_where_it_is_empty(value: object) -> None:
    (problem,) = problems_of({}, overrides={"reach.hosts": value})
    assert problem == (
        f"--reach-hosts: got {value!r}; "
        "expected host names or IP addresses: a list, or one text with commas between them"
    )
