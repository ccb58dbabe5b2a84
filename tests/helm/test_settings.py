"""Every setting can be reached from the chart, and what the chart sets is a setting."""

import base64
import tomllib
from pathlib import Path
from typing import Any

import pytest

from app import settings
from helm.settings import ELSEWHERE, OF_THE_CHART, as_schema, values
from tests.helm.rendering import POSTGRESQL, merged, only, pod, rendered, settings_file
from tests.settings.cases import CASES, Case

URL = "GRANTSERVER_DATABASE_URL"
# What goes with a value so that it makes sense.
WITH: dict[str, Any] = {"exposure.type": {"exposure": {"host": "192.0.2.7"}}}


def loaded(objects: list[dict[str, Any]], directory: Path) -> settings.Settings:
    """What the server makes of the file and the environment that the chart gives it."""
    (server,) = pod(objects)["containers"]
    environ = {one["name"]: one.get("value", "") for one in server["env"]}
    config = directory / "grantserver.toml"
    assert environ.pop("GRANTSERVER_CONFIG") == "/etc/grantserver/grantserver.toml"
    config.write_text(settings_file(objects))
    if URL in environ:
        environ[URL] = "postgresql://grantserver@database.example.com/grantserver"
    return settings.load(environ, config=config)


def test_every_setting_is_a_value_and_every_value_is_a_setting() -> None:
    names = {f"{one.group}.{one.name}".removeprefix(".") for one in values()}
    assert names | set(ELSEWHERE) == {case.flag for case in CASES}
    assert not names & set(ELSEWHERE)
    assert set(OF_THE_CHART) <= names


def test_settings_that_hold_secrets_are_no_values_of_a_file_that_all_may_read() -> None:
    assert "url" not in as_schema()["properties"]["database"]["properties"]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.flag not in ELSEWHERE], ids=lambda case: case.flag
)
def test_a_value_reaches_the_server(case: Case, tmp_path: Path) -> None:
    given = tomllib.loads(f"x = {case.toml}")["x"]
    config = {case.group: {case.name: given}} if case.group else {case.name: given}
    values = {"config": merged(config, WITH.get(case.flag, {}))}
    assert case.read(loaded(rendered(values), tmp_path)) == case.value


def test_the_url_of_the_database_comes_from_a_secret_of_yours(tmp_path: Path) -> None:
    objects = rendered({"database": POSTGRESQL})
    wanted = {"secretKeyRef": {"name": "grantserver-database", "key": "url"}}
    spec = pod(objects)
    for container in (*spec["initContainers"], *spec["containers"]):
        assert {"name": URL, "valueFrom": wanted} in container["env"]
    assert loaded(objects, tmp_path).database.url.startswith("postgresql://")


def test_the_url_of_the_database_is_put_into_a_secret_and_nowhere_else() -> None:
    url = "postgresql://grantserver:hunter2@database.example.com/grantserver"
    objects = rendered({"database": {"type": "postgresql", "url": url}})
    secret = only(objects, "Secret")
    assert secret["data"] == {"url": base64.b64encode(url.encode()).decode()}
    assert "hunter2" not in str([one for one in objects if one is not secret])


def test_without_a_word_the_server_has_its_own_defaults_but_for_those_that_are_named(
    tmp_path: Path,
) -> None:
    found = loaded(rendered({}), tmp_path)
    of_the_server = settings.load({})
    named = {*OF_THE_CHART, *ELSEWHERE}
    for case in CASES:
        if case.flag not in named:
            assert case.read(found) == case.read(of_the_server), case.flag
    assert found.data.dir == Path("/var/lib/grantserver/data")
    assert found.database.url == "sqlite:////var/lib/grantserver/data/grantserver.db"
    assert found.sealing.key_file == Path("/run/grantserver/sealing.keys")
    assert found.kubernetes.namespaces == ("grantserver",)
    assert found.kubernetes.lease == found.exposure.deployment == "grantserver"


def test_another_name_of_the_release_is_followed_by_all_names(tmp_path: Path) -> None:
    objects = rendered({}, name="blue", namespace="west")
    found = loaded(objects, tmp_path)
    assert found.kubernetes.namespaces == ("west",)
    assert found.kubernetes.lease == "blue-grantserver"
    assert found.exposure.deployment == only(objects, "Deployment")["metadata"]["name"]
    assert found.exposure.objects == "blue-grantserver-public"
    assert found.tls.issued_secret == "blue-grantserver-tls"
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert dict(found.exposure.selector).items() <= labels.items()
    assert found.exposure.selector


@pytest.mark.parametrize(
    ("exposure", "failures"),
    [
        ({}, 20),
        ({"type": "ingress", "host": "grants.example.com"}, 0),
        ({"type": "gateway", "host": "grants.example.com", "class": "x"}, 0),
        ({"type": "route"}, 0),
    ],
)
def test_behind_what_all_clients_share_one_that_fails_shuts_out_nobody(
    exposure: dict[str, str], failures: int, tmp_path: Path
) -> None:
    found = loaded(rendered({"config": {"exposure": exposure}}), tmp_path)
    assert found.limits.peer_failures == failures
    own = {"config": {"exposure": exposure, "limits": {"peer_failures": 7}}}
    assert loaded(rendered(own), tmp_path).limits.peer_failures == 7


@pytest.mark.parametrize(
    "value", ['a, b="c"', "lines\nof\ttext", "<&>", "{ a = 1 }", "'''", "é\u2028"]
)
def test_whatever_stands_in_a_text_the_file_stays_one(value: str) -> None:
    objects = rendered({"config": {"exposure": {"annotations": {"example.com/a": value}}}})
    told = tomllib.loads(settings_file(objects))
    assert told["exposure"]["annotations"] == {"example.com/a": value}


def test_a_change_of_the_settings_replaces_the_pods() -> None:
    def annotations(level: str) -> dict[str, str]:
        objects = rendered({"config": {"logs": {"level": level}}})
        found: dict[str, str] = only(objects, "Deployment")["spec"]["template"]["metadata"][
            "annotations"
        ]
        return found

    assert annotations("info") != annotations("debug")
    assert annotations("info") == annotations("info")
