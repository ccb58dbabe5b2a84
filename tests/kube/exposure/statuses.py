"""Statuses as nobody should write them, for functions that must bear any."""

from typing import Any, Final

from hypothesis import strategies as st

_NAMES: Final = (
    "ingress",
    "ip",
    "hostname",
    "ports",
    "port",
    "error",
    "loadBalancer",
    "conditions",
    "type",
    "status",
    "reason",
    "message",
    "host",
    "parents",
    "parentRef",
    "name",
    "namespace",
    "addresses",
    "value",
    "nodePort",
    "clusterIP",
    "spec",
    "Admitted",
    "Accepted",
    "ResolvedRefs",
    "Programmed",
    "True",
    "False",
    "192.0.2.1",
    "2001:db8::1",
    "lb.example",
    "grantserver-public",
    "gs",
)
_WORDS: Final = st.sampled_from(_NAMES) | st.text(max_size=5)
_LEAVES: Final = st.none() | st.booleans() | st.integers() | _WORDS
ANYTHING: Final[st.SearchStrategy[Any]] = st.recursive(
    _LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_WORDS, below, max_size=4),
    max_leaves=20,
)
OBJECTS: Final = st.fixed_dictionaries({}, optional={"status": ANYTHING, "spec": ANYTHING})
