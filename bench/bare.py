"""The yardstick: what uvicorn does with a TLS 1.3 handshake and an empty answer, nothing else."""

import argparse
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from uvicorn._types import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGISendCallable,
        Scope,
    )


async def empty(scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable") -> None:
    """Read the body, then answer 200 with nothing."""
    if scope["type"] != "http":
        return
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"0"), (b"connection", b"close")],
            "trailers": False,
        }
    )
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def serve(application: "ASGI3Application", port: int, certificate: Path) -> None:
    """Serve on loopback with the settings that are the cheapest, until a signal ends it.

    `certificate` is one PEM file with key and certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(certificate)
    config = uvicorn.Config(
        application,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ssl_context_factory=lambda _config, _default: context,
        ssl_certfile=certificate,
    )
    uvicorn.Server(config).run()


def main() -> None:
    """Serve empty answers on `port` with `certificate`."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("certificate", type=Path)
    arguments = parser.parse_args()
    serve(empty, arguments.port, arguments.certificate)


if __name__ == "__main__":
    main()
