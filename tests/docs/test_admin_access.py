"""`docs/admin-access.md` tells who may use the admin API as the program has it."""

import re

import yaml

from app import ambient
from app.domain.admin_tokens import generate
from app.domain.callers import Verb
from app.kube.reviews import VERBS
from tests.deploy.handbook import DOCS
from tests.docs.test_catalogs import rows

NAME = "admin-access.md"
PAGE = (DOCS / NAME).read_text()


def test_every_verb_is_listed_with_what_an_account_needs_for_it() -> None:
    listed = {verb.strip("`"): needs for verb, _, needs in rows(NAME, 3)}
    assert listed == {verb.value: f"`{VERBS[verb]}`" if verb in VERBS else "never" for verb in Verb}


def test_the_role_gives_all_that_an_account_can_need() -> None:
    (block,) = re.findall(r"```yaml\n(apiVersion: rbac.*?)```", PAGE, re.DOTALL)
    role, binding = yaml.safe_load_all(block)
    (rule,) = role["rules"]
    assert rule["apiGroups"] == ["skupper.io"]
    assert rule["resources"] == ["accessgrants"]
    assert set(rule["verbs"]) == set(VERBS.values())
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["metadata"]["namespace"] == role["metadata"]["namespace"]


def test_scanners_are_told_what_tokens_look_like() -> None:
    (pattern,) = re.findall(r"`(gsa_\[.*?)`", PAGE)
    assert re.fullmatch(pattern, generate(ambient.random_bytes).text)
