"""`docs/kubernetes.md` says what is so, and its commands do what it says."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.domain.access_grants import LONGEST_CODE, read_wanted
from app.domain.durations import parse_window
from app.domain.grants import MOST_REDEMPTIONS
from app.domain.theft import SuspectedTheft
from app.errors import Invalid
from app.kube.exposure.plan import waiting_for
from app.kube.grants import _told_problem
from app.kube.resources import SERVICES, Key
from app.kube.sites import DEFAULT_ISSUER, Site
from app.kube.standing import Facts, standing
from app.services.cluster import Known, Signer, _taken
from tests.builders import a_grant, a_redemption, a_suspicion, an_endpoint
from tests.deploy.handbook import PAGE, anchors, blocks, rows
from tests.deploy.kustomize import DEPLOY, rendered
from tests.deploy.rights import named, rules, said
from tests.installation import Installation
from tests.kube.api_server import Kube
from tests.kube.objects import a_secret, a_site
from tests.kube.real import RealKube
from tests.kube.stage import REACH

DOCS = DEPLOY.parents[1] / "docs"
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl to type to")


def at(written: str) -> int:
    return int(datetime.fromisoformat(written).timestamp())


def problem(**spec: Any) -> str:
    with pytest.raises(Invalid) as caught:
        read_wanted(spec)
    return _told_problem(caught.value, spec)


NOW = at("2026-11-22T16:00:00Z")
END = at("2026-11-22T16:05:00Z")
GRANT = a_grant(allowed=2, created_at=NOW, expires_at=END)
SITE = Site(name="west", edge=False, issuer=DEFAULT_ISSUER, endpoints=(an_endpoint(),))
SIGNER = Signer(authority_id=1, not_before=0, not_after=NOW + 86_400)
THEFT = SuspectedTheft(
    first=a_redemption(subject="north", peer="192.0.2.7"),
    later=(a_suspicion(subject="south", peer="192.0.2.9"),),
)
FACTS = Facts(
    problem=None,
    site=SITE,
    issuer=DEFAULT_ISSUER,
    signer=SIGNER,
    reach=REACH,
    known=Known(grant=GRANT, code="code", theft=None, redemptions=()),
    now=NOW,
)


def ended(*, theft: SuspectedTheft | None = None, now: int = NOW, **changes: Any) -> Facts:
    known = Known(grant=replace(GRANT, **changes), code="code", theft=theft, redemptions=())
    return replace(FACTS, known=known, now=now)


WAITING = waiting_for(SERVICES, Key("grantserver", "grantserver-public")).waiting
EVERY_STANDING = [
    FACTS,
    replace(FACTS, known=None),
    replace(FACTS, site=None),
    replace(FACTS, site=replace(SITE, endpoints=())),
    replace(FACTS, site=replace(SITE, endpoints=3000 * SITE.endpoints)),
    replace(FACTS, site=replace(SITE, edge=True)),
    replace(FACTS, signer=Signer()),
    replace(FACTS, signer=replace(SIGNER, not_before=at("2026-11-23T00:00:00Z"))),
    replace(FACTS, signer=replace(SIGNER, not_after=at("2026-11-21T00:00:00Z"))),
    replace(FACTS, signer=Signer(problem="it has no tls.key")),
    replace(FACTS, reach=None, waiting=WAITING),
    replace(FACTS, problem=problem(expirationWindow="1d")),
    replace(FACTS, problem=problem(issuer="No Name")),
    replace(FACTS, problem=_taken("west")),
    ended(allowed=1, spent=1),
    ended(spent=2),
    ended(now=END),
    ended(revoked_at=at("2026-11-22T15:50:00Z")),
    ended(spent=2, theft=THEFT),
]


def documented() -> Iterator[tuple[str, str]]:
    """Word and message of each row; of a message that goes on, its beginning."""
    for word, messages, _what_to_do in rows("What the status says")[6:]:
        for message in re.findall(r"`([^`]+)`", messages):
            yield word.strip("`"), message.partition("…")[0]


def test_every_message_of_a_status_is_explained_as_it_is() -> None:
    told = [standing(one).fields for one in EVERY_STANDING]
    found = list(documented())
    for fields in told:
        assert any(
            fields["status"] == word and fields["message"].startswith(message)
            for word, message in found
        ), fields["message"]
    assert len(found) == len(EVERY_STANDING)


def test_the_fields_and_defaults_of_a_spec_are_those_that_are_read() -> None:
    table = {field.strip("`"): (effect, default) for field, effect, default in rows("AccessGrants")}
    definition = yaml.safe_load((DEPLOY.parent / "crds" / "accessgrants.yaml").read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert table.keys() == schema["properties"]["spec"]["properties"].keys()
    wanted = read_wanted({})
    assert table["redemptionsAllowed"][1].startswith(str(wanted.allowed))
    assert str(MOST_REDEMPTIONS) in table["redemptionsAllowed"][0]
    assert parse_window(table["expirationWindow"][1].strip("`")) == wanted.window_seconds
    assert str(LONGEST_CODE) in table["code"][0]
    assert table["issuer"][1].endswith(f"`{DEFAULT_ISSUER}`")


def test_the_rights_are_listed_as_they_are_shipped() -> None:
    found = {right for _where, what, verbs, _why in rows("Rights") for right in said(what, verbs)}
    assert found == named(rules(rendered(DEPLOY / "namespaced"), "grantserver", "grantserver"))


def test_links_lead_to_headings_that_are_there() -> None:
    for page, anchor in re.findall(r"\]\(([\w.]*)#([\w-]+)\)", PAGE):
        text = (DOCS / page).read_text() if page else PAGE
        assert anchor in anchors(text), f"{page}#{anchor}"


def shell(commands: str, directory: Path, config: Path) -> str:
    """Type commands in an empty directory, until one fails."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=directory,
        env={**os.environ, "KUBECONFIG": str(config)},  # noqa: TID251 - handed on as it is
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_kubectl
def test_the_commands_lead_from_a_grant_to_a_token_that_redeems(kube: Kube, tmp_path: Path) -> None:
    kube.install_skupper()
    kube.namespace("west")
    config = kube.kubeconfig(tmp_path / "config")
    kube.create(a_secret(namespace="west"))
    kube.create(a_site(namespace="west"))
    run = Installation(
        tmp_path,
        GRANTSERVER_KUBERNETES_NAMESPACES="west",
        GRANTSERVER_KUBERNETES_KUBECONFIG=str(config),
    )
    grant, token = blocks("sh")[:2]
    shown = next(one for one in blocks("") if one.startswith("NAME"))
    with run.serving():
        said = shell(grant, tmp_path, config)
        shell(token, tmp_path, config)
        told = run.type("token", "redeem", str(tmp_path / "token.yaml"), "--subject", "east")
    heading, row = said.splitlines()[-2:]
    expected = shown.splitlines()
    assert heading.split() == expected[0].split()
    time = re.compile(r"\S+Z")
    assert time.sub("TIME", row).split() == time.sub("TIME", expected[1]).split()
    assert [one["kind"] for one in yaml.safe_load_all(told)] == ["Secret", "Link"]


@needs_kubectl
def test_the_command_takes_one_right_from_skuppers_controller(
    real_kube: RealKube, tmp_path: Path
) -> None:
    config = real_kube.kubeconfig(tmp_path / "config")
    resources = ["accessgrants", "accessgrants/status", "sites", "sites/status"]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "skupper-controller", "labels": {"grantserver-tests": ""}},
        "rules": [{"apiGroups": ["skupper.io"], "resources": resources, "verbs": ["update"]}],
    }
    (tmp_path / "role.yaml").write_text(yaml.safe_dump(role))
    shell("kubectl apply -f role.yaml", tmp_path, config)
    (command,) = (one for one in blocks("sh") if "clusterrole" in one)
    shell(command, tmp_path, config)
    left = yaml.safe_load(
        shell("kubectl get clusterrole skupper-controller -o yaml", tmp_path, config)
    )
    assert left["rules"][0]["resources"] == ["accessgrants", "sites", "sites/status"]
