"""Alerts, runbooks and dashboard: what they ask for is there, and they say what is so.

Prometheus itself reads them where it is installed: it scrapes a server of ours and is asked all
that the dashboard asks.
"""

import contextlib
import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
import yaml

from app.cli.commands import Noun
from app.metrics import catalog
from tests.cli.test_commands import every_command
from tests.crew import eventually, working
from tests.deploy.handbook import DOCS, anchors, section
from tests.running import PATIENCE, Server, running

MONITORING: Final = DOCS.parent / "deploy" / "monitoring"
ALERTS: Final = MONITORING / "alerts.yaml"
ALERTS_TEST: Final = MONITORING / "alerts_test.yaml"
DASHBOARD: Final[dict[str, Any]] = json.loads((MONITORING / "dashboard.json").read_text())
RUNBOOKS: Final = (DOCS / "runbooks.md").read_text()
RULES: Final[list[dict[str, Any]]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
NAMES: Final = [rule["alert"] for rule in RULES]
SEVERITIES: Final = {"critical", "warning"}
TABLE: Final = re.findall(
    r"^\| `(.*?)` \|", section("What to watch", (DOCS / "metrics.md").read_text()), re.MULTILINE
)

_PANELS: Final[list[dict[str, Any]]] = [
    panel for panel in DASHBOARD["panels"] if panel["type"] != "row"
]
QUERIES: Final = [
    (f"{panel['title']} {target['refId']}", target["expr"])
    for panel in _PANELS
    for target in panel["targets"]
]
EXPRESSIONS: Final = [
    *(rule["expr"] for rule in RULES),
    *(query for _, query in QUERIES),
    *(one.replace(r"\|", "|") for one in TABLE),
]

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: apt-get install prometheus)",
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not installed (Debian: apt-get install prometheus)",
)


def metrics_in(expression: str) -> set[str]:
    """The metrics of ours that are asked for; of a histogram its own name."""
    kinds = {name: kind for name, kind, _, _ in catalog()}
    found = set()
    for name in re.findall(r"\bgrantserver_\w+", re.sub(r'"[^"]*"', "", expression)):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        found.add(base if kinds.get(base) == "histogram" else name)
    return found


