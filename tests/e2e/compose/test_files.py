"""Checks of the Dockerfile, docker-compose.yml and .env that need no Docker engine."""

import re
import runpy
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.programs import ROOT
from tests.unit.cli.test_settings_documented import DOCUMENTED

SCRIPT = ROOT / "scripts" / "compose_env.py"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if "/tollgate-" in each["image"]}
GENERATED = set(runpy.run_path(str(SCRIPT))["SECRETS"])
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?:(:-|:\?)([^}]*))?\}")

# The keys used here that both docker-compose 1.29 and docker compose support.
KEYS = {
    *("image", "command", "user", "environment", "volumes", "ports", "profiles", "depends_on"),
    *("healthcheck", "restart", "read_only", "tmpfs", "cap_drop", "security_opt"),
    "stop_grace_period",
}
HEALTHCHECK_KEYS = {"test", "interval", "timeout", "retries", "start_period", "disable"}


class TestDockerfile:
    @pytest.mark.parametrize(
        "path",
        ["Dockerfile", *(str(p.relative_to(ROOT)) for p in ROOT.glob("tests/**/*Dockerfile"))],
    )
    def test_the_linter_has_no_complaints(self, path: str) -> None:
        hadolint = Path(sys.executable).with_name("hadolint")

        linted = subprocess.run([hadolint, ROOT / path], capture_output=True, text=True, timeout=60)

        assert (linted.returncode, linted.stdout) == (0, "")

    def test_it_needs_no_frontend_from_a_registry(self) -> None:
        assert not re.search(r"^#\s*syntax", DOCKERFILE, re.MULTILINE | re.IGNORECASE)
        assert "--mount" not in DOCKERFILE

    @pytest.mark.parametrize("name", ["auth", "billing", "console", "inference", "trainer"])
    def test_an_image_contains_only_its_own_packages_and_sources(self, name: str) -> None:
        stage = DOCKERFILE.split(f"FROM runtime AS {name}\n")[1].split("\nFROM ")[0]
        copied = set(re.findall(r"^COPY (?:--from=)?(\S+)", stage, re.MULTILINE))

        sources = {
            "auth": {"cli", "services/auth"},
            "billing": {"cli", "services/billing", "registry"},
            "console": {"services/console", "docs"},
            "inference": {"cli", "services/inference", "registry"},
            "trainer": {"cli", "trainer", "registry"},
        }
        common = {"services/__init__.py", "services/common"}
        assert copied == common | sources[name] | {f"{name}-packages"}
        assert "USER 10001:10001" in stage
        assert "HEALTHCHECK" in stage

    def test_the_build_context_has_exactly_what_the_build_copies(self) -> None:
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        included = {line[1:].rstrip("/") for line in ignored if line.startswith("!")}
        lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        paths = [path for line in lines for path in line.split()]
        copied = {
            path.replace(f"${{{service.upper()}}}", variant)
            for path in paths
            for service, extras in (("inference", ("joblib",)), ("billing", ("archive", "parquet")))
            for variant in (service, *(f"{service}-{extra}" for extra in extras))
            if "${" not in path or f"${{{service.upper()}}}" in path
        }

        assert "*" in ignored
        assert all((ROOT / path).exists() for path in copied)
        assert {path for path in copied if not path.startswith("services/")} | {
            "services"
        } == included


