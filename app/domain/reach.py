"""How the server is reached: the base URL and the CA that every token carries."""

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """`url` is `https://HOST[:PORT]` without a path; `ca_pem` is what a client has to trust."""

    url: str
    ca_pem: str

    @property
    def host(self) -> str:
        """The host in the URL, an IPv6 address without its brackets."""
        return urlsplit(self.url).hostname or ""

    def url_of(self, grant_id: str) -> str:
        """The address to which the code of this grant is posted."""
        return f"{self.url.rstrip('/')}/{grant_id}"
