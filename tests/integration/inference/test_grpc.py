"""The Open Inference Protocol over gRPC, as a caller sees it."""

import asyncio
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from harness.ports import free_port
from services.inference.api.grpc.document import PATH
from services.inference.api.grpc.messages import open_inference_pb2 as messages
from services.inference.api.grpc.service import InferenceService
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually, serving
from tests.integration.inference.grpc_client import GrpcClient, Infer, fp32, mixed_row, values
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW
from tests.integration.inference.test_infer import mixed, numbers, output

Code = grpc.StatusCode
VERSION = "20260101t000000z-00000000"


@pytest.fixture
def client(http_and_grpc: httpx.AsyncClient, neighbours: Neighbours) -> httpx.AsyncClient:
    """Return an HTTP client of the app that also serves gRPC."""
    return http_and_grpc


class TestDescription:
    async def test_health_needs_no_token(self, anonymous: GrpcClient) -> None:
        live, _ = await anonymous.call("ServerLive", messages.ServerLiveRequest())
        ready, _ = await anonymous.call("ServerReady", messages.ServerReadyRequest())

        assert live.live is True
        assert ready.ready is True

    @pytest.mark.parametrize("name", ["ServerMetadata", "ModelMetadata", "ModelReady"])
    async def test_the_rest_does(self, anonymous: GrpcClient, name: str) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anonymous.call(name, b"\xff")

        assert refused.value.code() is Code.UNAUTHENTICATED

    async def test_matches_rest(
        self, client: httpx.AsyncClient, caller: GrpcClient, bearer: dict[str, str]
    ) -> None:
        rest_server = (await client.get("/v2", headers=bearer)).json()
        rest_model = (await client.get("/v2/models/mixed", headers=bearer)).json()

        server, _ = await caller.call("ServerMetadata", messages.ServerMetadataRequest())
        model, _ = await caller.call("ModelMetadata", messages.ModelMetadataRequest(name="mixed"))

        assert (server.name, list(server.extensions)) == ("tollgate", rest_server["extensions"])
        assert list(model.versions) == rest_model["versions"]
        assert [(i.name, i.datatype, list(i.shape)) for i in model.inputs] == [
            (i["name"], i["datatype"], i["shape"]) for i in rest_model["inputs"]
        ]

    async def test_of_a_model_that_is_not_there_is_an_error(self, caller: GrpcClient) -> None:
        for name in ("ModelReady", "ModelMetadata"):
            request = getattr(messages, f"{name}Request")(name="wines")

            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await caller.call(name, request)

            assert refused.value.code() is Code.NOT_FOUND
            assert refused.value.details() == "Model 'wines' not found."

    async def test_a_version_is_ready(self, caller: GrpcClient) -> None:
        model, _ = await caller.call("ModelMetadata", messages.ModelMetadataRequest(name="price"))

        ready, _ = await caller.call(
            "ModelReady", messages.ModelReadyRequest(name="price", version=model.versions[0])
        )

        assert ready.ready is True


