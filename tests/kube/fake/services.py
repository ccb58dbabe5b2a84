"""What an API server does to Services: it gives cluster IPs and node ports, and takes them back.

As it was read in Kubernetes 1.20 (`pkg/registry/core/service`), for one family of addresses.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tests.kube.errors import invalid
from tests.kube.fake.ownership import Object

_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_TYPES: Final = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
_OUTSIDE: Final = {"NodePort", "LoadBalancer"}
_NODE_PORTS: Final = range(30000, 32768)
_ADDRESSES: Final = 254


def settled(before: Object | None, made: Object, others: Iterable[Object]) -> Object:
    """`made` as it is stored, with all that is given out; `KubeError` 422."""
    others = list(others)
    spec: Object = {**made["spec"], "ports": [dict(one) for one in made["spec"].get("ports") or ()]}
    old: Mapping[str, Any] = (before or {}).get("spec") or {}
    _forget(old, spec)
    if spec["type"] in _OUTSIDE:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    for port in spec["ports"]:
        port.setdefault("targetPort", port["port"])
    name = made["metadata"]["name"]
    causes = [*_problems(name, spec, old, others)]
    if causes:
        raise invalid("Service", "", name, causes)
    _give(old, spec, others)
    return {**made, "spec": spec}


def _forget(old: Mapping[str, Any], spec: Object) -> None:
    """What is of no use in the new type goes, unless somebody has just written it."""
    if _has_node_ports(old) and not _has_node_ports(spec):
        given = [one.get("nodePort") for one in old.get("ports", ())]
        if given == [one.get("nodePort") for one in spec["ports"]]:
            for port in spec["ports"]:
                port.pop("nodePort", None)
    health = spec.get("healthCheckNodePort")
    if _is_checked(old) and not _is_checked(spec) and health == old.get("healthCheckNodePort"):
        spec.pop("healthCheckNodePort", None)
    if old.get("type") == "LoadBalancer" != spec["type"]:
        spec.pop("allocateLoadBalancerNodePorts", None)
        if spec.get("loadBalancerClass") == old.get("loadBalancerClass"):
            spec.pop("loadBalancerClass", None)


def _problems(
    name: str, spec: Mapping[str, Any], old: Mapping[str, Any], others: Iterable[Object]
) -> Iterator[tuple[str, str]]:
    if _NAME.fullmatch(name) is None:
        yield "metadata.name", f'Invalid value: "{name}": a DNS-1035 label must consist of ...'
    if spec["type"] not in _TYPES:
        yield "spec.type", f'Unsupported value: "{spec["type"]}"'
    if old.get("clusterIP") not in {None, "", "None", spec.get("clusterIP", old.get("clusterIP"))}:
        yield "spec.clusterIP", f'Invalid value: "{spec["clusterIP"]}": field is immutable'
    yield from _of_balancing(spec, old)
    if not spec["ports"] and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        yield "spec.ports", "Required value"
    mine = {one.get("nodePort") for one in old.get("ports", ())}
    names = [one.get("name") for one in spec["ports"]]
    for index, port in enumerate(spec["ports"]):
        at = f"spec.ports[{index}]"
        if len(names) > 1 and not port.get("name"):
            yield f"{at}.name", "Required value"
        if port.get("name") and port["name"] in names[:index]:
            yield f"{at}.name", f'Duplicate value: "{port["name"]}"'
        if port.get("nodePort"):
            why = _of_node_port(port["nodePort"], spec, _node_ports(others) - mine)
            yield from [(f"{at}.nodePort", why)] if why else []


def _of_balancing(spec: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    policy, class_name = spec.get("externalTrafficPolicy"), spec.get("loadBalancerClass")
    if policy is not None and spec["type"] not in _OUTSIDE:
        yield "spec.externalTrafficPolicy", f'Invalid value: "{policy}": may only be set when ...'
    elif policy not in {None, "Local", "Cluster"}:
        yield "spec.externalTrafficPolicy", f'Unsupported value: "{policy}"'
    if old.get("type") == spec["type"] == "LoadBalancer":
        if class_name != old.get("loadBalancerClass"):
            yield "spec.loadBalancerClass", "Invalid value: may not change once set"
    elif class_name and spec["type"] != "LoadBalancer":
        yield "spec.loadBalancerClass", "Forbidden: may only be used when type is LoadBalancer"


def _of_node_port(number: int, spec: Mapping[str, Any], taken: set[Any]) -> str:
    if not _has_node_ports(spec):
        return "Forbidden: may not be used when `type` is 'ClusterIP'"
    if number not in _NODE_PORTS:
        return f"Invalid value: {number}: provided port is not in the valid range"
    return f"Invalid value: {number}: provided port is already allocated" if number in taken else ""


def _give(old: Mapping[str, Any], spec: Object, others: Iterable[Object]) -> None:
    if spec["type"] == "ExternalName":
        for gone in ("clusterIP", "clusterIPs"):
            spec.pop(gone, None)
        return
    if not spec.get("clusterIP"):
        taken = {(one.get("spec") or {}).get("clusterIP") for one in others}
        free = (f"10.0.0.{number}" for number in range(1, _ADDRESSES + 1))
        spec["clusterIP"] = old.get("clusterIP") or next(one for one in free if one not in taken)
    spec["clusterIPs"] = [spec["clusterIP"]]
    taken_ports = _node_ports(others) | {one.get("nodePort") for one in spec["ports"]}
    free_ports = (number for number in _NODE_PORTS if number not in taken_ports)
    for port in spec["ports"] if _has_node_ports(spec) else ():
        if not port.get("nodePort"):
            port["nodePort"] = next(free_ports)
    if _is_checked(spec) and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = old.get("healthCheckNodePort") or next(free_ports)


def _node_ports(services: Iterable[Object]) -> set[Any]:
    """All that others have."""
    taken: set[Any] = set()
    for one in services:
        spec = one.get("spec") or {}
        taken |= {port.get("nodePort") for port in spec.get("ports", ())}
        taken.add(spec.get("healthCheckNodePort"))
    return taken - {None, 0}


def _has_node_ports(spec: Mapping[str, Any]) -> bool:
    return spec.get("type") in _OUTSIDE


def _is_checked(spec: Mapping[str, Any]) -> bool:
    """Whether a balancer asks the nodes which of them has a pod."""
    return (spec.get("type"), spec.get("externalTrafficPolicy")) == ("LoadBalancer", "Local")
