"""The kinds that are served: a few that are built in, and what CustomResourceDefinitions add."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.kube.errors import invalid
from tests.kube.fake.schema import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A printer column: its heading, and where its value is."""

    name: str
    type: str
    path: str
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of object: its names, and the rules it is kept by."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    has_status: bool = False
    schema: Schema
    columns: tuple[Column, ...] = ()
    custom: bool = False
    """From a CustomResourceDefinition: has a generation, and wrong types are 422 and not 400."""
    may_overwrite: bool = True
    """A PUT may leave the resourceVersion out."""
    counts_generations: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def key(self) -> tuple[str, str]:
        return self.group, self.plural


_STRING: Final[Schema] = {"type": "string"}
_STRINGS: Final[Schema] = {"type": "object", "additionalProperties": _STRING}
_BYTES: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": "string", "format": "byte"},
}
_INT: Final[Schema] = {"type": "integer", "format": "int32"}
_COUNT: Final[Schema] = {"type": "integer", "format": "int32", "minimum": 0}
_PORT: Final[Schema] = {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time", "nullable": True}
_MICROTIME: Final[Schema] = {"type": "string", "format": "microtime", "nullable": True}
_OPEN: Final[Schema] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_REFERENCE: Final[Schema] = {
    "type": "object",
    "properties": dict.fromkeys(
        ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"), _STRING
    ),
}


def _object(required: Sequence[str] = (), /, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(items: Schema, *keys: str) -> Schema:
    kind = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys} if keys else {}
    return {"type": "array", "items": items, **kind}


_INGRESS: Final = _object(
    ip=_STRING, hostname=_STRING, ports=_list(_object(port=_INT, protocol=_STRING, error=_STRING))
)

DEFINITIONS: Final = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    singular="customresourcedefinition",
    short_names=("crd", "crds"),
    namespaced=False,
    has_status=True,
    counts_generations=True,
    may_overwrite=False,
    schema=_object(spec=_OPEN, status=_OPEN),
)
NAMESPACES: Final = Kind(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    singular="namespace",
    short_names=("ns",),
    namespaced=False,
    has_status=True,
    schema=_object(
        spec=_object(finalizers=_list(_STRING)),
        status=_object(phase=_STRING, conditions=_list(_OPEN)),
    ),
)
SECRETS: Final = Kind(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    singular="secret",
    schema=_object(type=_STRING, data=_BYTES, stringData=_STRINGS, immutable=_BOOLEAN),
)
EVENTS: Final = Kind(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    short_names=("ev",),
    schema=_object(
        involvedObject=_REFERENCE,
        reason=_STRING,
        message=_STRING,
        source=_object(component=_STRING, host=_STRING),
        firstTimestamp=_TIME,
        lastTimestamp=_TIME,
        count=_INT,
        type=_STRING,
        eventTime=_MICROTIME,
        series=_object(count=_INT, lastObservedTime=_MICROTIME),
        action=_STRING,
        related=_REFERENCE,
        reportingComponent=_STRING,
        reportingInstance=_STRING,
    ),
)
SERVICES: Final = Kind(
    group="",
    version="v1",
    kind="Service",
    plural="services",
    singular="service",
    short_names=("svc",),
    has_status=True,
    schema=_object(
        spec=_object(
            type={**_STRING, "default": "ClusterIP"},
            selector=_STRINGS,
            clusterIP=_STRING,
            clusterIPs=_list(_STRING),
            externalIPs=_list(_STRING),
            externalName=_STRING,
            externalTrafficPolicy=_STRING,
            internalTrafficPolicy=_STRING,
            healthCheckNodePort=_INT,
            ipFamilies=_list(_STRING),
            ipFamilyPolicy=_STRING,
            loadBalancerIP=_STRING,
            loadBalancerClass=_STRING,
            loadBalancerSourceRanges=_list(_STRING),
            allocateLoadBalancerNodePorts=_BOOLEAN,
            publishNotReadyAddresses=_BOOLEAN,
            sessionAffinity={**_STRING, "default": "None"},
            ports=_list(
                _object(
                    ["port"],
                    name=_STRING,
                    protocol={**_STRING, "default": "TCP"},
                    appProtocol=_STRING,
                    port=_PORT,
                    targetPort={"x-kubernetes-int-or-string": True},
                    nodePort=_INT,
                ),
                "port",
                "protocol",
            ),
        ),
        status=_object(
            loadBalancer=_object(ingress=_list(_INGRESS)), conditions=_list(_OPEN, "type")
        ),
    ),
)
_BACKEND: Final = _object(
    service=_object(["name"], name=_STRING, port=_object(name=_STRING, number=_INT)),
    resource=_OPEN,
)
INGRESSES: Final = Kind(
    group="networking.k8s.io",
    version="v1",
    kind="Ingress",
    plural="ingresses",
    singular="ingress",
    short_names=("ing",),
    has_status=True,
    counts_generations=True,
    schema=_object(
        spec=_object(
            ingressClassName=_STRING,
            defaultBackend=_BACKEND,
            tls=_list(_object(hosts=_list(_STRING), secretName=_STRING)),
            rules=_list(
                _object(
                    host=_STRING,
                    http=_object(
                        ["paths"],
                        paths=_list(
                            _object(
                                ["backend", "pathType"],
                                path=_STRING,
                                pathType=_STRING,
                                backend=_BACKEND,
                            )
                        ),
                    ),
                )
            ),
        ),
        status=_object(loadBalancer=_object(ingress=_list(_INGRESS))),
    ),
)
DEPLOYMENTS: Final = Kind(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    singular="deployment",
    short_names=("deploy",),
    has_status=True,
    counts_generations=True,
    schema=_object(spec=_OPEN, status=_OPEN),
)
BUILT_IN: Final = (
    NAMESPACES,
    SECRETS,
    Kind(
        group="",
        version="v1",
        kind="ConfigMap",
        plural="configmaps",
        singular="configmap",
        short_names=("cm",),
        schema=_object(data=_STRINGS, binaryData=_BYTES, immutable=_BOOLEAN),
    ),
    EVENTS,
    SERVICES,
    INGRESSES,
    DEPLOYMENTS,
    Kind(
        group="coordination.k8s.io",
        version="v1",
        kind="Lease",
        plural="leases",
        singular="lease",
        may_overwrite=False,
        schema=_object(
            spec=_object(
                holderIdentity=_STRING,
                leaseDurationSeconds={**_INT, "minimum": 1},
                leaseTransitions=_COUNT,
                acquireTime=_MICROTIME,
                renewTime=_MICROTIME,
            )
        ),
    ),
    DEFINITIONS,
)


