import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import ambient
from app.kube.exposure.exposing import Exposing
from app.kube.informer import Pace
from app.kube.recorder import Recorder
from app.services.cluster import Cluster
from app.web.tls import rehearse
from tests.builders import Stand
from tests.kube.api_server import FakeKube
from tests.kube.clients import LOG, connected, run
from tests.kube.exposure.scene import ISSUED, KEPT, a_plan

ASKED = Exposing(plan=a_plan(), rehearse=rehearse)


@pytest.mark.parametrize(
    ("changes", "works"),
    [
        ({}, {"Exposure"}),
        ({"issued": ISSUED}, {"Exposure", "IssuedSecret"}),
        ({"kept": KEPT}, {"Exposure", "KeptSecret"}),
        # One that somebody else keeps is there for others to read already.
        ({"kept": KEPT, "issued": ISSUED}, {"Exposure", "KeptSecret"}),
    ],
)
def test_there_is_as_much_to_do_as_was_asked_for(
    fake_kube: FakeKube,
    stand: Stand,
    tmp_path: Path,
    changes: dict[str, Any],
    works: set[str],
) -> None:
    async def main() -> set[str]:
        async with connected(fake_kube, tmp_path) as kube:
            cluster = Cluster(
                database=stand.database,
                keyring=stand.keyring,
                code_keys=stand.code_keys,
                clock=stand.clock,
                random_bytes=ambient.random_bytes,
            )
            recorder = Recorder(
                kube,
                component="test",
                instance="test",
                clock=ambient.utc_instant,
                random_bytes=ambient.random_bytes,
                log=LOG,
            )
            made = replace(ASKED, **changes).works(
                kube, cluster, recorder, pace=Pace(), monotonic=ambient.monotonic, log=LOG
            )
            names = {str(getattr(one, "__qualname__", "")).partition(".")[0] for one in made}
            for one in made:
                one.close()
            await asyncio.sleep(0)
            return names

    assert run(main()) == works
