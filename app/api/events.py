"""How the stream of events is asked for; what is in it, `docs/events.md` tells."""

from typing import Annotated, Final

from pydantic import Field

from app.api.shapes import Name, Shape
from app.domain.events import EventType

LONGEST_SECONDS: Final = 3600
EVENT_ID: Final = r"^(?:0|[1-9][0-9]{0,17})-[0-9a-f]{16}$"


class Following(Shape):
    """Which events are followed: of which type, of which site; and for how long."""

    site: Name | None = None
    type: EventType | None = None
    seconds: Annotated[
        int,
        Field(
            ge=0,
            le=LONGEST_SECONDS,
            description="The stream ends after so long; with 0 when all that there is was told.",
        ),
    ] = LONGEST_SECONDS
