"""What events cost."""

from httpx import AsyncClient

from harness.issuer import Headers
from harness.plans import plan, price
from harness.usage_events import assign_plan, deliver, event, total, used


class TestAmounts:
    async def test_tiers_and_included_requests_count_in_the_order_accepted(
        self, client: AsyncClient, service: Headers, admin: Headers, ada: Headers
    ) -> None:
        tiers = ((3, "0.01", "0"), (None, "0.001", "0"))
        await assign_plan(client, admin, plan(price(*tiers, included=1)))

        for size in (2, 3):
            await deliver(client, service, [event() for _ in range(size)])

        assert await total(client, ada) == used(5, 5, "0.022")

    async def test_an_event_names_its_price(
        self, client: AsyncClient, service: Headers, admin: Headers, ada: Headers
    ) -> None:
        answer = await client.post(
            "/plans", headers=admin, json=plan(price((None, "0.25", "0")), name="Other")
        )
        (named,) = answer.json()["prices"]

        await deliver(client, service, [event(price_id=named["id"])])

        assert await total(client, ada) == used(1, 1, "0.25")

    async def test_a_models_own_price_takes_precedence(
        self, client: AsyncClient, service: Headers, admin: Headers, ada: Headers
    ) -> None:
        await assign_plan(
            client,
            admin,
            plan(price((None, "0.1", "0")), price((None, "0.7", "0"), model="wine")),
        )

        await deliver(client, service, [event(model="wine"), event(model="iris")])

        assert await total(client, ada) == used(2, 2, "0.8")

    async def test_a_model_without_a_price_is_rejected(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await assign_plan(client, admin, plan(price((None, "0.7", "0"), model="wine")))

        result = await deliver(client, service, [event(model="iris")])

        assert result["rejected"][0]["reason"] == "the plan has no price for the model"

    async def test_a_price_in_another_currency_is_rejected(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        euro = await client.post("/plans", headers=admin, json=plan(currency="EUR"))
        price_id = euro.json()["prices"][0]["id"]

        result = await deliver(client, service, [event(), event(price_id=price_id)])

        assert result["accepted"] == 1
        assert result["rejected"][0]["reason"] == "the price is not in the account's currency"