class TestPrediction:
    async def test_matches_rest(
        self, client: httpx.AsyncClient, caller: GrpcClient, bearer: dict[str, str]
    ) -> None:
        rows = [NUMBERS_ROW, [-1.0, -2.0, 0.5]]
        rest = await client.post(
            "/v2/models/numbers/infer", json={"inputs": [numbers(*rows)]}, headers=bearer
        )

        response, _ = await caller.infer(fp32(*rows, id="mine"))

        assert (response.model_name, response.id) == ("numbers", "mine")
        assert response.model_version == rest.json()["model_version"]
        assert values(response, "predict") == output(rest, "predict")["data"]
        assert values(response, "predict_proba") == output(rest, "predict_proba")["data"]
        assert [list(each.shape) for each in response.outputs] == [[2], [2, 2]]

    async def test_of_columns_matches_rest(
        self, client: httpx.AsyncClient, caller: GrpcClient, bearer: dict[str, str]
    ) -> None:
        rest = await client.post("/v2/models/mixed/infer", json={"inputs": mixed()}, headers=bearer)

        response, _ = await caller.infer(mixed_row())

        assert values(response, "predict") == [
            label.encode() for label in output(rest, "predict")["data"]
        ]

    async def test_raw_inputs_get_raw_outputs(self, caller: GrpcClient) -> None:
        request = Infer(model_name="numbers")
        request.inputs.add(name="features", datatype="FP16", shape=[2, 3])
        request.raw_input_contents.append(np.array([NUMBERS_ROW] * 2, dtype="<f2").tobytes())
        request.outputs.add(name="predict_proba")
        request.outputs.add(name="predict")

        response, _ = await caller.infer(request)

        shares, labels = response.raw_output_contents
        assert [each.name for each in response.outputs] == ["predict_proba", "predict"]
        assert np.frombuffer(shares, "<f8").reshape(2, 2).sum(axis=1) == pytest.approx(1)
        assert np.frombuffer(labels, "<i8").tolist() == [1, 1]

    @pytest.mark.parametrize(
        ("datatype", "field"),
        [
            ("INT8", "int_contents"),
            ("INT32", "int_contents"),
            ("INT64", "int64_contents"),
            ("UINT16", "uint_contents"),
            ("UINT64", "uint64_contents"),
            ("FP64", "fp64_contents"),
        ],
    )
    async def test_any_number_is_accepted(
        self, caller: GrpcClient, datatype: str, field: str
    ) -> None:
        request = Infer(model_name="numbers")
        tensor = request.inputs.add(name="features", datatype=datatype, shape=[1, 3])
        getattr(tensor.contents, field).extend(int(value) for value in NUMBERS_ROW)

        response, _ = await caller.infer(request)

        assert values(response, "predict") == [1]

    async def test_a_version_may_be_named_and_an_id_is_created(self, caller: GrpcClient) -> None:
        live, _ = await caller.infer(fp32(NUMBERS_ROW))

        named, _ = await caller.infer(fp32(NUMBERS_ROW, model_version=live.model_version))

        assert named.model_version == live.model_version
        assert live.id
        assert named.id != live.id

    async def test_a_large_batch_is_decoded_off_the_event_loop(self, caller: GrpcClient) -> None:
        rows = [[float(n % 7 - 3), 0.5, 0.0] for n in range(9_000)]

        response, _ = await caller.infer(fp32(*rows))
        first, _ = await caller.infer(fp32(*rows[:7]))

        assert values(response, "predict")[:7] == values(first, "predict")
        assert len(values(response, "predict")) == 9_000


class TestReceipt:
    async def test_is_in_the_trailing_metadata_and_billed_once(
        self, caller: GrpcClient, neighbours: Neighbours, account: str
    ) -> None:
        _, trailing = await caller.infer(fp32(*[NUMBERS_ROW] * 3), x_request_id="mine")

        await eventually(lambda: trailing["x-usage-event"] in neighbours.charged)
        event = neighbours.charged[trailing["x-usage-event"]]
        assert neighbours.charged_to(account) == [trailing["x-usage-event"]]
        assert event["data"]["rows"] == 3
        assert event["data"]["model"] == trailing["x-model-name"] == "numbers"
        assert event["data"]["version"] == trailing["x-model-version"]
        assert trailing["x-usage-amount"] == "0.0008 USD"
        assert trailing["x-request-id"] == "mine"

    async def test_a_repeat_with_its_key_is_not_billed_again_whatever_its_id(
        self, caller: GrpcClient, neighbours: Neighbours, account: str
    ) -> None:
        same = [fp32(NUMBERS_ROW, id=id) for id in ("a", "b", "")]
        for order, request in (("xy", same[0]), ("yx", same[1]), ("xy", same[2])):
            for name in order:
                request.parameters[name].int64_param = 7

        receipts = [
            (await caller.infer(request, idempotency_key="order 7"))[1]
            for request in [*same, fp32([0.0, 0.0, 0.0]), fp32(NUMBERS_ROW)]
        ]

        ids = [receipt["x-usage-event"] for receipt in receipts]
        assert len(set(ids[:3])) == 1
        assert len(set(ids)) == 3
        await eventually(lambda: set(ids) == set(neighbours.charged_to(account)))

    async def test_errors_are_not_billed(
        self, caller: GrpcClient, neighbours: Neighbours, account: str
    ) -> None:
        await caller.refused(fp32([1.0, float("inf"), 2.0]))
        await caller.refused(fp32(NUMBERS_ROW, model="wines"))
        _, paid = await caller.infer(fp32(NUMBERS_ROW))

        await eventually(lambda: bool(neighbours.charged_to(account)))
        assert neighbours.charged_to(account) == [paid["x-usage-event"]]

    async def test_calls_are_measured_and_logged_like_requests(
        self, client: httpx.AsyncClient, caller: GrpcClient
    ) -> None:
        await caller.infer(fp32(NUMBERS_ROW))

        metrics = (await client.get("/metrics")).text
        assert f'route="{PATH}",status="200"' in metrics


