"""The Links of a namespace: found, and given another cost."""

from collections.abc import Sequence
from pathlib import Path

from app.domain.known_links import KnownLink, cost_of, known_link
from app.domain.names import is_object_name
from app.errors import Invalid


async def every(kubeconfig: Path | None, namespace: str | None) -> Sequence[KnownLink]:
    """Find all of them, by name. Raises as `opened_cluster` does, Missing, and Unavailable."""
    # Imported here and below: Kubernetes costs more than all else, and system sites are without.
    from app.cli.clusters import opened_cluster  # noqa: PLC0415
    from app.kube.resources import LINKS  # noqa: PLC0415

    async with opened_cluster(kubeconfig, namespace) as (kube, where):
        found = (await kube.list(LINKS, where)).items
    return sorted(map(known_link, found), key=lambda link: link.name)


async def set_cost(kubeconfig: Path | None, namespace: str | None, name: str, cost: int) -> int:
    """Change the cost of one, by a merge patch; gives the one before. Raises as `every` does."""
    from app.cli.clusters import opened_cluster  # noqa: PLC0415
    from app.kube.resources import LINKS  # noqa: PLC0415

    if not is_object_name(name):
        raise Invalid("name", "it can be no name of a Link")
    async with opened_cluster(kubeconfig, namespace) as (kube, where):
        before = cost_of(await kube.get(LINKS, name, where))
        await kube.patch(LINKS, name, where, {"spec": {"cost": cost}})
    return before