class TestCompose:
    def test_both_generations_of_compose_support_every_key(self) -> None:
        assert set(COMPOSE) <= {
            "services",
            "volumes",
            "x-tollgate",
            "x-job",
            "x-traces",
            "x-addresses",
        }
        for service in SERVICES.values():
            assert set(service) <= KEYS
            assert set(service.get("healthcheck", {})) <= HEALTHCHECK_KEYS

    def test_a_default_contains_no_other_variable(self) -> None:
        """docker-compose 1.29 would end the outer variable at the inner one's brace."""
        assert not re.search(r"\$\{[^}]*\$\{", TEXT)

    def test_each_variable_is_documented_with_its_default_or_generated(self) -> None:
        lines = (ROOT / ".env.example").read_text()
        documented = dict(re.findall(r"^#([A-Z_]+)=(.*)$", lines, re.MULTILINE))

        for name, _, default in VARIABLE.findall(TEXT):
            assert (name in documented) != (name in GENERATED - {*DOCUMENTED}), name
            if name in documented and name not in DOCUMENTED:
                assert documented[name] == default

    def test_one_variable_has_one_default(self) -> None:
        defaults: dict[str, set[str]] = {}
        for name, kind, default in VARIABLE.findall(TEXT):
            if kind == ":-":
                defaults.setdefault(name, set()).add(default)

        assert all(len(found) == 1 for found in defaults.values()), defaults

    def test_every_variable_of_a_service_is_a_setting(self) -> None:
        variables = {name for service in OURS.values() for name in service.get("environment", {})}
        sampler = {"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}

        assert variables <= set(DOCUMENTED) | {"STORAGE_EMULATOR_HOST"} | sampler

    def test_the_file_contains_no_secret(self) -> None:
        for service in SERVICES.values():
            for name, value in service.get("environment", {}).items():
                if re.search("PASSWORD|SECRET|DATABASE_URL", name):
                    references = {found[0] for found in VARIABLE.findall(value)}
                    assert references, name
                    assert references <= GENERATED

    def test_without_secrets_the_error_names_the_command_that_makes_them(self) -> None:
        required = GENERATED - {"AUTH_PASSPHRASE"}  # without it, auth works as before

        assert {name for name in GENERATED if f"${{{name}:?run make compose-env}}" in TEXT} == (
            required
        )

    def test_every_awaited_container_can_report_its_state(self) -> None:
        for name, service in SERVICES.items():
            for other, how in service.get("depends_on", {}).items():
                job = SERVICES[other].get("restart") == "no"
                checked = "test" in SERVICES[other].get("healthcheck", {}) or (
                    other in OURS and not job
                )
                match how["condition"]:
                    case "service_completed_successfully":
                        assert job, (name, other)
                    case "service_healthy":
                        assert checked, (name, other)
                    case condition:
                        assert condition == "service_started"

    def test_our_containers_have_no_privileges_and_a_read_only_root(self) -> None:
        for service in OURS.values():
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]

    def test_only_https_is_published_to_the_world(self) -> None:
        for name, service in SERVICES.items():
            for port in service.get("ports", []):
                assert name == "caddy" or port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:")

    def test_volumes_are_named_and_mounted_files_exist(self) -> None:
        mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
        sources = {mount.split(":")[0] for mount in mounts}
        files = {source for source in sources if source.startswith("./")}

        assert sources - files == set(COMPOSE["volumes"])
        assert all((ROOT / file).exists() for file in files)


class TestEnv:
    def make(self, folder: Path, *arguments: str) -> dict[str, str]:
        """Run the script in a folder; return the .env it leaves."""
        command = [sys.executable, str(SCRIPT), *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
        lines = (folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    def test_every_secret_is_random(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        one, other = self.make(tmp_path), self.make(tmp_path / "other")

        assert set(one) == GENERATED
        assert len({*one.values(), *other.values()}) == 2 * len(GENERATED)
        assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in one.values())
        assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600

    def test_running_it_again_changes_nothing(self, tmp_path: Path) -> None:
        self.make(tmp_path)
        made = (tmp_path / ".env").read_bytes()

        self.make(tmp_path)

        assert (tmp_path / ".env").read_bytes() == made

    def test_existing_lines_are_kept_and_missing_ones_added(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("# mine\nTAG=1.2.3\nMYSQL_ROOT_PASSWORD=theirs\n")

        made = self.make(tmp_path)

        assert set(made) == GENERATED | {"TAG"}
        assert (made["TAG"], made["MYSQL_ROOT_PASSWORD"]) == ("1.2.3", "theirs")
        assert (tmp_path / ".env").read_text().startswith("# mine\n")
        assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600

    def test_a_domain_sets_the_public_addresses_and_another_replaces_them(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / ".env").write_text("COMPOSE_PROFILES=observability\n")

        first = self.make(tmp_path, "one.example")
        second = self.make(tmp_path, "two.example")

        assert first["AUTH_ISSUER"] == "https://auth.one.example"
        assert second["AUTH_ISSUER"] == "https://auth.two.example"
        assert second["INFERENCE_PUBLIC_URL"] == "https://inference.two.example"
        assert second["BILLING_PUBLIC_URL"] == "https://billing.two.example"
        assert second["COMPOSE_PROFILES"] == "https,observability"
        assert {name: second[name] for name in GENERATED} == {
            name: first[name] for name in GENERATED
        }
