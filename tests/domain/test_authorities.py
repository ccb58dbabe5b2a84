from app.domain.authorities import Purpose
from tests.builders import PEM, a_server_certificate, an_authority


def test_neither_certificate_nor_sealed_key_shows() -> None:
    for value in (an_authority(sealed_key=b"s3aled"), a_server_certificate(sealed_key=b"s3aled")):
        assert "s3aled" not in repr(value)
        assert "BEGIN" not in repr(value)
        assert PEM not in repr(value)


def test_the_purposes_are_the_ones_that_the_database_knows() -> None:
    assert {purpose.value for purpose in Purpose} == {"site", "server"}
