from app.domain.self_check import Finding, Misfit, Outcome


def test_the_values_are_labels_that_alerts_are_written_for() -> None:
    assert [one.value for one in Outcome] == [
        "unknown",
        "reachable",
        "wrong_certificate",
        "terminated",
        "unreachable",
    ]
    assert [one.value for one in Misfit] == ["name", "time", "trust"]


def test_what_is_not_wrong_has_no_misfit() -> None:
    assert Finding(outcome=Outcome.REACHABLE, detail="it is").misfit is None
