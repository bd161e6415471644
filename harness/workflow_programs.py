"""Fakes of the external programs that a workflow calls.

Each records its call. docker, gcloud and helm do little more; kubectl lists pods, forwards requests
to them, and runs Jobs as local processes.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn


def call(state: str, name: str, arguments: list[str]) -> NoReturn:
    """Handle one call as the program with this name.

    Args:
        state: the folder with the programs' state and the record of their calls.
    """
    folder = Path(state)
    with (folder / "calls").open("a") as calls:
        calls.write(json.dumps([name, *arguments]) + "\n")
    failing = folder / "failing"
    if failing.exists() and name in failing.read_text().split():
        sys.exit(1)
    if name == "gcloud":
        gcloud(folder, arguments)
    elif name == "helm" and arguments[:2] == ["get", "values"]:
        write(read(folder / "values", "null"))
    elif name == "kubectl":
        kubectl(folder, [word for word in arguments if not word.startswith("--request-timeout")])
    sys.exit(0)


def gcloud(folder: Path, arguments: list[str]) -> None:
    """Fetch a secret, or list the folders of the data bucket."""
    if "--out-file" in arguments:
        secret = arguments[arguments.index("--secret") + 1]
        shutil.copyfile(folder / "secrets" / secret, arguments[arguments.index("--out-file") + 1])
    elif arguments[:2] == ["storage", "ls"]:
        write(read(folder / "folders", ""))


def kubectl(folder: Path, arguments: list[str]) -> None:
    """List pods, read their metrics, or run a Job."""
    pods: dict[str, str] = json.loads(read(folder / "pods", "{}"))
    match arguments:
        case ["get", "--raw", path]:
            import urllib.request  # takes longer than everything else here

            pod = path.split("/pods/")[1].split(":")[0]
            with urllib.request.urlopen(f"{pods[pod]}/metrics", timeout=5) as response:
                write(response.read().decode())
        case ["get", "pods", *_]:
            items = [{"metadata": {"name": pod}, "status": {"phase": "Running"}} for pod in pods]
            write(json.dumps({"items": items}))
        case ["get", "cronjobs", *_]:
            template: dict[str, Any] = {
                "spec": {"template": {"spec": {"containers": [{"args": []}]}}}
            }
            cronjob = {"metadata": {"name": "release-check"}, "spec": {"jobTemplate": template}}
            write(json.dumps({"items": [cronjob]}))
        case ["apply", *_]:
            start(folder, json.load(sys.stdin), pods)
        case ["get", "job", name, *_]:
            write(json.dumps({"status": {"succeeded": int((folder / f"{name}.ended").exists())}}))
        case ["logs", *_]:
            name = next(word for word in arguments if word.startswith("job/")).partition("/")[2]
            [tail] = [word for word in arguments if word.startswith("--tail=")]
            lines = (folder / f"{name}.log").read_text().splitlines(keepends=True)
            write("".join(lines[-int(tail.partition("=")[2]) :]))


def start(folder: Path, job: dict[str, Any], pods: dict[str, str]) -> None:
    """Start a Job's command in the background."""
    name = job["metadata"]["name"]
    [container] = job["spec"]["template"]["spec"]["containers"]
    url = next(iter(pods.values()))
    words = [word.replace("$(TOLLGATE_INFERENCE_PODS)", url) for word in container["args"]]
    script = '"$@" >"$LOG" 2>&1; touch "$ENDED"'
    with Path(os.devnull).open("w") as nothing:
        subprocess.Popen(
            ["sh", "-c", script, "sh", sys.executable, "-m", "cli.main", *words],
            env=os.environ
            | {"LOG": str(folder / f"{name}.log"), "ENDED": str(folder / f"{name}.ended")},
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,
        )


def write(text: str) -> None:
    """Write to the caller."""
    sys.stdout.write(text)


def read(path: Path, default: str) -> str:
    """Return a file's text, or the default if there is no file."""
    return path.read_text() if path.exists() else default
