"""The services in the chart: first the defaults, then one case per value."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from services.common.shutdown import FINISH_S, LAST_CALL_S
from services.inference.api.grpc.server import GRACE_S
from services.inference.metering.leases.manager import RELEASE_S
from services.inference.metering.shipper import DRAIN_S
from tests.integration.deploy.chart import CHART, ROOT, SCENARIOS, SERVICES, render, same
from tests.unit.cli.test_settings_documented import DOCUMENTED


@pytest.mark.parametrize("service", SERVICES)
class TestDefaults:
    def test_the_grace_period_is_longer_than_a_stop_can_take(self, service: str) -> None:
        pod = render().workload(service)["spec"]["template"]["spec"]
        pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        flush = GRACE_S + RELEASE_S + DRAIN_S if service == "inference" else 0

        assert pause >= 10
        assert pod["terminationGracePeriodSeconds"] >= pause + FINISH_S + flush + 5

    def test_the_page_on_updates_matches_the_chart(self, service: str) -> None:
        page = (ROOT / "docs" / "operations.md").read_text()
        workload = render().workload(service)["spec"]
        pod = workload["template"]["spec"]
        sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        closed, finished = sleep + LAST_CALL_S, sleep + FINISH_S
        grace = pod["terminationGracePeriodSeconds"]

        assert f"must be ready for {workload['minReadySeconds']} s" in page
        assert f"| {sleep} | SIGTERM" in page
        assert f"| {closed:g} | Idle connections and the port are closed" in page
        assert f"| {finished} at most | Requests" in page
        assert f"| {finished + GRACE_S:g} at most | gRPC" in page
        assert f"| {finished + GRACE_S + RELEASE_S + DRAIN_S:g} at most | Inference" in page
        assert f"inference {grace} |" in page or f"| {grace}, inference" in page

    def test_its_selectors_find_its_pods_and_no_others(self, service: str) -> None:
        rendered = render()
        labels = rendered.workload(service)["spec"]["template"]["metadata"]["labels"]
        selectors = [
            rendered.workload(service)["spec"]["selector"]["matchLabels"],
            rendered.get("Service", service)["spec"]["selector"],
            rendered.get("PodDisruptionBudget", service)["spec"]["selector"]["matchLabels"],
        ]

        for selector in selectors:
            assert selector.items() <= labels.items()
            assert selector["app.kubernetes.io/component"] == service

    def test_every_variable_it_gets_is_a_setting(self, service: str) -> None:
        for scenario in SCENARIOS:
            rendered = render(scenario=scenario)
            variables = set(rendered.settings(service))
            variables |= {each["name"] for each in rendered.container(service)["env"]}
            ours = {name for name in variables if re.match("AUTH|INFERENCE|BILLING|TOLLGATE", name)}

            assert ours <= set(DOCUMENTED), scenario


@pytest.mark.parametrize("service", SERVICES)
class TestSettings:
    def test_a_setting_without_a_key_restarts_the_pods(self, service: str) -> None:
        name = f"{service.upper()}_LOG_LEVEL"
        changed = render(f"{service}.settings.{name}=DEBUG")

        def checksum(rendered: object) -> str:
            workload = rendered.workload(service)  # type: ignore[attr-defined]
            text: str = workload["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
            return text

        assert changed.settings(service)[name] == "DEBUG"
        assert checksum(changed) != checksum(render())


class TestNodes:
    def test_a_job_is_scheduled_like_the_service_it_works_for(self) -> None:
        parts = ("auth", "inference", "billing", "mysql")
        rendered = render(
            "sampleModel.enabled=true",
            *(f"{part}.nodeSelector.pool={part}" for part in parts),
            *(f"{part}.tolerations[0].key={part}" for part in parts),
        )
        pools = {
            re.sub(r"^t-tollgate-|-1-\w+$", "", name): (
                pod["nodeSelector"]["pool"],
                pod["tolerations"],
            )
            for name, pod in rendered.pods()
            if name != "t-tollgate-console"
        }

        assert pools == {
            job: (part, [{"key": part}])
            for part, jobs in {
                "auth": ("auth", "migrate", "test"),
                "inference": ("inference", "release-check", "sample-model", "test-models"),
                "billing": ("billing", "billing-verify"),
                "mysql": ("mysql", "mysql-backup", "mysql-restore"),
            }.items()
            for job in jobs
        }


class TestNames:
    def test_the_longest_name_fits_whatever_the_release_is_called(self) -> None:
        rendered = render(name="a-release-with-a-name-as-long-as-helm-allows-it-to-be")
        limits = {"CronJob": 52, "StatefulSet": 52}

        for each in rendered.objects:
            assert len(each["metadata"]["name"]) <= limits.get(each["kind"], 63)

    def test_a_release_named_by_a_number_has_text_labels(self) -> None:
        rendered = render("fullnameOverride=shop", name="1234")

        for each in rendered.objects:
            assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "1234"
        for _, pod in rendered.pods():
            assert "1234," not in str(pod.get("affinity", ""))


class TestJournal:
    def test_it_is_on_the_pods_own_disk(self) -> None:
        pod = render().workload("inference")["spec"]["template"]["spec"]
        directory = render().settings("inference")["INFERENCE_JOURNAL_DIR"]

        assert {"name": "state", "emptyDir": {}} in pod["volumes"]
        assert directory.startswith("/var/lib/tollgate/")

    def test_with_a_volume_inference_is_a_stateful_set_with_the_same_autoscaler(self) -> None:
        rendered = render(scenario="volume-journal")
        workload = rendered.workload("inference")
        scaler = rendered.get("HorizontalPodAutoscaler", "inference")["spec"]
        [claim] = workload["spec"]["volumeClaimTemplates"]

        assert workload["kind"] == "StatefulSet"
        assert rendered.get("Service", "inference-pods")["spec"]["clusterIP"] == "None"
        assert scaler["scaleTargetRef"]["kind"] == "StatefulSet"
        plain = render().get("HorizontalPodAutoscaler", "inference")["spec"]
        assert same(scaler["behavior"], plain["behavior"])
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
        assert claim["spec"]["storageClassName"] == "standard-rwo"
        assert rendered.settings("inference")["INFERENCE_JOURNAL_SYNC"] == "disk"


class TestAnotherChart:
    @pytest.mark.costly
    def test_a_new_chart_version_alone_restarts_nothing(self, tmp_path: Path) -> None:
        secrets = (
            "credentialsSecret=c",
            "mysql.existingSecret=m",
            "modelStore.trustedKeysSecret=t",
            "auth.passphraseSecret=p",
            "billing.receiptKeysSecret=r",
            "console.existingSecret=s",
        )
        chart = tmp_path / "tollgate"
        shutil.copytree(CHART, chart)
        about = yaml.safe_load((chart / "Chart.yaml").read_text())
        about |= {"version": "9.9.9", "appVersion": "9.9.9"}
        (chart / "Chart.yaml").write_text(yaml.safe_dump(about))

        this, other = (render(*secrets, "image.tag=same", chart=each) for each in (CHART, chart))

        for name in (*SERVICES, "mysql"):
            assert this.workload(name)["spec"] == other.workload(name)["spec"]
            assert this.workload(name)["metadata"] != other.workload(name)["metadata"]


class TestModels:
    def test_without_a_store_inference_reads_an_empty_folder(self) -> None:
        pod = render().workload("inference")["spec"]["template"]["spec"]

        assert {"name": "models", "emptyDir": {}} in pod["volumes"]
        assert render().get("ServiceAccount", "inference")
        assert render().of("Job") == [render().job("migrate")]

    def test_the_sample_is_trained_onto_a_volume_that_inference_reads(self) -> None:
        rendered = render("sampleModel.enabled=true")
        job = rendered.job("sample-model")["spec"]["template"]["spec"]
        served = rendered.workload("inference")["spec"]["template"]["spec"]
        claim = {
            "name": "models",
            "persistentVolumeClaim": {
                "claimName": rendered.get("PersistentVolumeClaim", "models")["metadata"]["name"]
            },
        }

        assert claim in job["volumes"]
        assert claim in served["volumes"]
        assert same(job["affinity"], served["affinity"])  # one node, because of the volume
        env = {each["name"]: each.get("value") for each in job["containers"][0]["env"]}
        url = rendered.settings("inference")["INFERENCE_MODEL_STORE"]
        assert env["TRAINER_MODEL_STORE"] == url
        assert job["containers"][0]["command"] == ["python", "-m", "cli.local.sample"]
        assert '"model":"wine"' in rendered.settings("billing")["BILLING_DEFAULT_PLAN"]

    @pytest.mark.parametrize(
        ("settings", "at_once"),
        [
            (["sampleModel.enabled=true"], "100%"),
            (["sampleModel.enabled=true", "modelStore.volume.accessMode=ReadWriteMany"], 1),
            ([], 1),
        ],
    )
    def test_pods_that_must_share_a_node_may_leave_it_together(
        self, settings: list[str], at_once: int | str
    ) -> None:
        rendered = render(*settings)

        for service, bound in (("inference", at_once), ("auth", 1)):
            budget = rendered.get("PodDisruptionBudget", service)["spec"]
            assert budget["maxUnavailable"] == bound

    def test_a_bucket_needs_no_volume_and_workload_identity_is_an_annotation(self) -> None:
        rendered = render(scenario="gcs")
        pod = rendered.workload("inference")["spec"]["template"]["spec"]
        account = rendered.get("ServiceAccount", "inference")["metadata"]["annotations"]

        assert not [volume for volume in pod["volumes"] if volume["name"] == "models"]
        assert "iam.gke.io/gcp-service-account" in account
        url = rendered.settings("inference")["INFERENCE_MODEL_STORE"]
        assert url == "gs://example-models/production"
