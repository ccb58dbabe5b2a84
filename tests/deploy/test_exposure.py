"""`docs/exposure.md` says what is so: what is made, what settings change, and each example."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import ambient, settings
from app.domain.exposure import Way
from app.domain.self_check import Outcome
from app.in_cluster import exposing
from app.kube.exposure.discovery import _TLS_ROUTE_VERSIONS
from app.kube.exposure.keeping import Keeping
from app.kube.exposure.objects import MANAGER, owned_by
from app.kube.exposure.plan import Plan, Served, waiting_for
from app.kube.exposure.ways import WAYS, chosen
from app.kube.recorder import Recorder
from app.kube.refusals import refusal
from app.kube.resources import INGRESSES, ROUTES, SERVICES, gateways, tls_routes
from app.services.serving import Source
from app.store.addresses import AddressRow
from tests.deploy.handbook import DOCS, EXPOSURE, anchors, blocks, headings, rows, section
from tests.deploy.kustomize import DEPLOY, Object, rendered
from tests.deploy.rights import Right, granted, named, rules, said
from tests.deploy.test_manifests import environment, overlay
from tests.kube.api_server import FakeKube
from tests.kube.clients import LOG, connected
from tests.settings.cases import CASES

SERVED = Served(routes=True, gateways="v1", tls_routes="v1")
KINDS = ("Service", "Route", "Ingress", "Gateway", "TLSRoute")
IN_POD = {
    "GRANTSERVER_KUBERNETES_NAMESPACES": "*",
    "GRANTSERVER_KUBERNETES_LEASE": "grantserver/grantserver",
    "GRANTSERVER_EXPOSURE_NAME": "grantserver/grantserver-public",
}
"""Where a pod finds its own namespace, a test says it."""

SHOWN = {
    "GRANTSERVER_EXPOSURE_HOST": "grants.example.com",
    "GRANTSERVER_EXPOSURE_CLASS": "example",
}
"""With which settings the page shows what is made; the class for a Gateway alone."""

MADE = tuple(one for one in Way if one not in {Way.AUTO, Way.URL})
each_way = pytest.mark.parametrize("way", MADE)


def plan_of(**told: str) -> Plan:
    return exposing(settings.load(IN_POD | told)).plan


def shown_plan(way: Way, **told: str) -> Plan:
    """What the page shows of a way in, with further settings."""
    given = {name: one for name, one in SHOWN.items() if way is Way.GATEWAY or "CLASS" not in name}
    return plan_of(**(given | {"GRANTSERVER_EXPOSURE_TYPE": way} | told))


def objects(plan: Plan) -> dict[str, Object]:
    """What is wanted, by kind, with what an object says of itself."""
    return {
        one.resource.kind: {
            "apiVersion": one.resource.api_version,
            "kind": one.resource.kind,
            **one.body,
        }
        for one in WAYS[chosen(plan.way, SERVED)].wanted(plan, SERVED)
    }


def yaml_of(heading: str) -> list[Any]:
    return [
        one
        for text in blocks("yaml", section(heading, EXPOSURE))
        for one in yaml.safe_load_all(text)
    ]


def test_the_table_has_every_way_in_and_its_component() -> None:
    table = rows("Ways in", EXPOSURE)
    assert [one[0] for one in table] == [f"`{way}`" for way in order(table)]
    assert set(order(table)) == set(Way)
    for way, _made, _url, component in table:
        name = component.strip("`")
        assert name in {"none", way.strip("`")}
        assert (DEPLOY / way.strip("`")).is_dir() == (name != "none")


def order(table: Sequence[Sequence[str]]) -> list[Way]:
    return [Way(one[0].strip("`")) for one in table]


def test_all_that_is_made_has_the_metadata_of_the_page() -> None:
    (expected,) = yaml_of("What is made")
    uid = expected["metadata"]["ownerReferences"][0]["uid"]
    (made,) = objects(plan_of(GRANTSERVER_EXPOSURE_TYPE="clusterip")).values()
    deployment = {"metadata": {"name": "grantserver", "uid": uid}}
    assert owned_by(made, deployment)["metadata"] == expected["metadata"]
    assert f"the field manager `{MANAGER}`" in " ".join(section("What is made", EXPOSURE).split())


@each_way
def test_what_is_made_is_what_the_page_shows(way: Way) -> None:
    expected = {one["kind"]: one for one in yaml_of(way)}
    plan = shown_plan(way)
    plain = objects(plan_of(GRANTSERVER_EXPOSURE_TYPE="clusterip"))["Service"]["metadata"]
    made = objects(plan)
    for one in made.values():
        notes = {
            name: told for name, told in one.pop("metadata").items() if plain.get(name) != told
        }
        if notes:
            one["metadata"] = notes
    assert made == expected


def test_the_versions_of_a_tls_route_are_those_that_are_looked_for() -> None:
    told = " ".join(section("gateway", EXPOSURE).split())
    *most, last = (f"`{one}`" for one in _TLS_ROUTE_VERSIONS)
    assert f"{', '.join(most)} or {last}" in told


WRITTEN: Mapping[Way, Mapping[str, Object]] = {
    Way.ROUTE: {
        "Route": {
            "status": {
                "ingress": [
                    {"host": "HOST", "conditions": [{"type": "Admitted", "status": "True"}]}
                ]
            }
        }
    },
    Way.LOAD_BALANCER: {
        "Service": {"status": {"loadBalancer": {"ingress": [{"hostname": "ADDRESS"}]}}}
    },
    Way.NODE_PORT: {},
    Way.INGRESS: {"Ingress": {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}},
    Way.GATEWAY: {
        "Gateway": {
            "status": {
                "addresses": [{"value": "192.0.2.1"}],
                "conditions": [{"type": "Programmed", "status": "True"}],
            }
        },
        "TLSRoute": {
            "status": {
                "parents": [
                    {
                        "parentRef": {"name": "grantserver-public"},
                        "conditions": [{"type": "Accepted", "status": "True"}],
                    }
                ]
            }
        },
    },
    Way.CLUSTER_IP: {"Service": {}},
}
"""What whoever does it writes into what is made."""


@each_way
def test_the_url_has_the_form_that_the_table_tells(way: Way) -> None:
    told = next(one[2] for one in rows("Ways in", EXPOSURE) if one[0] == f"`{way}`").strip("`")
    host = {} if way is Way.CLUSTER_IP else {"GRANTSERVER_EXPOSURE_HOST": "host"}
    if way is Way.LOAD_BALANCER:
        host = {"GRANTSERVER_EXPOSURE_HOST": ""}
    plan = (
        shown_plan(way, GRANTSERVER_EXPOSURE_HOST="", **host)
        if not host
        else shown_plan(way, **host)
    )
    if way is Way.CLUSTER_IP:
        plan = plan_of(GRANTSERVER_EXPOSURE_TYPE="clusterip")
    found = {one.resource.kind: one.body for one in WAYS[way].wanted(plan, SERVED)}
    for kind, written in WRITTEN[way].items():
        found[kind] = {**found[kind], **written}
    found["Service"]["spec"]["ports"][0]["nodePort"] = 30123
    (address, *_) = WAYS[way].observed(plan, found).addresses
    expected = told.replace("NODEPORT", "30123").replace(
        "NAME.NAMESPACE", "grantserver-public.grantserver"
    )
    assert address.url == expected.lower()


PROBES = {
    "_NAME": "grantserver/other",
    "_SELECTOR": "app=other",
    "_ANNOTATIONS": "example.com/a=b",
    "_LABELS": "example.com/a=b",
    "_CLASS": "other",
    "_LOAD_BALANCER_IP": "192.0.2.20",
    "_HOST": "other.example.com",
    "_PORT": "30099",
    "_GATEWAY": "infra/public",
    "_TRAFFIC_POLICY": "Cluster",
}
"""Another value for each setting; that of the Deployment says whose all of it is."""


def flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of an object by its path, as the page writes it."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from flat(one, f"{at}.{name}" if at else name)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from flat(one, f"{at}[{index}]")
    else:
        yield at, value


def changes(way: Way, setting: str) -> set[tuple[str, str]]:
    """Kind and path of all that is otherwise with another value of a setting."""
    before = objects(shown_plan(way))
    after = objects(shown_plan(way, **{f"GRANTSERVER_EXPOSURE{setting}": PROBES[setting]}))
    found = set()
    for kind in before.keys() | after.keys():
        if kind not in after:
            found.add((kind, "removed"))
            continue
        one, other = dict(flat(before[kind])), dict(flat(after[kind]))
        found |= {(kind, at) for at in one.keys() | other.keys() if one.get(at) != other.get(at)}
    return found


def documented_changes() -> dict[tuple[Way, str], set[tuple[str, str]]]:
    """The same by the page: a setting, a way in, and what it changes there."""
    found: dict[tuple[Way, str], set[tuple[str, str]]] = {}
    setting, table = "", []
    for first, *others in rows("What settings change in it", EXPOSURE):
        setting = next(iter(re.findall(r"`(_[A-Z_]+)`", first)), setting)
        table.append((setting, *others))
    for setting, ways, kinds, fields in table:
        if ways.startswith("as "):
            for (way, of), found_there in list(found.items()):
                if of == ways.removeprefix("as ").strip("`"):
                    found[way, setting] = {
                        (kind, path.replace("annotations", "labels")) for kind, path in found_there
                    }
            continue
        named = MADE if ways == "all" else [Way(one) for one in re.findall(r"`(\w+)`", ways)]
        for way in named:
            there = found.setdefault((way, setting), set())
            if kinds == "none":
                continue
            for kind in objects(shown_plan(way)) if kinds == "all" else kinds.split(", "):
                there |= {(kind, path) for path in re.findall(r"`([a-z]\S*)`", fields)}
    return found


@pytest.mark.parametrize("setting", PROBES)
def test_a_setting_changes_what_the_page_says_and_nothing_else(setting: str) -> None:
    told = documented_changes()
    for way in MADE:
        expected = told.get((way, setting), set())
        for kind, path in changes(way, setting):
            if setting == "_NAME" and path != "metadata.name":
                continue  # where it is referred to
            if path == "removed":
                assert (setting, kind) == ("_GATEWAY", "Gateway")
                continue
            assert any(one == kind and path.startswith(at) for one, at in expected), (
                way,
                kind,
                path,
            )
        for kind, at in expected:
            assert any(
                one == kind and path.startswith(at) for one, path in changes(way, setting)
            ), (way, kind, at)


def test_every_setting_of_a_way_in_is_in_the_table() -> None:
    named = {setting for _, setting in documented_changes()}
    known = {f"_{case.name}".upper() for case in CASES if case.group == "exposure"}
    assert known - named == {"_TYPE", "_DOMAIN"}
    assert "`_DOMAIN`" in section("What settings change in it", EXPOSURE)
    assert PROBES.keys() == named - {"_DEPLOYMENT"}


def test_every_setting_that_is_named_is_one() -> None:
    known = {case.variable for case in CASES}
    named = set(re.findall(r"\bGRANTSERVER(?:_[A-Z]+)+\b", EXPOSURE))
    assert named - known == {"GRANTSERVER_EXPOSURE"}


EXAMPLES = headings("Examples", EXPOSURE)


def test_there_is_an_example_for_each_kind_of_place() -> None:
    assert len(EXAMPLES) == 9
    text = " ".join(EXAMPLES)
    for place in (
        "OpenShift",
        "AWS",
        "Google",
        "Azure",
        "MetalLB",
        "kind",
        "nginx",
        "Gateway",
        "NAT",
    ):
        assert place in text


def example(heading: str, directory: Path) -> list[Object]:
    """What an example makes of the installation."""
    told = next(one for one in reversed(yaml_of(heading)) if "configMapGenerator" in one)
    names = [Path(one).name for one in told.get("components", ())]
    folder = overlay(directory, "cluster-wide", names)
    path = folder / "kustomization.yaml"
    before = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**before, **told}))
    return rendered(folder)


@pytest.mark.parametrize("heading", EXAMPLES)
def test_an_example_is_understood_and_makes_what_it_says(heading: str, tmp_path: Path) -> None:
    installed = example(heading, tmp_path)
    told = environment(installed)
    made = exposing(settings.load(told | IN_POD))
    said_to_make = re.search(r"^Makes ([^,.;]+)", section(heading, EXPOSURE), re.MULTILINE)
    assert said_to_make is not None
    kinds = [one for one in KINDS if re.search(rf"\b{one}\b", said_to_make[1])]
    served = SERVED if made.plan.way is Way.ROUTE else replace(SERVED, routes=False)
    way = chosen(made.plan.way, served)
    wanted = WAYS[way].wanted(made.plan, served)
    assert sorted(one.resource.kind for one in wanted) == sorted(kinds)
    assert WAYS[way].lacking(made.plan, served) == ""
    assert made.url == told.get("GRANTSERVER_REACH_URL", "")
    shipped = granted(rules(installed, "grantserver", "listening"))
    for one in wanted:
        for verb in ("get", "list", "watch", "create", "patch", "delete"):
            assert (one.resource.group, one.resource.plural, verb) in shipped


@pytest.mark.parametrize("heading", EXAMPLES)
def test_an_example_says_what_becomes_of_client_addresses(heading: str, tmp_path: Path) -> None:
    """Where they are kept, clients are limited; where not, either PROXY tells them or nobody is."""
    chosen_settings = settings.load(environment(example(heading, tmp_path)))
    exposure = chosen_settings.exposure
    kept = exposure.way in {Way.AUTO, Way.LOAD_BALANCER} and exposure.traffic_policy == "Local"
    told = chosen_settings.listen.proxy_protocol == "required"
    assert (chosen_settings.limits.peer_failures == 0) == (not kept and not told)
    assert bool(chosen_settings.listen.proxy_sources) == told


def test_the_node_port_of_kind_is_the_one_that_leads_there(tmp_path: Path) -> None:
    cluster = yaml_of("kind")[0]
    (mapping,) = cluster["nodes"][0]["extraPortMappings"]
    told = settings.load(environment(example("kind", tmp_path)))
    assert mapping == {"containerPort": told.exposure.port, "hostPort": told.exposure.port}


def test_the_annotations_of_an_example_come_out_each_by_itself(tmp_path: Path) -> None:
    exposure = settings.load(environment(example("AWS", tmp_path))).exposure
    assert dict(exposure.annotations) == {
        "service.beta.kubernetes.io/aws-load-balancer-scheme": "internet-facing",
        "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "ip",
        "service.beta.kubernetes.io/aws-load-balancer-proxy-protocol": "*",
    }


def test_annotations_that_are_named_in_passing_can_be_set() -> None:
    """As `KEY=VALUE` they can be put into the setting as they stand."""
    named = re.findall(r"`([a-z0-9.\-]+/[\w.\-]+=[^`]+)`", EXPOSURE)
    assert len(named) >= 4
    for one in named:
        settings.load(IN_POD | {"GRANTSERVER_EXPOSURE_ANNOTATIONS": one})


def test_the_certificate_of_the_page_is_the_one_that_the_component_takes() -> None:
    (made,) = yaml_of("A certificate of somebody else")
    told = environment(rendered(DEPLOY / "cluster-wide"))
    component = yaml.safe_load((DEPLOY / "tls-secret" / "kustomization.yaml").read_text())
    told |= dict(one.split("=", 1) for one in component["configMapGenerator"][0]["literals"])
    assert settings.load(told).tls.secret == made["spec"]["secretName"]


def messages() -> Iterator[str]:
    """What the functions of the ways in say when there is no address."""
    plan = plan_of(GRANTSERVER_EXPOSURE_TYPE="clusterip")
    for resource in (SERVICES, ROUTES, INGRESSES, gateways("v1"), tls_routes("v1")):
        yield waiting_for(resource, plan.objects).waiting
    for way in (Way.ROUTE, Way.GATEWAY):
        yield WAYS[way].lacking(shown_plan(way), Served())
    refused = {"type": "Admitted", "status": "False", "reason": "HostAlreadyClaimed"}
    routers = {"status": {"ingress": [{"host": "a.example", "conditions": [refused]}]}}
    yield WAYS[Way.ROUTE].observed(plan, {"Route": routers}).waiting
    nobody: Any = None
    source = Source(
        database=nobody,
        keyring=nobody,
        url="",
        fallback="",
        secret="grantserver/certificate",
        clock=nobody,
        random_bytes=nobody,
    )
    for ca_pem in (None, "CA"):
        yield source._way(AddressRow(url=""), ca_pem).waiting
    doing = "list routes.route.openshift.io in namespace grantserver"
    yield str(refusal(403, {}, doing=doing, kind="Route", name=""))


async def troubles(server: FakeKube, directory: Path) -> AsyncIterator[str]:
    """What is said of an object that cannot be kept as it is wanted."""
    plan = plan_of(GRANTSERVER_EXPOSURE_TYPE="clusterip")
    (wanted,) = WAYS[plan.way].wanted(plan, SERVED)
    server.namespace(plan.objects.namespace)
    async with connected(server, directory) as kube:
        recorder = Recorder(
            kube,
            component="grantserver",
            instance="pod",
            clock=lambda: 0.0,
            random_bytes=ambient.random_bytes,
            log=LOG,
        )
        keeping = Keeping(kube, plan.installation, recorder, monotonic=lambda: 0.0, log=LOG)

        async def keep(seen: Object | None, body: Object) -> str:
            return (await keeping.keep(SERVICES, seen, body)).problem

        no_port = {**wanted.body, "spec": {**wanted.body["spec"], "ports": [{"port": 70_000}]}}
        yield await keep(None, no_port)
        assert await keep(None, wanted.body) == ""
        seen = server.get("Service", plan.objects.name, plan.objects.namespace)
        ending = {**seen["metadata"], "deletionTimestamp": "2026-11-22T16:00:00Z"}
        yield await keep({**seen, "metadata": ending}, wanted.body)
        changed = {**seen, "spec": {**seen["spec"], "selector": {"app": "other"}}}
        problem = ""
        while not problem:  # for as long as they are let fight
            problem = await keep(changed, wanted.body)
        yield problem
        foreign = {**seen, "metadata": {**seen["metadata"], "managedFields": []}}
        yield await keep(foreign, wanted.body)


def test_every_message_is_explained_as_it_is(fake_kube: FakeKube, tmp_path: Path) -> None:
    async def heard() -> list[str]:
        return [*messages(), *[one async for one in troubles(fake_kube, tmp_path)]]

    found = asyncio.run(heard())
    told = [pattern(one[0]) for one in rows("What an AccessGrant says", EXPOSURE)]
    for message in found:
        assert any(re.match(one, message) for one in told), message
    for one in told:
        assert any(re.match(one, message) for message in found), one
    # The beginning of others, so that it has to be whole.
    assert "waiting for an address" in found


def pattern(cell: str) -> str:
    """What a message of the table stands for: anything may follow, and … is anything."""
    (message,) = re.findall(r"^`([^`]+)`(?:$|, with nothing behind it$)", cell)
    return ".*".join(re.escape(one) for one in message.split("…"))


def test_every_outcome_of_the_self_check_is_explained() -> None:
    table = rows("What the self-check finds", EXPOSURE)
    assert {one[0].strip("`") for one in table} == set(Outcome)


def test_the_rights_of_components_are_listed_as_they_are_shipped() -> None:
    found: dict[str, set[Right]] = {}
    component = ""
    for name, what, verbs, _why in rows("Rights", EXPOSURE):
        component = name.strip("`") or component
        found.setdefault(component, set()).update(said(what, verbs))
    for folder in DEPLOY.iterdir():
        role = folder / "role.yaml"
        told = yaml.safe_load((folder / "kustomization.yaml").read_text())
        if told["kind"] != "Component" or not role.exists():
            assert folder.name not in found
            continue
        documents = [one for one in yaml.safe_load_all(role.read_text()) if one["kind"] == "Role"]
        assert found[folder.name] == named([rule for one in documents for rule in one["rules"]])


def test_links_lead_to_headings_that_are_there() -> None:
    for page, anchor in re.findall(r"\]\(([\w.]*)#([\w-]+)\)", EXPOSURE):
        text = (DOCS / page).read_text() if page else EXPOSURE
        assert anchor in anchors(text), f"{page}#{anchor}"
    for page in re.findall(r"\]\(([\w.]+)\)", EXPOSURE):
        assert (DOCS / page).exists()