def promtool(*arguments: str, given: str | None = None) -> str:
    """Run promtool; it must have nothing to say against it."""
    done = subprocess.run(
        ["promtool", *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert re.findall(r"^## (GrantServer\w+)$", RUNBOOKS, re.MULTILINE) == NAMES


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_help_is(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    assert re.fullmatch(r"[1-9][0-9]*[mh]", rule["for"])
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    page, _, anchor = told["runbook_url"].partition("#")
    assert page.endswith("/runbooks.html")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors(RUNBOOKS)


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_begins_with_a_command_that_exists(name: str) -> None:
    found = re.match(r"\n```console\n(.+)\n```\n\n", section(name, RUNBOOKS))
    assert found is not None
    program, *words = found[1].split()
    assert program in {"grantserver", "kubectl"}
    if program == "grantserver":
        commands = [words for words, one in every_command() if not isinstance(one, Noun)]
        assert any(words[: len(command)] == list(command) for command in commands)


def test_commands_that_runbooks_name_exist() -> None:
    commands = {" ".join(words) for words, one in every_command() if not isinstance(one, Noun)}
    for named in re.findall(r"`grantserver ([^`]+)`", RUNBOOKS):
        assert any(named == one or named.startswith(f"{one} ") for one in commands), named


def test_what_is_asked_for_is_a_metric_of_ours() -> None:
    assert TABLE
    known = {name for name, _, _, _ in catalog()}
    for expression in EXPRESSIONS:
        asked = metrics_in(expression)
        assert asked or re.search(r"\bup\b", expression), expression
        assert asked <= known, expression


def test_no_metric_is_left_out_of_the_dashboard() -> None:
    shown = set().union(*(metrics_in(query) for _, query in QUERIES))
    assert {name for name, _, _, _ in catalog()} - shown == set()


def test_every_alert_is_tried_with_what_sets_it_off_and_with_what_does_not() -> None:
    tried: dict[str, set[bool]] = {}
    for test in yaml.safe_load(ALERTS_TEST.read_text())["tests"]:
        for one in test["alert_rule_test"]:
            tried.setdefault(one["alertname"], set()).add(bool(one["exp_alerts"]))
    assert tried == {name: {True, False} for name in NAMES}


def test_every_panel_says_what_it_shows_and_in_what_unit() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len({name for name, _ in QUERIES}) == len(QUERIES)
    for panel in _PANELS:
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert 'job=~"$job"' in target["expr"]
    kinds = {one["name"]: one["type"] for one in DASHBOARD["templating"]["list"]}
    assert kinds == {"datasource": "datasource", "job": "query"}


def test_no_panel_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_dashboard_begins_with_whether_it_can_serve() -> None:
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == [
        "Is it up, and can it serve?",
        "What is redeemed, and what is refused",
        "How fast it is, stage by stage",
        "Database",
        "Kubernetes",
        "Certificates and upkeep",
        "Connecting side",
        "Admin API",
    ]


def use(server: Server) -> None:
    """Redeem, come again, and be refused."""
    issued = server.issue(redemptions=3)
    for subject in ("a", "b", "b"):
        assert server.redeem(issued, subject=subject).status == 200
    assert server.request("POST", "/nobody", b"code").status == 404


def test_labels_that_are_asked_for_have_the_values_that_are_asked_for(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        shown = server.ops("/metrics").body.decode()
    for expression in EXPRESSIONS:
        for metric, selector in re.findall(r"\b(grantserver_\w+)\{([^}]*)\}", expression):
            for label, values in re.findall(r'(\w+)=~?"([^"$]*)"', selector):
                for value in values.split("|"):
                    series = rf'^{metric}\{{[^}}]*{label}="{re.escape(value)}"'
                    assert re.search(series, shown, re.MULTILINE), (metric, label, value)


@needs_promtool
def test_promtool_takes_the_alerts_and_they_fire_when_they_should() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(ALERTS))
    assert "SUCCESS" in promtool("test", "rules", str(ALERTS_TEST))


@needs_promtool
def test_alerts_that_did_not_wait_would_be_noticed(tmp_path: Path) -> None:
    """Nobody is woken by what passes: the cases tell of each alert how long it waits."""
    hasty = re.sub(r"\bfor: \w+$", "for: 0s", ALERTS.read_text(), flags=re.MULTILINE)
    (tmp_path / ALERTS.name).write_text(hasty)
    shutil.copy(ALERTS_TEST, tmp_path)
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / ALERTS_TEST.name)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    noticed = re.findall(r"alertname: (\w+)", done.stdout + done.stderr)
    assert set(noticed) == set(NAMES)


@needs_promtool
def test_promtool_finds_nothing_wrong_with_a_scrape(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        use(server)
        scraped = server.ops("/metrics").body.decode()
    assert promtool("check", "metrics", given=scraped) == ""


class Prometheus:
    """A Prometheus that runs, and what it answers."""

    def __init__(self, address: str) -> None:
        self._address = address

    def is_ready(self) -> bool:
        return self._get("/-/ready")[0] == http.client.OK

    def get(self, path: str, **asked: str) -> Any:
        return json.loads(self._get(f"/api/v1/{path}?{urlencode(asked)}")[1])

    def series(self, query: str) -> Sequence[Any]:
        answer = self.get("query", query=query)
        assert answer["status"] == "success", (query, answer)
        found: Sequence[Any] = answer["data"]["result"]
        return found

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextlib.contextmanager
def scraping(directory: Path, target: tuple[str, int]) -> Iterator[Prometheus]:
    """Have a Prometheus of our own scrape a server, with our alerts, until the block ends."""
    directory.mkdir()
    configuration = {
        "global": {"scrape_interval": "250ms", "evaluation_interval": "250ms"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "grantserver",
                "static_configs": [{"targets": ["{}:{}".format(*target)]}],
            }
        ],
    }
    settings, log = directory / "prometheus.yml", directory / "log"
    settings.write_text(yaml.safe_dump(configuration))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={settings}",
                f"--storage.tsdb.path={directory / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                "--log.format=json",
            ],
            stdout=output,
            stderr=output,
        )

    def listening() -> list[str]:
        assert process.poll() is None, log.read_text()
        return re.findall(r'"address":"(127\.0\.0\.1:[1-9][0-9]*)"', log.read_text())

    try:
        assert eventually(listening), log.read_text()
        prometheus = Prometheus(listening()[0])
        assert eventually(prometheus.is_ready), log.read_text()
        yield prometheus
    finally:
        process.terminate()
        process.wait(PATIENCE)


@needs_prometheus
def test_a_prometheus_scrapes_several_workers_and_has_an_answer_for_every_panel(
    tmp_path: Path,
) -> None:
    with working(tmp_path, workers=2) as crew:
        server = crew.server
        with scraping(tmp_path / "prometheus", server.addresses.ops) as prometheus:
            assert eventually(lambda: prometheus.series("grantserver_redemptions_total == 0"))
            use(server)
            assert eventually(lambda: prometheus.series("grantserver_redemptions_total == 2"))
            for counted in (
                "grantserver_retries_total == 1",
                'grantserver_refusals_total{reason="unknown_grant"} == 1',
            ):  # which another scrape may have to bring
                assert eventually(partial(prometheus.series, counted))
            assert eventually(
                lambda: prometheus.series("sum(rate(grantserver_redemptions_total[1m])) > 0")
            )
            silent = dict(QUERIES)

            def all_answer() -> bool:
                for name, query in tuple(silent.items()):
                    asked = query.replace("$__rate_interval", "1m").replace("$job", ".+")
                    if prometheus.series(asked):
                        del silent[name]
                return not silent

            assert eventually(all_answer), silent
            # Until the first sweep is over, the alert on sweeps is pending.
            assert eventually(lambda: prometheus.get("alerts")["data"]["alerts"] == [])
            rules = prometheus.get("rules")["data"]["groups"]
            told = {rule["name"]: rule["health"] for group in rules for rule in group["rules"]}
            assert set(told) == set(NAMES)
            assert set(told.values()) <= {"ok", "unknown"}
