"""Reads a workflow as GitHub does, and runs its `run` steps on this machine.

What cannot be here stands on PATH as a program that writes down how it was called: docker, gcloud,
helm, kubectl. `make` and `tollgate` are the real ones.
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

from tests.e2e.platform import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
TOKEN = re.compile(r"'(?:[^']|'')*'|\|\||&&|==|!=|[()!,]|[A-Za-z_][\w.-]*")
OPERATORS = {"&&": "and", "||": "or", "!": "not"}
STEP_DEADLINE_S = 120

EDGE = """#!{python}
import json, os, pathlib, shutil, sys, urllib.request
edge, arguments = pathlib.Path({edge!r}), sys.argv[1:]
with (edge / "calls").open("a") as calls:
    calls.write(json.dumps([{name!r}, *arguments]) + "\\n")
if "--out-file" in arguments:
    secret = arguments[arguments.index("--secret") + 1]
    shutil.copyfile(edge / "secrets" / secret, arguments[arguments.index("--out-file") + 1])
if {name!r} == "kubectl":
    pods = json.loads((edge / "pods").read_text())
    if "--raw" in arguments:
        pod = arguments[-1].split("/pods/")[1].split(":")[0]
        with urllib.request.urlopen(pods[pod] + "/metrics", timeout=5) as answer:
            print(answer.read().decode())
    else:
        print(json.dumps({{"items": [
            {{"metadata": {{"name": name}}, "status": {{"phase": "Running"}}}} for name in pods
        ]}}))
failing = edge / "failing"
sys.exit({name!r} in failing.read_text().split() if failing.exists() else 0)
"""


def read(name: str) -> dict[Any, Any]:
    """A workflow's document; YAML 1.1 reads its key `on` as True."""
    document: dict[Any, Any] = yaml.safe_load((WORKFLOWS / name).read_text())
    return document


def evaluate(text: Any, context: Mapping[str, Any]) -> Any:
    """Text with its ${{ expressions }} worked out; alone, an expression keeps its type."""
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
    """The value of an expression, in the part of GitHub's language that we use."""
    words = [_to_python(token) for token in TOKEN.findall(expression)]

    def look_up(path: str) -> Any:
        found: Any = context
        for key in path.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    known = {"look_up": look_up, "format": lambda text, *values: text.format(*values)}
    return eval(" ".join(words), known | {"failure": lambda: context.get("failed", False)})


def _to_python(token: str) -> str:
    if token in OPERATORS:
        return OPERATORS[token]
    if re.match(r"[A-Za-z_]", token) and token not in ("format", "failure"):
        return f"look_up({token!r})"
    return token


class Runner:
    """A checkout in which steps run, and the programs at its edge.

    `pods` maps the names of pods to the URLs of the inference processes that they stand for.

    Args:
        vars: the repository's variables.
        environment: what the machine itself tells every step.
    """

    def __init__(
        self,
        folder: Path,
        *,
        vars: Mapping[str, str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.checkout, self._edge = folder / "checkout", folder / "edge"
        self._vars, self._environment = dict(vars), dict(environment or {})
        for name in ("Makefile", "scripts", "pyproject.toml", "requirements"):
            self.checkout.mkdir(parents=True, exist_ok=True)
            (self.checkout / name).symlink_to(ROOT / name)
        # `cd "$(dirname "$0")/.."` is to lead here, not into the real checkout.
        (self.checkout / "scripts").unlink()
        shutil.copytree(ROOT / "scripts", self.checkout / "scripts")
        self._install()
        (self._edge / "secrets").mkdir(parents=True)
        for name in ("docker", "gcloud", "helm", "kubectl"):
            program = self._edge / name
            program.write_text(EDGE.format(python=sys.executable, edge=str(self._edge), name=name))
            program.chmod(0o755)

    def secret(self, name: str, content: bytes) -> None:
        (self._edge / "secrets" / name).write_bytes(content)

    def pods(self, pods: Mapping[str, str]) -> None:
        (self._edge / "pods").write_text(json.dumps(pods))

    def fail(self, *programs: str) -> None:
        """Let programs at the edge fail from now on."""
        (self._edge / "failing").write_text(" ".join(programs))

    def calls(self, program: str) -> list[list[str]]:
        """How a program at the edge was called."""
        lines = (self._edge / "calls").read_text().splitlines()
        return [call[1:] for call in map(json.loads, lines) if call[0] == program]

    def run(
        self, workflow: str, *, event: Mapping[str, Any], inputs: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Run the jobs of a workflow that an event starts; the outcome of each step by name.

        Args:
            event: `name` of the event, and its `client_payload` where it has one.
        """
        document = read(workflow)
        context = self._context(event, inputs or {})
        outcomes: dict[str, str] = {}
        for job in document["jobs"].values():
            if value_of(str(job.get("if", "'yes'")), context):
                environment = {**document.get("env", {}), **job.get("env", {})}
                outcomes |= self._run_job(job, environment, context)
        return outcomes

    def _run_job(
        self, job: dict[str, Any], environment: dict[str, Any], context: dict[str, Any]
    ) -> dict[str, str]:
        context = {**context, "steps": {}, "failed": False}
        outcomes = {}
        for step in job["steps"]:
            if "run" not in step:
                continue  # an action: nothing of ours
            condition = str(step.get("if", "'yes'"))
            skipped = context["failed"] and "failure()" not in condition
            if skipped or not value_of(condition, context):
                outcomes[step["name"]] = "skipped"
                continue
            told = {name: evaluate(value, context) for name, value in environment.items()}
            outcome = "success" if self.run_step(step["run"], told) == 0 else "failure"
            outcomes[step["name"]] = outcome
            context["steps"][step.get("id", "")] = {"outcome": outcome}
            context["failed"] = context["failed"] or outcome == "failure"
        return outcomes

    def run_step(self, script: str, environment: Mapping[str, Any]) -> int:
        """Run one step's script; its exit code. What it printed is in `said`."""
        assert "${{" not in script  # what an event says must never be part of a script
        added = self.checkout / "github-path"
        paths = (
            [*added.read_text().split(), str(self._edge)] if added.exists() else [str(self._edge)]
        )
        told = {name: "" if value is None else str(value) for name, value in environment.items()}
        ran = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.checkout,
            env={
                "PATH": ":".join([*paths, os.environ["PATH"]]),
                "PYTHONPATH": str(ROOT),
                "GITHUB_PATH": str(added),
                "TOLLGATE_HOME": str(self.checkout / "nothing"),
                **self._environment,
                **told,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STEP_DEADLINE_S,
        )
        self.said = ran.stdout + ran.stderr
        return ran.returncode

    def _context(self, event: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
        github = {"event_name": event["name"], "event": event, "actor": "ada", "sha": "c0ffee"}
        return {"github": github, "inputs": inputs, "vars": self._vars}

    def _install(self) -> None:
        """What `make install` would make, so that it finds nothing to do."""
        programs = self.checkout / ".venv" / "bin"
        programs.mkdir(parents=True)
        tollgate = programs / "tollgate"
        tollgate.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli.main "$@"\n')
        tollgate.chmod(0o755)
        (self.checkout / ".venv" / "local.stamp").touch()
