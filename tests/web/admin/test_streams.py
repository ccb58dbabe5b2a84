import pytest

from app.errors import Unavailable
from app.web.admin.streams import MOST_STREAMS, Streams


def test_there_is_room_for_so_many_streams_and_again_when_one_has_ended() -> None:
    streams = Streams()
    opened = [streams.one_more() for _ in range(MOST_STREAMS)]
    for one in opened:
        streams.check_room()
        one.__enter__()
    with pytest.raises(Unavailable):
        streams.check_room()
    opened[0].__exit__(None, None, None)
    streams.check_room()
