"""The Open Inference Protocol over gRPC, as a caller sees it."""

import asyncio
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from harness.ports import free_port
from services.inference.api.grpc import service
from services.inference.api.grpc.document import PATH
from services.inference.api.grpc.messages import open_inference_pb2 as messages
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually, serving
from tests.integration.inference.grpc_client import GrpcClient, Infer, fp32, values
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import MIXED_ROW, NUMBERS_ROW
from tests.integration.inference.test_infer import mixed, numbers, output

Code = grpc.StatusCode
VERSION = "20260101t000000z-00000000"


@pytest.fixture
def client(http_and_grpc: httpx.AsyncClient, neighbours: Neighbours) -> httpx.AsyncClient:
    """Return an HTTP client of the app that also serves gRPC."""
    return http_and_grpc


def one_row(**contents: Any) -> Infer:
    """Return a request with one row of the model `mixed` as typed contents."""
    request = Infer(model_name="mixed")
    for name, datatype, field in (
        ("size", "FP32", "fp32_contents"),
        ("colour", "BYTES", "bytes_contents"),
        ("sold", "BOOL", "bool_contents"),
    ):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
        value = contents.get(name, MIXED_ROW[name])
        getattr(tensor.contents, field).append(value.encode() if datatype == "BYTES" else value)
    return request


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

        response, _ = await caller.infer(one_row())

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


def refused_tensors() -> dict[str, Infer]:
    """Requests that a model rejects, by a part of the expected error."""
    short = fp32(NUMBERS_ROW)
    short.inputs[0].shape[:] = [2, 3]
    both = fp32(NUMBERS_ROW)
    both.raw_input_contents.append(bytes(12))
    too_few = fp32(NUMBERS_ROW)
    too_few.inputs[0].ClearField("contents")
    too_few.inputs.add(name="b")
    too_few.raw_input_contents.append(bytes(12))
    range_ = Infer(model_name="numbers")
    tensor = range_.inputs.add(name="features", datatype="INT8", shape=[1, 3])
    tensor.contents.int_contents.extend([1, 2, 300])
    twice = fp32(NUMBERS_ROW)
    twice.outputs.add(name="predict")
    twice.outputs.add(name="predict")
    negative = fp32(NUMBERS_ROW)
    negative.inputs[0].shape[:] = [-1, 3]
    unknown = fp32(NUMBERS_ROW)
    unknown.inputs[0].datatype = "BF16"
    many = fp32(NUMBERS_ROW)
    many.inputs.extend([Infer.InferInputTensor()] * 50_000)
    return {
        "inputs.features: The size in bytes must be 24": short,
        "raw_input_contents: Must have one element per input": both,
        "raw_input_contents: Must": too_few,
        "inputs.features: Each number must be within the range of INT8": range_,
        "outputs.1.name: Must be predict": twice,
        "inputs: Must have 1 to 10000 rows": negative,
        "inputs.features: The datatype must be": unknown,
        "inputs: Has too many tensors": many,
        "inputs.features.b: Each number must be finite": fp32([1.0, float("inf"), 0.0]),
        "inputs.colour: Each string must be UTF-8": _with_invalid_text(),
    }


def _with_invalid_text() -> Infer:
    request = one_row()
    request.inputs[1].contents.bytes_contents[0] = b"\xff"
    return request


