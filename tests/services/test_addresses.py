from app.services import addresses
from app.store.addresses import AddressRow
from tests.builders import NOW, Stand

ROW = AddressRow(url="https://a.example:1", hosts=("a.example", "192.0.2.1"))


def test_at_first_nobody_knows_anything(stand: Stand) -> None:
    assert addresses.told(stand.database) == AddressRow(url="")


def test_what_is_told_is_known_to_everybody(stand: Stand) -> None:
    assert addresses.tell(stand.database, ROW, now=NOW)
    assert addresses.told(stand.database) == ROW
    lost = AddressRow(url="", problem="waiting")
    assert addresses.tell(stand.database, lost, now=NOW)
    assert addresses.told(stand.database) == lost


def test_what_is_told_again_keeps_no_writer_waiting(stand: Stand) -> None:
    addresses.tell(stand.database, ROW, now=NOW)
    with stand.database.writing():  # nobody else can write now
        assert not addresses.tell(stand.database, ROW, now=NOW + 1)
