"""Which plan's prices a visitor sees."""

from services.console.apis.billing import Document, applicable_plan


def plan(name: str, *, default: bool = False, current: bool | None = False) -> Document:
    document: Document = {"id": name, "public": True, "default": default}
    return document if current is None else document | {"current": current}


def test_the_plan_of_the_account_comes_first_even_if_it_is_public() -> None:
    plans = [plan("default", default=True), plan("other"), plan("own", current=True)]

    assert applicable_plan(plans) == plans[2]


def test_without_its_own_plan_it_is_the_default_one_whatever_version_billing_has() -> None:
    for current in (False, None):
        plans = [plan("other", current=current), plan("default", default=True, current=current)]

        assert applicable_plan(plans) == plans[1]


def test_without_a_default_plan_there_may_be_none() -> None:
    assert applicable_plan([plan("other")]) is None
    assert applicable_plan([]) is None