class TestRefusal:
    @pytest.mark.parametrize("named", refused_tensors())
    async def test_of_a_tensor_names_the_problem(self, caller: GrpcClient, named: str) -> None:
        error = await caller.refused(refused_tensors()[named])

        assert error.code() is Code.INVALID_ARGUMENT
        assert named in (error.details() or "")

    async def test_checks_token_scope_existence_and_message_in_order(
        self, anonymous: GrpcClient, caller: GrpcClient, neighbours: Neighbours
    ) -> None:
        reader = GrpcClient(anonymous.channel, neighbours.token(scope="usage:read"))
        forged = GrpcClient(anonymous.channel, "nonsense")

        codes = [
            (await client.refused(message)).code()
            for client, message in (
                (anonymous, b"\xff"),
                (forged, b"\xff"),
                (reader, b"\xff"),
                (caller, fp32([1.0], model="wines")),
                (caller, fp32(NUMBERS_ROW, model_version=VERSION)),
                (caller, b"\xff"),
            )
        ]

        assert codes == [
            Code.UNAUTHENTICATED,
            Code.UNAUTHENTICATED,
            Code.PERMISSION_DENIED,
            Code.NOT_FOUND,
            Code.NOT_FOUND,
            Code.INVALID_ARGUMENT,
        ]

    async def test_of_an_unknown_model_names_it(self, caller: GrpcClient) -> None:
        error = await caller.refused(fp32(NUMBERS_ROW, model="wines"))

        trailing = {str(name): value for name, value in error.trailing_metadata() or ()}
        assert error.details() == "Model 'wines' not found."
        assert trailing["x-error-code"] == "model_not_found"
        assert trailing["x-request-id"]

    async def test_says_whether_credit_or_rate_is_exhausted(
        self, caller: GrpcClient, neighbours: Neighbours
    ) -> None:
        neighbours.status = "no_credit"
        unpaid = await caller.refused(fp32(NUMBERS_ROW))
        neighbours.reset()
        neighbours.rate_limit = {"per_second": 0.001, "burst": 1}
        hurried = GrpcClient(caller.channel, neighbours.token())
        await hurried.infer(fp32(NUMBERS_ROW))

        limited = await hurried.refused(fp32(NUMBERS_ROW))

        by_error = [dict(error.trailing_metadata() or ()) for error in (unpaid, limited)]
        assert unpaid.code() is limited.code() is Code.RESOURCE_EXHAUSTED
        assert [each["x-error-code"] for each in by_error] == ["payment_required", "rate_limited"]
        assert "retry-after" not in by_error[0]
        assert int(str(by_error[1]["retry-after"])) > 0

    async def test_while_billing_is_away_is_unavailable(
        self, anonymous: GrpcClient, neighbours: Neighbours
    ) -> None:
        neighbours.failing["/leases"] = 503
        stranger = GrpcClient(anonymous.channel, neighbours.token())

        error = await stranger.refused(fp32(NUMBERS_ROW))

        assert error.code() is Code.UNAVAILABLE
        assert "retry-after" in dict(error.trailing_metadata() or ())

    async def test_of_an_invalid_key(self, caller: GrpcClient) -> None:
        error = await caller.refused(fp32(NUMBERS_ROW), idempotency_key="x" * 256)

        assert error.code() is Code.INVALID_ARGUMENT

    async def test_of_a_message_over_the_limit(self, caller: GrpcClient) -> None:
        request = Infer(model_name="numbers", raw_input_contents=[bytes(200_000)])

        error = await caller.refused(request)

        assert error.code() is Code.RESOURCE_EXHAUSTED

    async def test_of_a_compressed_message(self, caller: GrpcClient) -> None:
        call: Any = caller.channel.unary_unary(PATH)
        bomb = Infer(model_name="numbers", raw_input_contents=[bytes(100_000_000)])
        metadata = [("authorization", f"Bearer {caller.token}")]

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(
                bomb.SerializeToString(), metadata=metadata, compression=grpc.Compression.Gzip
            )

        assert refused.value.code() is Code.UNIMPLEMENTED

    async def test_of_a_message_that_does_not_arrive(
        self, caller: GrpcClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "BODY_DEADLINE_S", 0.05)
        call: Any = caller.channel.stream_unary(PATH)(
            metadata=[("authorization", f"Bearer {caller.token}")]
        )

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call

        assert refused.value.code() is Code.DEADLINE_EXCEEDED
        assert "did not arrive" in (refused.value.details() or "")

    async def test_of_a_call_without_a_message(self, caller: GrpcClient) -> None:
        call: Any = caller.channel.stream_unary(PATH)(
            metadata=[("authorization", f"Bearer {caller.token}")]
        )

        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call

        assert refused.value.code() is Code.INVALID_ARGUMENT


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
    ) -> None:
        port = free_port()
        changes = {"grpc_port": port, "journal_dir": tmp_path_factory.mktemp("stopping")}
        token = neighbours.token()
        metadata = [("authorization", f"Bearer {token}")]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            async with serving(settings.model_copy(update=changes)):
                _, first = await GrpcClient(channel, token).infer(fp32(NUMBERS_ROW))
                begun: Any = channel.stream_unary(PATH)(metadata=metadata)
                await begun.wait_for_connection()
                await asyncio.sleep(0.1)
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
