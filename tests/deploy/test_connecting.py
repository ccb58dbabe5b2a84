"""The connecting side as it is shipped, and as the handbook tells it."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from app import settings
from app.cli.root import root
from app.errors import Conflict, Unavailable
from app.kube import token_standing, tokens
from app.outbound import Answer
from tests.deploy.handbook import blocks, rows, section
from tests.deploy.kustomize import DEPLOY, rendered
from tests.deploy.rights import granted, named, roles, rules, said
from tests.deploy.test_manifests import OUR_NAMESPACE, environment, overlay
from tests.deploy.test_rights import ACCOUNT, HOME, NAMESPACES, options
from tests.kube.api_server import Kube, Object
from tests.kube.clients import QUICK
from tests.kube.connecting import EAST, a_half_made_link, furnish, redeemed
from tests.kube.far_side import FarSide, refusal
from tests.kube.test_renewals import SHORT, renewed
from tests.running import running

TOKEN_NAMESPACES = "GRANTSERVER_KUBERNETES_TOKEN_NAMESPACES"


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarSide]:
    with FarSide(directory=tmp_path) as made:
        yield made


def connecting_role(objects: list[Object]) -> Object:
    (role,) = (one for one in roles(objects) if one["metadata"]["name"] == "grantserver-connecting")
    return role


def test_a_server_with_these_rights_redeems_and_renews_and_needs_them_all(
    kube: Kube, tmp_path: Path, far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_BACKOFF", QUICK)
    furnish(kube)
    kube.namespace(HOME)
    server = rules(rendered(DEPLOY / "server", namespace=HOME), ACCOUNT, HOME)
    ours = rules(rendered(DEPLOY / "connecting-namespace", namespace=EAST), ACCOUNT, HOME)
    token = kube.token(ACCOUNT, [*server, *ours])
    a_half_made_link(kube, kube.create(far.token()), "west-1")
    far.groups, far.life = ("skupper-router", "skupper-router-2"), SHORT
    # The same Event twice is counted.
    far.answers += [refusal(status, "Internal error") for status in (503, 500, 503, 500, 503, 500)]
    told = options(kube, tmp_path, token, "") | {TOKEN_NAMESPACES: EAST}
    kube.requests.clear()
    with running(tmp_path, **told):
        redeemed(kube)
        renewed(kube)
        assert kube.until(lambda: bool(kube.requests.of(verb="patch", resource="events")))
        far.answers.append(refusal(404, "No such claim"))
        kube.create(far.token("over"))  # of which nothing is left
        assert kube.until(lambda: bool(kube.requests.of(verb="delete", resource="secrets")))
    asked = kube.requests.of(user=ACCOUNT)
    assert [one for one in asked if one.code == 403] == []
    used = {one.rule for one in asked if one.namespace == EAST}
    assert used == granted(ours)
    # Nothing of the listening side is done.
    assert {one.namespace for one in asked if one.resource} == {HOME, EAST}
    assert {one.resource for one in asked if one.namespace == HOME} == {"leases"}


def test_the_role_of_a_namespace_and_that_of_a_cluster_are_the_same(tmp_path: Path) -> None:
    one = connecting_role(rendered(DEPLOY / "connecting-namespace"))
    objects = rendered(overlay(tmp_path, "server", ["connecting"]))
    other = connecting_role(objects)
    assert (one["kind"], other["kind"]) == ("Role", "ClusterRole")
    assert one["rules"] == other["rules"]
    assert granted(rules(objects, ACCOUNT, OUR_NAMESPACE)) >= granted(other["rules"])
    for rule in one["rules"]:
        assert not any("*" in word for part in rule.values() for word in part)


def test_the_component_turns_it_on_for_all_namespaces(tmp_path: Path) -> None:
    told = environment(rendered(overlay(tmp_path, "server", ["connecting"])))
    chosen = settings.load(told)
    assert chosen.kubernetes.token_namespaces == ("*",)
    assert chosen.kubernetes.namespaces == ()
    assert NAMESPACES not in told


# The handbook.


def test_the_rights_are_listed_as_they_are_shipped() -> None:
    found = {right for what, verbs, _ in rows("The rights for it") for right in said(what, verbs)}
    assert found == named(connecting_role(rendered(DEPLOY / "connecting-namespace"))["rules"])


def test_every_message_is_explained_as_it_is() -> None:
    url = "https://grants.example.com:9090/x"

    def failed(status: int, phrase: str) -> str:
        return token_standing.not_a_success(Answer(status=status, reason=phrase, body=b"x"))

    told = [
        token_standing.OK,
        token_standing.NO_CA,
        "token url scheme must be https",
        "could not parse token url: it is not a URL",
        token_standing.no_answer(url, Unavailable("x")),
        failed(500, "Internal Server Error"),
        failed(404, "Not Found"),
        token_standing.UNDECODABLE,
        token_standing.secret_not_stored(Conflict("x")),
        token_standing.link_not_stored(Conflict("x")),
        token_standing.DELETED_SITE,
    ]
    documented = [
        re.escape(found[1]).replace("…", ".*")
        for message, *_ in rows("What an AccessToken says")
        if (found := re.match(r"`([^`]+)`", message))
    ]
    assert len(documented) == len(told)
    for pattern, message in zip(documented, told, strict=True):
        assert re.fullmatch(pattern, message), message
    # What is final is asked again when the token is changed, and only that.
    again = {
        row[0].strip("`").partition("…")[0]: "changed" in row[2]
        for row in rows("What an AccessToken says")
    }
    for message in told[1:-1]:
        (so,) = {so for start, so in again.items() if message.startswith(start)}
        assert so == token_standing.is_final(message), message


def test_the_job_that_renews_is_one_that_the_program_understands() -> None:
    (text,) = (one for one in blocks("sh", section("Renewal")) if "CronJob" in one)
    documents = {
        one["kind"]: one for one in yaml.safe_load_all(text.split("<<'END'\n")[1].split("END\n")[0])
    }
    pod = documents["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command, *words = container["args"]
    found = root.get_command(click.Context(root), command)
    assert found is not None
    context = found.make_context(command, words)
    assert context.params["apply"] is True
    assert pod["serviceAccountName"] == documents["ServiceAccount"]["metadata"]["name"]
    (rule,) = documents["Role"]["rules"]
    assert set(rule["resourceNames"]) == set(context.params["paths"])
    assert rule["verbs"] == ["get", "patch"]
    assert {one["name"] for one in container["volumeMounts"]} == {
        one["name"] for one in pod["volumes"]
    }


def test_the_table_is_what_kubectl_shows() -> None:
    definition = yaml.safe_load((DEPLOY.parent / "crds" / "accesstokens.yaml").read_text())
    (version,) = definition["spec"]["versions"]
    columns = [one["name"].upper() for one in version["additionalPrinterColumns"]]
    shown = blocks("", section("The connecting side"))[0].splitlines()
    assert shown[0].split() == ["NAME", *columns]
    assert shown[1].split()[2:] == ["true", "Ready", "OK"]
