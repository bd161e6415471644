"""The steps of deploy.yml and rollback.yml, on failures and for images."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from harness.http_servers import Request, Response, serving
from harness.stores import FIRST, SECOND, SignedStore
from harness.workflow_runner import Runner, read
from tests.integration.trainer.conftest import Workshop, new_workshop

RELEASED = {
    "name": "repository_dispatch",
    "client_payload": {"model": "wine", "name": "wine/releases/00000002.json"},
}
WAIT = "Verify, and wait until every pod serves it"
CHECK = "Predict on it as a machine client"
MANUAL = {"name": "workflow_dispatch"}
IMAGES = ("auth", "billing", "console", "inference", "trainer")


@dataclass
class Service:
    """Fake inference and auth, correct by default."""

    release: int = 2
    version: str = SECOND
    predictions: list[int] = field(default_factory=lambda: [0, 1])
    token_status: int = 200
    predict_status: int = 200
    scopes: list[str] = field(default_factory=list)

    def answer(self, request: Request) -> Response:
        match request.path:
            case "/metrics":
                line = f'tollgate_model_live_release{{model="wine",version="v"}} {self.release}.0\n'
                return Response(200, line.encode())
            case "/token":
                form = parse_qs(request.body.decode())
                self.scopes += form["scope"]
                assert form["client_id"] == ["check"]
                assert form["client_secret"] == ["secret of the check"]
                return Response(self.token_status, b'{"access_token": "token"}')
            case "/v1/models/wine:predict":
                assert request.headers["authorization"] == "Bearer token"
                assert request.json["instances"] == [[1.0], [None]]
                document = {"predictions": self.predictions, "probabilities": [[1, 0], [0, 1]]}
                headers = {"X-Model-Version": self.version, "Content-Type": "application/json"}
                return Response(self.predict_status, json.dumps(document).encode(), headers)
        return Response(404)


class Deployment:
    """A store with two released versions, and a workflow runner for it."""

    def __init__(self, folder: Path) -> None:
        self.workshop: Workshop = new_workshop(folder / "home")
        key = self.workshop.settings.load_signing_key()
        url = self.workshop.settings.model_store_url
        self.signed_store = SignedStore(folder / "home", url, key, self.workshop.trusted)
        for version in (FIRST, SECOND):
            self.signed_store.publish(version)
            self.workshop.release_manager.release("wine", version=version)
        variables = {
            "MODEL_STORE": f"file://{folder}/home/models",
            "TRUSTED_SECRETS": "first second",
            "NAMESPACE": "sales",
            "HELM_RELEASE": "shop",
            "REGISTRY": "eu.example/shop",
            "CHECK_CLIENT_ID": "check",
            "WAIT_SECONDS": "1",
            "CHECK_SECONDS": "2",
        }
        self.runner = Runner(folder / "runner", vars=variables)
        self.runner.secrets["CHECK_CLIENT_SECRET"] = "secret of the check"
        [trusted] = (folder / "home/keys/trusted").glob("*.pem")
        for name in ("first", "second"):
            self.runner.secret(name, trusted.read_bytes())

    def actions(self) -> list[str]:
        numbers = self.workshop.store.list_releases("wine")
        records = [self.workshop.store.find_release("wine", number) for number in numbers]
        return [record.action for record in records if record]

    def deploy(self, service: Service) -> dict[str, str]:
        """Deploy release 2 against a service; return the outcomes of the steps."""
        with serving(service.answer) as url:
            self.runner.pods({"inference-1": url})
            self.runner.vars |= {"INFERENCE_URL": url, "AUTH_URL": url}
            return self.runner.run("deploy.yml", event=RELEASED)


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


@pytest.mark.costly
class TestRelease:
    def test_a_release_that_is_served_and_predicts_as_recorded_stays(
        self, deployment: Deployment
    ) -> None:
        service = Service()

        outcomes = deployment.deploy(service)

        assert (outcomes[WAIT], outcomes[CHECK]) == ("success", "success"), deployment.runner.output
        assert service.scopes == ["predict"]
        assert deployment.actions() == ["release", "release"]
        assert not any("upgrade" in call for call in deployment.runner.calls("helm"))

    def test_a_release_that_a_pod_does_not_serve_is_withdrawn(self, deployment: Deployment) -> None:
        outcomes = deployment.deploy(Service(release=1))

        assert (outcomes[WAIT], outcomes[CHECK]) == ("failure", "skipped")
        assert deployment.actions() == ["release", "release", "rollback"]

    def test_a_release_that_predicts_differently_is_withdrawn(self, deployment: Deployment) -> None:
        outcomes = deployment.deploy(Service(predictions=[1, 1]))

        assert (outcomes[WAIT], outcomes[CHECK]) == ("success", "failure")
        assert deployment.actions() == ["release", "release", "rollback"]

    @pytest.mark.parametrize(
        "service",
        [Service(token_status=503), Service(predict_status=402), Service(predict_status=503)],
        ids=["no token", "no credit", "saturated"],
    )
    def test_an_unrelated_failure_withdraws_nothing_and_fails(
        self, deployment: Deployment, service: Service
    ) -> None:
        outcomes = deployment.deploy(service)

        assert (outcomes[WAIT], outcomes[CHECK]) == ("success", "failure")
        assert deployment.actions() == ["release", "release"]

    def test_an_unreachable_cluster_withdraws_nothing_and_fails(
        self, deployment: Deployment
    ) -> None:
        deployment.runner.fail("kubectl")

        outcomes = deployment.deploy(Service())

        assert (outcomes[WAIT], outcomes[CHECK]) == ("failure", "skipped")
        assert deployment.actions() == ["release", "release"]

    def test_a_release_that_cannot_be_verified_never_goes_live(
        self, deployment: Deployment
    ) -> None:
        deployment.signed_store.path(SECOND, "manifest.json").flip_bit()

        outcomes = deployment.runner.run(
            "deploy.yml", event=MANUAL, inputs={"model": "wine", "release": "2"}
        )

        assert (outcomes[WAIT], outcomes[CHECK]) == ("failure", "skipped")
        assert deployment.actions() == ["release", "release"]


def test_a_failure_without_evidence_withdraws_nothing(deployment: Deployment) -> None:
    deployment.runner.fail("gcloud")

    outcomes = deployment.runner.run("deploy.yml", event=RELEASED)

    assert (outcomes["Fetch the keys"], outcomes[WAIT]) == ("failure", "skipped")
    assert deployment.actions() == ["release", "release"]


@pytest.mark.costly
def test_a_manual_rollback_can_name_the_version(deployment: Deployment) -> None:
    wish = {"what": "model", "model": "wine", "to": FIRST, "reason": 'it\'s "odd"; $(touch x)'}

    deployment.runner.run("rollback.yml", event=MANUAL, inputs=wish)

    record = deployment.workshop.store.find_release("wine", 3)
    assert record is not None
    assert (record.version, record.reason, record.by) == (FIRST, wish["reason"], "github/ada")
    assert not (deployment.runner.checkout / "x").exists()


@pytest.mark.parametrize(("to", "revision"), [("", []), ("7", ["7"])])
def test_the_platform_can_be_rolled_back_to_a_revision(
    deployment: Deployment, to: str, revision: list[str]
) -> None:
    deployment.runner.run("rollback.yml", event=MANUAL, inputs={"what": "release", "to": to})

    rollback, test = deployment.runner.calls("helm")
    wait = ["--namespace", "sales", "--wait", "--timeout", "10m"]
    assert rollback == ["rollback", "shop", *revision, *wait]
    assert test == ["test", "shop", "--namespace", "sales", "--logs"]


def run_images_step(deployment: Deployment, name: str) -> int:
    """Run a step of the image job; return its exit code."""
    steps = read("deploy.yml")["jobs"]["images"]["steps"]
    [step] = [one for one in steps if one.get("name") == name]
    environment = {
        "REGISTRY": "eu.example/shop",
        "TAG": "c0ffee",
        "NAMESPACE": "sales",
        "HELM_RELEASE": "shop",
    }
    return deployment.runner.run_step(step["run"], environment)


@pytest.mark.costly
def test_all_images_are_built_and_pushed_under_the_commit(deployment: Deployment) -> None:
    assert run_images_step(deployment, "Build and push") == 0

    calls = deployment.runner.calls("docker")
    names = [f"eu.example/shop/tollgate-{name}:c0ffee" for name in IMAGES]
    assert [call[call.index("--tag") + 1] for call in calls] == names
    assert [call[call.index("--target") + 1] for call in calls] == list(IMAGES)
    assert all(call[:2] == ["build", "--push"] for call in calls)


def test_a_failed_image_build_ends_the_deployment(deployment: Deployment) -> None:
    deployment.runner.fail("docker")

    assert run_images_step(deployment, "Build and push") != 0

    assert len(deployment.runner.calls("docker")) == 1


def test_a_rollout_changes_only_the_images(deployment: Deployment) -> None:
    assert run_images_step(deployment, "Roll out") == 0

    [call] = deployment.runner.calls("helm")
    assert call[:4] == ["upgrade", "--install", "shop", "deploy/helm/tollgate"]
    assert {"--reset-then-reuse-values", "--atomic"} <= set(call)
    # Not --set, which turns an all-digit commit name into a number.
    assert call[call.index("image.tag=c0ffee") - 1] == "--set-string"
    assert call[call.index("--namespace") + 1] == "sales"
