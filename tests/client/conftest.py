from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.servers import Misbehaving, misbehaving


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Misbehaving]:
    with misbehaving(tmp_path) as made:
        yield made
