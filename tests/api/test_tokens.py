from app.api.tokens import IssuedToken, NewToken


def test_a_token_needs_nothing_said() -> None:
    wish = NewToken()
    assert (wish.name, wish.site, wish.redemptions, wish.window) == (None, None, 1, "15m")


def test_neither_code_nor_token_is_in_what_is_shown_of_an_answer() -> None:
    assert not any(IssuedToken.model_fields[name].repr for name in ("code", "token"))
