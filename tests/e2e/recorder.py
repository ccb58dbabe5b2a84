"""Somebody in between who ends TLS and begins it anew, and so reads all that is said.

Both halves are real connections: what is recorded is every byte of application data that crossed
either of them, before anything has made sense of it.
"""

import contextlib
import selectors
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator

from tests.running import PATIENCE
from tests.web.serving import IDENTITY


class Recorder(socketserver.ThreadingTCPServer):
    """Leads to `leads_to`, which has to be vouched for by `ca_pem`."""

    def __init__(self, leads_to: tuple[str, int], ca_pem: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passage)
        self.leads_to = leads_to
        self.onwards = ssl.create_default_context(cadata=ca_pem)
        self.shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.asked, self.answered = bytearray(), bytearray()

    @property
    def url(self) -> str:
        host, port = self.socket.getsockname()
        return f"https://{host}:{port}"


class _Passage(socketserver.BaseRequestHandler):
    """One connection, from end to end."""

    server: Recorder

    def handle(self) -> None:
        host, _ = self.server.leads_to
        with (
            self.server.shown.wrap_socket(self.request, server_side=True) as client,
            socket.create_connection(self.server.leads_to, PATIENCE) as plain,
            self.server.onwards.wrap_socket(plain, server_hostname=host) as server,
            selectors.DefaultSelector() as either,
            contextlib.suppress(ConnectionError, ssl.SSLError),  # whoever ends it, ends it for both
        ):
            either.register(client, selectors.EVENT_READ)
            either.register(server, selectors.EVENT_READ)
            while ready := either.select(PATIENCE):
                for key, _ in ready:
                    here, there, noted = (
                        (client, server, self.server.asked)
                        if key.fileobj is client
                        else (server, client, self.server.answered)
                    )
                    data = here.recv(65_536)
                    while here.pending():
                        data += here.recv(65_536)
                    if not data:
                        return
                    noted += data
                    there.sendall(data)


@contextlib.contextmanager
def recording(leads_to: tuple[str, int], ca_pem: str, directory: str) -> Iterator[Recorder]:
    """Run one until the block ends; its own certificate and key are put into `directory`."""
    with Recorder(leads_to, ca_pem) as recorder:
        chain = f"{directory}/recorder.pem"
        with open(chain, "wb") as file:  # noqa: PTH123
            file.write(IDENTITY.certificate + IDENTITY.key)
        recorder.shown.load_cert_chain(chain)
        thread = threading.Thread(target=recorder.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield recorder
        finally:
            recorder.shutdown()
            thread.join(PATIENCE)
