"""What gRPC refuses, with which status, and that it costs nothing."""

from typing import Any

import grpc
import pytest

from services.inference.api.grpc import service
from services.inference.api.grpc.document import PATH
from tests.integration.inference.grpc_client import GrpcClient, Infer, fp32, mixed_row
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW

Code = grpc.StatusCode
VERSION = "20260101t000000z-00000000"


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
    request = mixed_row()
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

    async def test_of_a_call_whose_time_has_passed(
        self, caller: GrpcClient, account: str, neighbours: Neighbours
    ) -> None:
        late = await caller.refused(fp32(NUMBERS_ROW), x_request_timeout="0.000000001")
        invalid = await caller.refused(fp32(NUMBERS_ROW), x_request_timeout="soon")

        assert late.code() is Code.UNAVAILABLE
        assert dict(late.trailing_metadata() or ())["x-error-code"] == "abandoned"
        assert invalid.code() is Code.INVALID_ARGUMENT
        assert neighbours.charged_to(account) == []

    async def test_of_a_message_over_the_limit(self, caller: GrpcClient) -> None:
        request = Infer(model_name="numbers", raw_input_contents=[bytes(200_000)])

        error = await caller.refused(request)

        assert error.code() is Code.RESOURCE_EXHAUSTED

    @pytest.mark.costly
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
