"""Grants: asked for, shown, listed, changed, ended."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.api.shapes import Cost, Cursor, Duration, Id, Limit, Name, Shape, Time
from app.domain.certificates import KeyType
from app.domain.codes import LONGEST, SHORTEST_CHOSEN
from app.domain.grants import MOST_REDEMPTIONS, Sort, State
from app.domain.policies import (
    LONGEST_DESCRIPTION,
    MOST_LABELS,
    MOST_NETWORKS,
    MOST_PER_SUBJECT,
    MOST_SUBJECTS,
)

LABEL = (
    r"^(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?"
    r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
LABEL_VALUE = r"^(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
LABEL_AND_VALUE = LABEL[:-1] + "=" + LABEL_VALUE[1:]
PREFIX = r"^[a-z0-9][-a-z0-9.]{0,62}$"
PRINTABLE_ASCII = r"^[!-~]+$"
NETWORK = r"^[0-9A-Fa-f:.]{2,45}(?:/[0-9]{1,3})?$"
# No control characters: what is left is checked with the whole text.
PLAIN = r"^[^\x00-\x1f\x7f-\x9f]*$"
PLAIN_LINES = r"^[^\x00-\x09\x0b-\x1f\x7f-\x9f]*$"

Labels = Annotated[
    dict[
        Annotated[str, Field(pattern=LABEL, max_length=317)],
        Annotated[str, Field(pattern=LABEL_VALUE, max_length=63)],
    ],
    Field(max_length=MOST_LABELS, description="As Kubernetes has them."),
]
Description = Annotated[
    str,
    Field(
        pattern=PLAIN_LINES,
        max_length=LONGEST_DESCRIPTION,
        description="Printable text, for people.",
    ),
]
Redemptions = Annotated[
    int, Field(strict=True, ge=1, le=MOST_REDEMPTIONS, description="How often it may be redeemed.")
]


class Policy(Shape):
    """What a claim has to fulfil beside the right code; what is null or empty is not asked."""

    subjects: Annotated[
        tuple[Annotated[str, Field(pattern=PLAIN, min_length=1, max_length=253)], ...],
        Field(
            max_length=MOST_SUBJECTS,
            description="Subjects, or patterns: * stands for any characters, ? for one.",
        ),
    ] = ()
    networks: Annotated[
        tuple[Annotated[str, Field(pattern=NETWORK)], ...],
        Field(max_length=MOST_NETWORKS, description="Networks (CIDR) or addresses."),
    ] = ()
    lifetime: Annotated[
        Duration | None, Field(description="How long certificates live, at most.")
    ] = None
    key_type: Annotated[KeyType | None, Field(description="The kind of their keys.")] = None
    per_subject: Annotated[
        int | None,
        Field(
            strict=True,
            ge=1,
            le=MOST_PER_SUBJECT,
            description="How often one subject may redeem it.",
        ),
    ] = None
    name_prefix: Annotated[
        str | None, Field(pattern=PREFIX, description="How names of Links have to begin.")
    ] = None


class GrantWish(Shape):
    """What a new grant shall be like."""

    site: Annotated[Name | None, Field(description="The only one, if left out.")] = None
    redemptions: Redemptions = 1
    window: Annotated[Duration, Field(description="How long it is good, from now on.")] = "15m"
    cost: Cost = 1
    code: Annotated[
        str | None,
        Field(
            pattern=PRINTABLE_ASCII,
            min_length=SHORTEST_CHOSEN,
            max_length=LONGEST,
            description="A code of your own; left out, one is made, which is better.",
        ),
    ] = None
    issuer: Annotated[Name | None, Field(description="An authority other than the site's.")] = None
    policy: Policy | None = None
    not_before: Annotated[Time | None, Field(description="Nobody redeems it earlier.")] = None
    labels: Labels = {}  # noqa: RUF012 - pydantic copies it
    description: Description = ""


class NewGrant(GrantWish):
    """A grant that is asked for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "lab",
                    "site": "west",
                    "redemptions": 10,
                    "window": "24h",
                    "policy": {"networks": ["10.1.0.0/16"], "per_subject": 1},
                    "labels": {"team": "ops"},
                    "description": "Stores of the east, ticket 4711",
                }
            ]
        }
    )

    name: Name


class GrantChange(Shape):
    """What of a grant shall become otherwise; what is null stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"labels": {"team": "ops"}, "redemptions": 20}]}
    )

    expires_at: Annotated[Time | None, Field(description="Later than now, and than it is.")] = None
    redemptions: Annotated[Redemptions | None, Field(description="More than it is.")] = None
    labels: Labels | None = None
    description: Description | None = None


class Extension(Shape):
    """For how long, or how often, a grant shall be good."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"window": "48h"}]})

    window: Annotated[Duration | None, Field(description="From now on.")] = None
    redemptions: Annotated[Redemptions | None, Field(description="From the beginning.")] = None


class Revocation(Shape):
    """How a grant is ended."""

    certificates: Annotated[
        bool,
        Field(
            strict=True,
            description="Whether the certificates that it gave out are revoked, too.",
        ),
    ] = True


class Grant(Shape):
    """A grant as it stands."""

    id: Id
    name: str
    site: str
    state: State
    redemptions: Annotated[int, Field(description="How often it may be redeemed.")]
    redeemed: Annotated[int, Field(description="How often it was.")]
    cost: int
    created_at: Time
    expires_at: Time
    revoked_at: Time | None
    issuer: str | None
    policy: Policy | None
    not_before: Time | None
    labels: dict[str, str]
    description: str


class CreatedGrant(Shape):
    """A new grant with its code, which is shown here and never again."""

    grant: Grant
    code: Annotated[str, Field(repr=False)]
    token: Annotated[
        str | None,
        Field(
            repr=False,
            description="The AccessToken as YAML; null while nobody knows how we are reached.",
        ),
    ]


class RevokedGrant(Shape):
    """A grant that was ended, and how many certificates were revoked with it just now."""

    grant: Grant
    certificates: int


class GrantPage(Shape):
    """Some grants in order."""

    items: tuple[Grant, ...]
    next: Cursor | None


class GrantListing(Shape):
    """Which grants are asked for, and in which order."""

    site: Name | None = None
    state: State | None = None
    name_prefix: Annotated[str | None, Field(pattern=r"^[a-z0-9][-a-z0-9]*$", max_length=63)] = None
    label: Annotated[
        str | None,
        Field(pattern=LABEL_AND_VALUE, max_length=400, description="KEY=VALUE, as in team=ops."),
    ] = None
    sort: Sort = Sort.CREATED_AT
    order: Literal["asc", "desc"] = "asc"
    limit: Limit = 100
    cursor: Cursor | None = None
