"""The one door to the `kubernetes` library: where the API server is, who we are to it, one request.

Of the library we use its configuration (a pod's service account, a kubeconfig) and its client (TLS,
credentials, proxies). What an answer means, and what to do when there is none, is decided above.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

try:
    Path.home()
except RuntimeError:
    # A UID without a name, as OpenShift gives them to pods, and no HOME: the library asks for the
    # home directory when it is imported, and would fail. The root is what container runtimes give.
    os.environ["HOME"] = "/"  # noqa: TID251 - not a setting of ours that is read

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import InClusterConfigLoader
from kubernetes.aio.config.kube_config import list_kube_config_contexts, load_kube_config

from app import __version__
from app.errors import Misconfigured, Unavailable

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the API server's CA."""

_LOADING_SECONDS: Final = 10.0  # a kubeconfig may name a program that gives credentials
_TOKEN: Final = "BearerToken"  # noqa: S105 - the library's name for the header with credentials

Source = Callable[[], Awaitable[Configuration]]
"""Reads, as often as it is asked, how to reach the API server."""


def service_account(*, host: str, port: int, directory: Path = SERVICE_ACCOUNT) -> Source:
    """Tell a pod's way: `host` and `port` are KUBERNETES_SERVICE_HOST and _PORT.

    The token is read anew every minute, because it is exchanged before it expires.
    """

    async def read() -> Configuration:
        configuration = Configuration()
        loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
            token_filename=str(directory / "token"),
            cert_filename=str(directory / "ca.crt"),
            environ={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)},
        )
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        return configuration

    return read


def kubeconfig(path: Path, *, context: str | None = None) -> Source:
    """Tell everybody else's way: a kubeconfig file, and which of its contexts if not its own."""

    async def read() -> Configuration:
        configuration = Configuration()
        await load_kube_config(  # type: ignore[no-untyped-call]
            *(str(path), context, configuration), persist_config=False
        )
        return configuration

    return read


def namespace_of(path: Path) -> str | None:
    """The namespace that the current context of a kubeconfig names; None where it names none.

    What cannot be read of the file is told when it is used.
    """
    try:
        _, context = list_kube_config_contexts(str(path))  # type: ignore[no-untyped-call]
        return context["context"].get("namespace") or None
    except Exception:  # noqa: BLE001 - any file may be in the place of a kubeconfig
        return None


class Connection:
    """A pool of connections to one API server, and the credentials that they are used with.

    Credentials that are not accepted (any more) are read anew, and so is the CA that the server's
    certificate is checked against: all of them are exchanged while a program runs.
    """

    def __init__(self, source: Source, api: ApiClient) -> None:
        """Not to be called: `open` is how a connection is made."""
        self._source = source
        self._api = api
        self._before: ApiClient | None = None  # may still answer what it was asked
        self._renewing = asyncio.Lock()

    @classmethod
    async def open(cls, source: Source) -> "Connection":
        """Read how to reach the API server, without asking it for anything.

        Raises Misconfigured.
        """
        try:
            return cls(source, await _client(source))
        except Unavailable as error:
            raise Misconfigured([f"Kubernetes: {error}"]) from None

    async def send(
        self,
        method: str,
        path: str,
        *,
        names: Mapping[str, str],
        query: Mapping[str, str],
        content_type: str,
        body: object,
        accept: str = "application/json",
    ) -> aiohttp.ClientResponse:
        """Send one request, and give its answer, of which nothing but the head has been read.

        The words in braces of `path` are taken from `names`. Raises Unavailable when there is no
        answer. How long that may take is up to the caller, who has to release the answer.
        """
        request = (method, path, names, query, content_type, body, accept)
        used = self._api
        try:
            answer = await _send(used, *request)
        except _Distrusted:
            # This server was not told anything yet.
            await self._renew(used)
        else:
            if answer.status != HTTPStatus.UNAUTHORIZED:
                return answer
            answer.release()
            await self._renew(used)
        try:
            return await _send(self._api, *request)
        except _Distrusted as error:
            raise Unavailable(f"the API server cannot be trusted ({error})") from error

    async def close(self) -> None:
        """End all connections."""
        for api in (self._api, self._before):
            if api is not None:
                await api.close()  # type: ignore[no-untyped-call]

    async def _renew(self, refused: ApiClient) -> None:
        """Read the configuration anew, once for all who were refused with the same one."""
        async with self._renewing:
            if self._api is not refused:
                return
            api = await _client(self._source)
            done, self._before, self._api = self._before, self._api, api
            if done is not None:
                await done.close()  # type: ignore[no-untyped-call]


