"""Rejected credentials, which auth stores in its audit log."""

import httpx

from services.common.identity.api_keys import new_api_key
from tests.integration.inference.conftest import eventually
from tests.integration.inference.fast import V1
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW

BODY = {"instances": [NUMBERS_ROW]}


async def test_rejected_credentials_are_reported_to_auth(
    client: httpx.AsyncClient, neighbours: Neighbours
) -> None:
    unknown = {"X-API-Key": new_api_key("live")}

    predicted = await client.post(V1, json=BODY, headers=unknown)
    described = await client.get("/v1/models", headers={"Authorization": "Bearer nonsense"})
    anonymous = await client.post(V1, json=BODY)

    assert {predicted.status_code, described.status_code, anonymous.status_code} == {401}
    await eventually(lambda: sum(len(each.rejections) for each in neighbours.rejected) >= 2)
    reported = [each for report in neighbours.rejected for each in report.rejections]
    assert len(reported) == 2
    assert {each.address for each in reported} == {"127.0.0.1"}
