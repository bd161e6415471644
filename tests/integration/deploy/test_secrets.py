"""Passwords and keys: created once, of the right kind, and the same everywhere."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from registry.keys import TrustedKeys
from services.auth.keys import read_folder
from services.billing.receipts.keys import open_receipt_keys
from tests.integration.deploy.chart import CHART, Manifest, render

MADE = (
    "credentials",
    "auth-keys",
    "auth-passphrase",
    "receipt-keys",
    "model-signing-key",
    "trusted-keys",
    "mysql",
)


def creation_order(hook: Manifest) -> int:
    """Return the order in which an object is created: hooks by weight, then all other objects."""
    annotations = hook["metadata"].get("annotations", {})
    return int(annotations.get("helm.sh/hook-weight", 0 if "helm.sh/hook" in annotations else 1))


class TestCreatedSecrets:
    def test_auth_accepts_the_token_signing_key(self, tmp_path: Path) -> None:
        for name, text in render(own_keys=True).get("Secret", "auth-keys")["stringData"].items():
            (tmp_path / name).write_text(text)

        assert len(read_folder(tmp_path)) == 1

    def test_billing_accepts_the_receipt_key(self, tmp_path: Path) -> None:
        for name, text in render().get("Secret", "receipt-keys")["stringData"].items():
            (tmp_path / name).write_text(text)

        assert len(open_receipt_keys(tmp_path).document["keys"]) == 1

    def test_inference_trusts_the_model_signing_key(self, tmp_path: Path) -> None:
        secrets = render()
        text = secrets.get("Secret", "model-signing-key")["stringData"]["signing.pem"]
        (tmp_path / "trusted.pem").write_text(
            secrets.get("Secret", "trusted-keys")["stringData"]["trusted.pem"]
        )
        key = load_pem_private_key(text.encode(), None)
        assert isinstance(key, Ed25519PrivateKey)

        assert TrustedKeys.load(tmp_path).verify(b"manifest", key.sign(b"manifest"))

    def test_they_belong_to_no_revision_and_outlive_the_release(self) -> None:
        for name in MADE:
            annotations = render(own_keys=True).get("Secret", name)["metadata"]["annotations"]
            assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
            assert annotations["helm.sh/hook-delete-policy"] == "hook-failed"
            assert annotations["helm.sh/resource-policy"] == "keep"

    def test_the_cluster_is_searched_for_each_before_it_is_created(self) -> None:
        templates = [path.read_text() for path in CHART.glob("templates/**/*.*")]
        generators = [text for text in templates if "randAlpha" in text or "genPrivateKey" in text]

        assert len(generators) == 1
        assert generators[0].index("lookup") < generators[0].index("randAlpha")
        assert '(lookup "v1" "Secret"' in (CHART / "templates" / "secrets.yaml").read_text()

    def test_passwords_are_long_and_differ(self) -> None:
        values = [
            *render().get("Secret", "mysql")["stringData"].values(),
            *render().get("Secret", "credentials")["stringData"].values(),
            *render().get("Secret", "auth-passphrase")["stringData"].values(),
        ]

        assert len(set(values)) == len(values) == 7
        assert all(len(value) == 32 and value.isalnum() for value in values)


class TestExistingSecrets:
    def test_nothing_is_created_if_all_secrets_exist(self) -> None:
        rendered = render(
            "credentialsSecret=c",
            "mysql.existingSecret=m",
            "modelStore.trustedKeysSecret=t",
            "auth.passphraseSecret=p",
            "billing.receiptKeysSecret=r",
            "console.existingSecret=s",
        )

        assert rendered.of("Secret") == []
        assert "secretName: t" in rendered.text
        assert "name: m, key: billing-password" in rendered.text
        assert "name: c, key: inference-client-secret" in rendered.text
        assert "name: p, key: passphrase" in rendered.text
        assert "name: s, key: secret" in rendered.text
        assert "name: p, key: previous-passphrase, optional: true" in rendered.text


class TestMigration:
    def test_with_mysql_inside_it_is_an_ordinary_job_named_by_the_revision(self) -> None:
        job = render().job("migrate")
        [wait] = job["spec"]["template"]["spec"]["initContainers"]

        assert "annotations" not in job["metadata"]
        assert "t-tollgate-mysql" in wait["args"][0]

    @pytest.mark.costly
    def test_another_image_creates_another_job_because_jobs_cannot_change(self) -> None:
        names = {
            render(*settings, scenario="defaults").job("migrate")["metadata"]["name"]
            for settings in ((), ("image.tag=a",), ("image.tag=b",))
        }

        assert len(names) == 3

    def test_it_is_the_first_pod_on_the_backup_volume_which_may_wait_for_one(self) -> None:
        claim = {"claimName": "t-tollgate-mysql-backups"}
        volumes = render().job("migrate")["spec"]["template"]["spec"]["volumes"]
        without = render("mysql.backup.enabled=false").job("migrate")

        assert {"name": "backups", "persistentVolumeClaim": claim} in volumes
        assert "backups" not in str(without)

    def test_with_an_external_database_it_runs_first_with_its_own_secret(self) -> None:
        rendered = render(scenario="external-database")
        job, secret = rendered.get("Job", "migrate"), rendered.get("Secret", "migrate")
        env = [
            entry
            for container in job["spec"]["template"]["spec"]["containers"]
            for entry in container["env"]
        ]
        secrets = {e["valueFrom"]["secretKeyRef"]["name"] for e in env if "valueFrom" in e}

        for hook in (job, secret):
            assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
            policy = hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
            assert "before-hook-creation" in policy
        made_before = {
            each["metadata"]["name"] for each in rendered.of("Secret") if creation_order(each) < 0
        }
        assert secrets <= made_before
        assert "serviceAccountName" not in job["spec"]["template"]["spec"]

    def test_the_hook_uses_the_same_databases_as_the_services(self) -> None:
        rendered = render(scenario="external-database")
        hooked = rendered.get("Secret", "migrate")["stringData"]

        assert hooked == rendered.get("Secret", "database")["stringData"]

    @pytest.mark.parametrize(
        ("query", "expected_query"),
        [
            ("", "?ssl_ca=/etc/tollgate/database-ca/ca.pem"),
            ("?charset=utf8mb4", "?charset=utf8mb4&ssl_ca=/etc/tollgate/database-ca/ca.pem"),
            ("?ssl_ca=/etc/ssl/cert.pem", "?ssl_ca=/etc/ssl/cert.pem"),
        ],
    )
    def test_a_ca_certificate_is_added_to_any_url(self, query: str, expected_query: str) -> None:
        url = f"mysql+aiomysql://auth:p@db/auth{query}"
        rendered = render(f"externalDatabase.authUrl={url}", scenario="external-database")

        database = rendered.get("Secret", "database")["stringData"]
        assert database["auth-url"] == f"mysql+aiomysql://auth:p@db/auth{expected_query}"

    def test_the_network_policy_of_the_hook_is_created_before_it(self) -> None:
        rendered = render(scenario="external-database")
        policy = rendered.get("NetworkPolicy", "migrate-hook")
        job = rendered.get("Job", "migrate")

        assert creation_order(policy) < creation_order(job)
        assert policy["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        selected = policy["spec"]["podSelector"]["matchLabels"]
        assert selected == job["spec"]["template"]["metadata"]["labels"]
        assert {"to": [{"ipBlock": {"cidr": "10.20.0.3/32"}}], "ports": [{"port": 3306}]} in policy[
            "spec"
        ]["egress"]

    def test_with_existing_secrets_the_hook_needs_none_of_its_own(self) -> None:
        rendered = render(
            "mysql.enabled=false", "externalDatabase.existingSecret=db", "credentialsSecret=c"
        )

        assert not [s for s in rendered.of("Secret") if "migrate" in s["metadata"]["name"]]
        assert not [s for s in rendered.of("StatefulSet") if "mysql" in s["metadata"]["name"]]