def defined(definition: Mapping[str, Any]) -> Kind:
    """Read the kind that a CustomResourceDefinition adds; `KubeError` 422 if it cannot be one."""
    spec = definition.get("spec", {})
    name = definition["metadata"]["name"]
    causes = list(_problems(spec, name))
    if causes:
        raise invalid(DEFINITIONS.kind, DEFINITIONS.group, name, causes)
    version = next(one for one in spec["versions"] if one["storage"])
    names = spec["names"]
    return Kind(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        short_names=tuple(names.get("shortNames", ())),
        namespaced=spec["scope"] == "Namespaced",
        has_status="status" in version.get("subresources", {}),
        schema=version["schema"]["openAPIV3Schema"],
        columns=tuple(
            Column(
                name=one["name"],
                type=one["type"],
                path=one["jsonPath"],
                description=one.get("description", ""),
                priority=one.get("priority", 0),
            )
            for one in version.get("additionalPrinterColumns", ())
        ),
        custom=True,
        counts_generations=True,
        may_overwrite=False,
    )


def _problems(spec: Mapping[str, Any], name: str) -> Iterator[tuple[str, str]]:
    names = spec.get("names", {})
    if name != f"{names.get('plural')}.{spec.get('group')}":
        yield "metadata.name", 'Invalid value: must be spec.names.plural+"."+spec.group'
    if spec.get("scope") not in {"Namespaced", "Cluster"}:
        yield "spec.scope", "Required value"
    if not names.get("kind"):
        yield "spec.names.kind", "Required value"
    versions = spec.get("versions") or []
    if [one.get("storage") for one in versions].count(True) != 1:
        yield "spec.versions", "Invalid value: must have exactly one version marked as storage"
    for index, version in enumerate(versions):
        at = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = version.get("schema", {}).get("openAPIV3Schema")
        if schema is None:
            yield at, "Required value: schemas are required"
        elif schema.get("type") != "object":
            yield f"{at}.type", "Invalid value: must be object at the root"
        else:
            yield from _of_structure(schema, at)


def _of_structure(schema: Schema, at: str) -> Iterator[tuple[str, str]]:
    """Every value has a type, and a map either names its fields or says what is in them."""
    free = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get(
        "x-kubernetes-int-or-string"
    )
    if "type" not in schema and not free:
        yield f"{at}.type", "Required value: must not be empty for specified object fields"
    if schema.get("type") == "array" and "items" not in schema:
        yield f"{at}.items", "Required value: must be specified"
    if "properties" in schema and "additionalProperties" in schema:
        yield f"{at}.additionalProperties", "Forbidden: mutual exclusive with properties"
    for name, below in schema.get("properties", {}).items():
        yield from _of_structure(below, f"{at}.properties[{name}]")
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), Mapping):
            yield from _of_structure(schema[keyword], f"{at}.{keyword}")
