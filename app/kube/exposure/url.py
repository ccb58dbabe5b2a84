"""By an address that somebody else has seen to: there is nothing to make, and nothing to see."""

from app.kube.exposure.plan import Found, Observed, Plan, Served, Wanted


def wanted(_: Plan, __: Served) -> tuple[Wanted, ...]:
    """Give nothing."""
    return ()


def observed(_: Plan, __: Found) -> Observed:
    """See nothing: GRANTSERVER_REACH_URL says it."""
    return Observed()
