"""Parse a workflow as GitHub does, and run its `run` steps locally.

docker, gcloud, helm and kubectl are fakes on PATH that record their calls; `make` and `tollgate`
are real.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.programs import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
TOKEN = re.compile(r"'(?:[^']|'')*'|\|\||&&|==|!=|[()!,]|[A-Za-z_][\w.-]*")
OPERATORS = {"&&": "and", "||": "or", "!": "not"}
FUNCTIONS = ("format", "failure", "fromJSON")
STEP_DEADLINE_S = 120

FAKE = """#!{python} -IS
import sys
sys.path.insert(0, {root!r})
from harness.workflow_programs import call
call({folder!r}, {name!r}, sys.argv[1:])
"""
"""`-IS` skips the search for installed packages: a workflow calls fakes dozens of times."""


def read(name: str) -> dict[Any, Any]:
    """Return a workflow's document; YAML 1.1 parses its key `on` as True."""
    document: dict[Any, Any] = yaml.safe_load((WORKFLOWS / name).read_text())
    return document


def evaluate(text: Any, context: Mapping[str, Any]) -> Any:
    """Evaluate the ${{ expressions }} in a text; a lone expression keeps its type."""
    if not isinstance(text, str):
        return text
    alone = re.fullmatch(r"\s*\$\{\{(.*?)\}\}\s*", text, re.DOTALL)
    if alone and text.count("${{") == 1:
        return value_of(alone[1], context)

    def fill(match: re.Match[str]) -> str:
        value = value_of(match[1], context)
        return "" if value is None else str(value)

    return re.sub(r"\$\{\{(.*?)\}\}", fill, text, flags=re.DOTALL)


def value_of(expression: str, context: Mapping[str, Any]) -> Any:
    """Evaluate an expression, in the part of GitHub's language that the workflows use."""
    words = [_to_python(token) for token in TOKEN.findall(expression)]

    def look_up(path: str) -> Any:
        value: Any = context
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    names = {
        "look_up": look_up,
        "format": lambda text, *values: text.format(*values),
        "failure": lambda: context.get("failed", False),
        "fromJSON": json.loads,
    }
    return eval(" ".join(words), names)


def _to_python(token: str) -> str:
    if token in OPERATORS:
        return OPERATORS[token]
    if re.match(r"[A-Za-z_]", token) and token not in FUNCTIONS:
        return f"look_up({token!r})"
    return token