class TestCancellation:
    async def test_of_calls_at_any_moment_leaves_nothing_behind(
        self, client: httpx.AsyncClient, caller: GrpcClient, neighbours: Neighbours, account: str
    ) -> None:
        send: Any = caller.channel.unary_unary(PATH)
        metadata = [("authorization", f"Bearer {caller.token}")]
        content = fp32(*[NUMBERS_ROW] * 500).SerializeToString()
        await send(content, metadata=metadata)

        async def cancel_after(milliseconds: float) -> bool:
            call = send(content, metadata=metadata)
            asyncio.get_running_loop().call_later(milliseconds / 1000, call.cancel)
            try:
                await call
                return True
            except asyncio.CancelledError:
                return False

        answered = [await cancel_after(tenths / 10) for tenths in range(60)]
        _, last = await caller.infer(fp32(NUMBERS_ROW))

        await eventually(lambda: last["x-usage-event"] in neighbours.charged)
        metrics = (await client.get("/metrics")).text
        assert "tollgate_inference_requests_in_flight 0.0" in metrics
        assert "tollgate_inference_request_bytes 0.0" in metrics
        assert sum(answered) + 2 <= len(neighbours.charged_to(account))
        assert answered[0] is False


class TestStopping:
    async def test_calls_in_progress_are_answered_and_billed_and_new_ones_refused(
        self,
        settings: InferenceSettings,
        neighbours: Neighbours,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        reading = asyncio.Event()
        read = InferenceService._read

        async def start_reading(self: InferenceService, *arguments: Any) -> bytes:
            reading.set()
            return await read(self, *arguments)

        monkeypatch.setattr(InferenceService, "_read", start_reading)
        port = free_port()
        changes = {"grpc_port": port, "journal_dir": tmp_path_factory.mktemp("stopping")}
        token = neighbours.token()
        metadata = [("authorization", f"Bearer {token}")]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            async with serving(settings.model_copy(update=changes)):
                _, first = await GrpcClient(channel, token).infer(fp32(NUMBERS_ROW))
                reading.clear()
                begun: Any = channel.stream_unary(PATH)(metadata=metadata)
                await reading.wait()
                loop = asyncio.get_running_loop()
                loop.call_later(
                    0.3,
                    lambda: asyncio.ensure_future(
                        begun.write(fp32(NUMBERS_ROW).SerializeToString())
                    ),
                )
            answered = messages.ModelInferResponse.FromString(await begun)
            trailing = dict(await begun.trailing_metadata())
            refused = await GrpcClient(channel, token).refused(fp32(NUMBERS_ROW))

        assert answered.model_name == "numbers"
        assert {first["x-usage-event"], trailing["x-usage-event"]} <= neighbours.charged.keys()
        assert refused.code() is Code.UNAVAILABLE
