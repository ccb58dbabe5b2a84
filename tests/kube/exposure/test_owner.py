from pathlib import Path

from app.kube.exposure.owner import owner
from app.kube.resources import Object
from tests.kube.api_server import Kube
from tests.kube.clients import connected, run
from tests.kube.exposure.scene import OBJECTS, PLACE
from tests.kube.objects import a_deployment


def test_the_owner_is_a_deployment_beside_what_it_owns(kube: Kube, tmp_path: Path) -> None:
    kube.namespace(PLACE)
    made = kube.create(a_deployment(namespace=PLACE))

    async def main(deployment: str) -> Object | None:
        async with connected(kube, tmp_path) as client:
            return await owner(client, OBJECTS, deployment)

    found = run(main("grantserver"))
    assert found is not None
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    assert run(main("nobody")) is run(main("")) is None
