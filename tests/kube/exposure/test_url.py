from app.kube.exposure.plan import Observed, Served
from app.kube.exposure.url import observed, wanted
from tests.kube.exposure.scene import a_plan


def test_nothing_is_made_and_nothing_is_seen() -> None:
    assert wanted(a_plan(), Served(routes=True)) == ()
    assert observed(a_plan(), {"Service": {"status": {}}}) == Observed()
