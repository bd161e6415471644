"""Passwords and keys: made once, of the right kind, the same wherever they are needed."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.auth.keys import open_key_ring
from services.common.model_keys import TrustedKeys
from tests.deploy.chart import CHART, render

MADE = ("credentials", "auth-keys", "model-signing-key", "trusted-keys", "mysql")


class TestMade:
    def test_auth_takes_the_key_that_tokens_are_signed_with(self, tmp_path: Path) -> None:
        for name, text in render(own_keys=True).get("Secret", "auth-keys")["stringData"].items():
            (tmp_path / name).write_text(text)

        assert len(open_key_ring(tmp_path).document["keys"]) == 1

    def test_inference_trusts_what_the_model_key_signs(self, tmp_path: Path) -> None:
        secrets = render()
        text = secrets.get("Secret", "model-signing-key")["stringData"]["signing.pem"]
        (tmp_path / "trusted.pem").write_text(
            secrets.get("Secret", "trusted-keys")["stringData"]["trusted.pem"]
        )
        key = load_pem_private_key(text.encode(), None)
        assert isinstance(key, Ed25519PrivateKey)

        assert TrustedKeys.load(tmp_path).verify(b"manifest", key.sign(b"manifest"))

    def test_they_outlive_the_release_as_the_data_does(self) -> None:
        for name in MADE:
            metadata = render(own_keys=True).get("Secret", name)["metadata"]
            assert metadata["annotations"]["helm.sh/resource-policy"] == "keep"

    def test_each_is_looked_for_in_the_cluster_before_it_is_made(self) -> None:
        templates = [path.read_text() for path in CHART.glob("templates/**/*.*")]
        making = [text for text in templates if "randAlpha" in text or "genPrivateKey" in text]

        assert len(making) == 1
        assert making[0].index("lookup") < making[0].index("randAlpha")

    def test_passwords_are_long_and_differ(self) -> None:
        values = [
            *render().get("Secret", "mysql")["stringData"].values(),
            *render().get("Secret", "credentials")["stringData"].values(),
        ]

        assert len(set(values)) == len(values) == 6
        assert all(len(value) == 32 and value.isalnum() for value in values)


class TestGiven:
    def test_nothing_is_made_where_all_are_given(self) -> None:
        rendered = render(
            "credentialsSecret=c",
            "mysql.existingSecret=m",
            "modelStore.trustedKeysSecret=t",
        )

        assert rendered.of("Secret") == []
        assert "secretName: t" in rendered.text
        assert "name: m, key: billing-password" in rendered.text
        assert "name: c, key: inference-client-secret" in rendered.text


class TestMigration:
    def test_with_mysql_inside_it_is_an_ordinary_job_named_by_the_revision(self) -> None:
        job = render().get("Job", "migrate-1")
        [wait] = job["spec"]["template"]["spec"]["initContainers"]

        assert "annotations" not in job["metadata"]
        assert "t-tollgate-mysql" in wait["args"][0]

    def test_with_a_database_outside_it_runs_before_all_else_with_a_secret_of_its_own(self) -> None:
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
        assert secret["metadata"]["annotations"]["helm.sh/hook-weight"] == "-5"
        assert secrets == {secret["metadata"]["name"]}  # nothing that comes after hooks
        assert "serviceAccountName" not in job["spec"]["template"]["spec"]

    def test_the_hook_knows_the_same_passwords_as_the_services(self) -> None:
        rendered = render(scenario="external-database")
        hooked = rendered.get("Secret", "migrate")["stringData"]
        credentials = rendered.get("Secret", "credentials")["stringData"]
        database = rendered.get("Secret", "database")["stringData"]

        assert hooked == credentials | database
        assert database["auth-url"].endswith("?ssl_ca=/etc/tollgate/database-ca/ca.pem")

    def test_with_secrets_given_the_hook_needs_none_of_its_own(self) -> None:
        rendered = render(
            "mysql.enabled=false", "externalDatabase.existingSecret=db", "credentialsSecret=c"
        )

        assert not [s for s in rendered.of("Secret") if "migrate" in s["metadata"]["name"]]
        assert not [s for s in rendered.of("StatefulSet") if "mysql" in s["metadata"]["name"]]