class Runner:
    """A checkout in which steps run, and the fakes of external programs.

    Args:
        vars: the repository's variables.
        environment: extra environment variables of every step.
    """

    def __init__(
        self,
        folder: Path,
        *,
        vars: Mapping[str, str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.checkout, self._fakes = folder / "checkout", folder / "fakes"
        self.vars, self._environment = dict(vars), dict(environment or {})
        self.secrets: dict[str, str] = {}
        """The repository's secrets."""
        for name in ("Makefile", "scripts", "pyproject.toml", "requirements"):
            self.checkout.mkdir(parents=True, exist_ok=True)
            (self.checkout / name).symlink_to(ROOT / name)
        # So that `cd "$(dirname "$0")/.."` leads here, not into the real checkout.
        (self.checkout / "scripts").unlink()
        shutil.copytree(ROOT / "scripts", self.checkout / "scripts")
        self._install()
        (self._fakes / "secrets").mkdir(parents=True)
        for name in ("docker", "gcloud", "helm", "kubectl"):
            program = self._fakes / name
            text = FAKE.format(
                python=sys.executable, root=str(ROOT), folder=str(self._fakes), name=name
            )
            program.write_text(text)
            program.chmod(0o755)

    def secret(self, name: str, content: bytes) -> None:
        """Set a secret of Secret Manager."""
        (self._fakes / "secrets" / name).write_bytes(content)

    def pods(self, pods: Mapping[str, str]) -> None:
        """Set the URLs of the pods that kubectl lists, by name."""
        (self._fakes / "pods").write_text(json.dumps(pods))

    def folders(self, *names: str) -> None:
        """Set the folders that `gcloud storage ls` lists."""
        others = ["README.txt", "Wine/", "my wine/", "a..b/", "_pipeline/"]
        lines = [f"gs://shop-data/{name}\n" for name in [*others, *(f"{each}/" for each in names)]]
        (self._fakes / "folders").write_text("".join(lines))

    def deployed(self, tag: str) -> None:
        """Set the image tag that `helm get values` shows."""
        (self._fakes / "values").write_text(json.dumps({"image": {"tag": tag}}))

    def fail(self, *programs: str) -> None:
        """Make external programs fail from now on."""
        (self._fakes / "failing").write_text(" ".join(programs))

    def calls(self, program: str) -> list[list[str]]:
        """Return the recorded calls of an external program."""
        lines = (self._fakes / "calls").read_text().splitlines()
        return [call[1:] for call in map(json.loads, lines) if call[0] == program]

    def run(
        self, workflow: str, *, event: Mapping[str, Any], inputs: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Run the jobs that an event starts; return the outcome of each step by name.

        Args:
            event: the event's `name`, and its `client_payload` if it has one.
        """
        document = read(workflow)
        context = {**self._context(event, inputs or {}), "needs": {}}
        self.ran: list[tuple[str, str | None, dict[str, str]]] = []
        for name, job in document["jobs"].items():
            needed = [job["needs"]] if "needs" in job else []
            if not all(each in context["needs"] for each in needed):
                continue  # skipped, like the job that it needs
            if not value_of(str(job.get("if", "'yes'")), context):
                continue
            for model in self._matrix(job, context):
                job_context = {**context, "matrix": {"model": model}}
                outcomes, outputs = self._run_job(document, job, job_context)
                self.ran.append((name, model, outcomes))
                context["needs"][name] = {"outputs": outputs}
        return {step: outcome for _, _, each in self.ran for step, outcome in each.items()}

    def _matrix(self, job: dict[str, Any], context: dict[str, Any]) -> list[Any]:
        """Return the models that a job runs for; a single None without a matrix."""
        if "strategy" not in job:
            return [None]
        return list(evaluate(job["strategy"]["matrix"]["model"], context))

    def _run_job(
        self, document: dict[str, Any], job: dict[str, Any], context: dict[str, Any]
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """Run a job; return the outcomes of its steps by name, and its outputs."""
        context = {**context, "steps": {}, "failed": False}
        declared = {**document.get("env", {}), **job.get("env", {})}
        environment = {name: str(evaluate(each, context) or "") for name, each in declared.items()}
        context["env"] = environment
        outcomes = {}
        for step in job["steps"]:
            if "run" not in step:
                continue  # an action, which is not run here
            condition = str(step.get("if", "'yes'"))
            skipped = context["failed"] and "failure()" not in condition
            if skipped or not value_of(condition, context):
                outcomes[step["name"]] = "skipped"
                continue
            added = {name: evaluate(each, context) for name, each in step.get("env", {}).items()}
            outcome = (
                "success" if self.run_step(step["run"], environment | added) == 0 else "failure"
            )
            outcomes[step["name"]] = outcome
            context["steps"][step.get("id", "")] = {"outcome": outcome, "outputs": self.outputs}
            context["failed"] = context["failed"] or outcome == "failure"
        outputs = {name: evaluate(each, context) for name, each in job.get("outputs", {}).items()}
        return outcomes, outputs

    def run_step(self, script: str, environment: Mapping[str, Any]) -> int:
        """Run one step's script; return its exit code.

        Its output is then in `output`, and its named outputs in `outputs`.
        """
        assert "${{" not in script  # event data must never be part of a script
        added = self.checkout / "github-path"
        paths = (
            [*added.read_text().split(), str(self._fakes)] if added.exists() else [str(self._fakes)]
        )
        variables = {
            name: "" if value is None else str(value) for name, value in environment.items()
        }
        outputs = self.checkout / "github-output"
        outputs.write_text("")
        result = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.checkout,
            env={
                "PATH": ":".join([*paths, os.environ["PATH"]]),
                "PYTHONPATH": str(ROOT),
                "GITHUB_PATH": str(added),
                "GITHUB_OUTPUT": str(outputs),
                "TOLLGATE_HOME": str(self.checkout / "nothing"),
                **self._environment,
                **variables,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STEP_DEADLINE_S,
        )
        self.output = result.stdout + result.stderr
        pairs = [line.partition("=") for line in outputs.read_text().splitlines()]
        self.outputs = {name: value for name, _, value in pairs}
        return result.returncode

    def _context(self, event: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
        github = {"event_name": event["name"], "event": event, "actor": "ada", "sha": "c0ffee"}
        github["repository"] = "shop/models"
        return {"github": github, "inputs": inputs, "vars": self.vars, "secrets": self.secrets}

    def _install(self) -> None:
        """Create the files of `make install`, so that it has nothing to do."""
        programs = self.checkout / ".venv" / "bin"
        programs.mkdir(parents=True)
        tollgate = programs / "tollgate"
        tollgate.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli.main "$@"\n')
        tollgate.chmod(0o755)
        (self.checkout / ".venv" / "local.stamp").touch()
