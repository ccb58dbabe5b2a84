"""A server that is told to stop while many claim: whoever it has let in gets an answer."""

import http.client
import signal
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.services import grants
from tests.crew import Crew, working
from tests.running import PATIENCE

CLIENTS = 12


class Clients:
    """Claim one after the other until the door is closed; what became of each is counted."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._issued = crew.server.issue("for-all", redemptions=100_000)
        self._lock = threading.Lock()
        self.redeemed = 0
        self.unanswered: list[str] = []

    def come(self, client: int) -> None:
        host, port = self._crew.server.addresses.redemption
        number = 0
        while True:
            number += 1
            connection = http.client.HTTPSConnection(
                host, port, context=self._crew.server.context, timeout=PATIENCE
            )
            try:
                connection.connect()
            except (OSError, ssl.SSLError):
                return  # not let in: nothing was claimed
            try:
                connection.request(
                    "POST",
                    f"/{self._issued.grant.id}",
                    self._issued.code.encode(),
                    {"name": "token", "subject": f"{client}-{number}"},
                )
                answer = connection.getresponse()
                whole = answer.status == 200 and answer.read().endswith(b"\n")
            except (OSError, http.client.HTTPException) as error:
                whole = False
                with self._lock:
                    self.unanswered.append(repr(error))
            finally:
                connection.close()
            with self._lock:
                self.redeemed += whole

    def spent(self) -> int:
        [grant] = grants.every(self._crew.server.home.database)
        return grant.spent


@pytest.mark.parametrize("workers", [1, 2])
def test_no_claim_that_was_accepted_goes_unanswered(tmp_path: Path, workers: int) -> None:
    with working(tmp_path, workers=workers) as crew:
        clients = Clients(crew)
        with ThreadPoolExecutor(CLIENTS) as pool:
            coming = [pool.submit(clients.come, number) for number in range(CLIENTS)]
            while clients.redeemed < 5 * CLIENTS:
                assert not any(one.done() for one in coming)
            crew.process.send_signal(signal.SIGTERM)
            for one in coming:
                one.result(PATIENCE)
        assert crew.ends() == 0
        assert clients.unanswered == []
        assert clients.spent() == clients.redeemed
        assert not crew.said("connections were cut")