class _Distrusted(Exception):
    """There is no TLS with this server, so nothing has been sent to it."""


async def _client(source: Source) -> ApiClient:
    try:
        async with asyncio.timeout(_LOADING_SECONDS):
            configuration = await source()
        # Checks of form that other clients do not make, from Python 3.13 on: the CAs of many
        # clusters do not pass them. Chain, host name and dates are checked all the same.
        configuration.disable_strict_ssl_verification = True
        api = ApiClient(configuration)
    except ConfigException as error:
        raise Unavailable(f"the credentials cannot be used: {error}") from None
    except OSError as error:
        raise Unavailable(f"the credentials cannot be read: {_os_trouble(error)}") from error
    except Exception as error:  # noqa: BLE001 - any file may be in the place of a kubeconfig
        # What a parser complains about is quoted in its words, so they are not handed on.
        raise Unavailable(f"the credentials cannot be used ({type(error).__name__})") from None
    api.user_agent = f"grantserver/{__version__}"
    return api


async def _send(
    api: ApiClient,
    method: str,
    path: str,
    names: Mapping[str, str],
    query: Mapping[str, str],
    content_type: str,
    body: object,
    accept: str,
) -> aiohttp.ClientResponse:
    headers = {"Accept": accept} | ({"Content-Type": content_type} if body else {})
    try:
        verb, url, headers, sent, _form = await api.param_serialize(
            *(method, path, dict(names), list(query.items()), headers, body),
            auth_settings=[_TOKEN],
        )
    except (ConfigException, OSError) as error:
        raise Unavailable(f"the token of the service account cannot be read: {error}") from error
    # A file with a token may end with a line break, which a header must not.
    headers = {name: str(value).strip() for name, value in headers.items()}
    try:
        answer = await api.call_api(
            *(verb, url, headers, sent),
            _request_timeout=aiohttp.ClientTimeout(),  # none: the caller's limit is the only one
        )
    except aiohttp.ClientSSLError as error:
        raise _Distrusted(_tls_trouble(error)) from error
    except aiohttp.ClientResponseError:
        # This one holds the request's headers, the token among them, so it is not handed on.
        raise Unavailable("the API server does not answer in HTTP") from None
    except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
        raise Unavailable(trouble(error)) from error
    response: aiohttp.ClientResponse = answer.response
    return response


def trouble(error: Exception) -> str:
    """Say in words of ours why there is no (complete) answer."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    for kinds, what in _TROUBLES:
        if isinstance(error, kinds) or isinstance(cause, kinds):
            return f"the API server {what}"
    why = cause.strerror if isinstance(cause, OSError) else None
    return f"the API server cannot be reached ({why or type(error).__name__})"


def _os_trouble(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else type(error).__name__


def _tls_trouble(error: aiohttp.ClientSSLError) -> str:
    cause: Any = getattr(error, "certificate_error", None) or error.os_error
    why = getattr(cause, "verify_message", "") or getattr(cause, "reason", "")
    return why or type(cause).__name__


_TROUBLES: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    (aiohttp.ClientConnectorDNSError, "has no address: the host name is not known"),
    (ConnectionRefusedError, "refuses the connection"),
    ((ConnectionResetError, BrokenPipeError), "broke the connection off"),
    (aiohttp.ClientPayloadError, "broke its answer off before the end"),
    (aiohttp.ServerDisconnectedError, "closed the connection without an answer"),
    (TimeoutError, "did not answer in time"),
)
