from app.api.authorities import Authority


def test_nothing_of_a_key_has_a_place_in_an_authority() -> None:
    assert not [name for name in Authority.model_fields if "key" in name]
