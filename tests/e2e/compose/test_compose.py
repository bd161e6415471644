"""docker-compose.yml, from building the images to a paid prediction; `make test-compose`."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from harness.samples import PREDICT, WINE
from harness.waiting import eventually
from tests.e2e.browsers import WAIT_MS, running_browser
from tests.e2e.compose.project import IMAGES, Project, docker, running_project

pytestmark = pytest.mark.compose

SERVICES = ("auth", "billing", "console", "inference")
ALONE = """
import importlib.util, sys
services = ("auth", "billing", "console", "inference")
names = (*map("services.{}".format, services), "trainer", "pip")
print(" ".join(name for name in names if importlib.util.find_spec(name)))
"""
PUT_DATA = """
import gcsfs, pathlib
from cli.local.sample import seed
seed(pathlib.Path("/tmp"))
gcsfs.GCSFileSystem().put("/tmp/wine/", "data/cellar/", recursive=True)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The whole project, up."""
    with running_project(tmp_path_factory.mktemp("compose")) as project:
        eventually(lambda: project.is_ready("inference"))
        yield project


def predict(project: Project, token: str) -> None:
    """Predict one row, and check that the response has its price."""
    with project.client("inference", token) as inference:
        answer = inference.post(PREDICT, json={"instances": [WINE]})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"predictions": [0]}
    assert answer.headers["X-Usage-Amount"].endswith(" USD")


class TestProject:
    def test_a_new_user_registers_predicts_and_is_billed(self, project: Project) -> None:
        token = project.new_token()
        predict(project, token)

        billed = eventually(lambda: (usage := project.usage(token))["requests"] and usage)

        assert (billed["requests"], billed["rows"], billed["currency"]) == (1, 1, "USD")

    def test_the_administrator_of_the_env_file_is_an_administrator(self, project: Project) -> None:
        password = project.settings["AUTH_ADMIN_PASSWORD"]
        administrator = project.token("admin@tollgate.example", password)

        for token, status in ((administrator, 200), (project.new_token(), 403)):
            with project.client("billing", token) as billing:
                assert billing.get("/sources").status_code == status

    def test_a_buyer_signs_in_and_predicts_in_the_console(self, project: Project) -> None:
        email, password = project.register_user()
        with running_browser() as browser:
            page = browser.new_context(base_url=project.urls["console"]).new_page()
            page.set_default_timeout(WAIT_MS)
            page.goto("/billing")
            page.fill("[name=email]", email)
            page.fill("[name=password]", password)
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_test_id("balance")).to_have_text("$0.00")
            page.goto("/models/wine")
            page.get_by_role("button", name="Predict", exact=True).click()
            expect(page.get_by_test_id("predict-cost")).to_contain_text("$0.0006")

    def test_a_stopped_inference_has_shipped_all_its_usage(self, project: Project) -> None:
        token = project.new_token()
        for _ in range(20):
            predict(project, token)

        project.compose("stop", "inference")

        assert project.usage(token)["requests"] == 20
        project.compose("start", "inference")
        eventually(lambda: project.is_ready("inference"))

    def test_a_second_start_keeps_accounts_usage_and_the_release(self, project: Project) -> None:
        email, password = project.register_user()
        token = project.token(email, password)
        predict(project, token)
        eventually(lambda: project.usage(token)["requests"] == 1)

        project.compose("down")
        project.up()
        eventually(lambda: project.is_ready("inference"))

        assert project.usage(token)["requests"] == 1
        predict(project, project.token(email, password))
        assert "training" not in project.compose("logs", "--no-color", "sample-model")

    def test_own_data_in_the_bucket_becomes_a_model(self, project: Project) -> None:
        project.compose("run", "--rm", "-T", "trainer", "python", "-c", PUT_DATA)
        trained = ("tollgate", "train", "cellar", "--release")
        project.compose("run", "--rm", "-T", "trainer", *trained, timeout_s=300)

        with project.client("inference", project.new_token()) as inference:
            eventually(lambda: inference.get("/v1/models/cellar").status_code == 200)

    @pytest.mark.parametrize("service", SERVICES)
    def test_a_service_runs_without_privileges(self, project: Project, service: str) -> None:
        container = project.inspect(service)
        eventually(lambda: project.inspect(service)["State"]["Health"]["Status"] == "healthy")

        assert container["Config"]["User"] == "10001:10001"
        assert container["HostConfig"]["ReadonlyRootfs"]
        assert container["HostConfig"]["CapDrop"] == ["ALL"]
        assert container["RestartCount"] == 0

    @pytest.mark.parametrize("service", [name for name in SERVICES if name != "console"])
    def test_the_command_line_works_in_a_service(self, project: Project, service: str) -> None:
        output = project.compose("exec", "-T", service, "tollgate", "--version")

        assert output.strip() == "0.1.0"

    def test_the_books_balance(self, project: Project) -> None:
        output = project.compose("exec", "-T", "billing", "tollgate", "billing", "verify")

        assert output.strip() == "all sums agree"


@pytest.mark.parametrize("name", IMAGES)
class TestImage:
    def test_it_contains_its_own_service_and_no_pip(self, project: Project, name: str) -> None:
        source = "trainer" if name == "trainer" else f"services.{name}"
        run = ("run", "--rm", "--network", "none", "--read-only", image(project, name))

        assert docker(*run, "python", "-c", ALONE).split() == [source]

    def test_no_build_setting_stays_in_it(self, project: Project, name: str) -> None:
        history = docker("history", "--no-trunc", image(project, name))
        config = json.loads(docker("inspect", image(project, name)))[0]["Config"]

        assert "PIP_" not in history
        assert not [entry for entry in config["Env"] if entry.startswith("PIP_")]
        assert config["Labels"]["org.opencontainers.image.title"] == f"tollgate-{name}"
        assert config["Labels"]["org.opencontainers.image.version"] == project.settings["TAG"]


def image(project: Project, name: str) -> str:
    return f"tollgate/tollgate-{name}:{project.settings['TAG']}"
