from app.api.problems import KINDS, Kind, Problem


def test_every_kind_has_a_status_of_its_own_and_a_title() -> None:
    assert set(KINDS) == set(Kind)
    assert len({about.status for about in KINDS.values()}) == len(Kind)
    assert all(about.title for about in KINDS.values())


def test_types_are_words_that_never_change() -> None:
    assert {kind.type for kind in Kind} >= {
        "urn:grantserver:problem:invalid",
        "urn:grantserver:problem:missing",
        "urn:grantserver:problem:stale",
        "urn:grantserver:problem:unauthenticated",
    }


def test_a_problem_of_a_later_release_is_read_all_the_same() -> None:
    later = {"type": "urn:x", "title": "t", "status": 418, "detail": "d", "more": 1}
    assert Problem.model_validate(later).status == 418
