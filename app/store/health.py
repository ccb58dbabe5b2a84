"""What the readiness check and the doctor ask of the database itself."""

from sqlalchemy import Connection, update

from app.store.schema import heartbeat


def beat(connection: Connection, now: int) -> None:
    """Write one row: with the commit after it, this proves that the database takes writes."""
    connection.execute(update(heartbeat).values(at=now))


def integrity_problems(connection: Connection) -> list[str]:
    """What SQLite's own check of the file and of all references finds; empty when all is well."""
    found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
    problems = [line for line in found if line != "ok"]
    problems += [
        f"a row of {row[0]} refers to a missing row of {row[2]}"
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check")
    ]
    return problems
