"""How the cluster lets us be reached, as it was last seen: one row that every process reads.

The caller holds the transaction. Who finds an address out, and what is made of it, is decided
elsewhere.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from app.errors import Broken
from app.store.schema import addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRow:
    """`url` is the base URL, empty while there is none; then `problem` says why, to people.

    `hosts` are those that the server is reached by besides the one in the URL.
    """

    url: str
    hosts: tuple[str, ...] = ()
    problem: str = ""


def read(connection: Connection) -> AddressRow:
    """Read what was last written. Raises Broken when the row is not there."""
    row = connection.execute(select(addresses)).first()
    if row is None:
        raise Broken("the row of the addresses is not there")
    hosts = tuple(host for host in row.hosts.split(",") if host)
    return AddressRow(url=row.url, hosts=hosts, problem=row.problem)


def write(connection: Connection, row: AddressRow, now: int) -> bool:
    """Write it, unless it is there already: then False is returned, and nothing was changed."""
    if any("," in host or not host for host in row.hosts):
        raise Broken("a host of an address is empty, or holds a comma")
    if read(connection) == row:
        return False
    connection.execute(
        update(addresses).values(
            url=row.url, hosts=",".join(row.hosts), problem=row.problem, changed_at=now
        )
    )
    return True
