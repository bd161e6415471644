"""Deploy or update both functions with gcloud, and schedule sweeps.

python scripts/functions_deploy.py --help
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

FINALIZED = "google.cloud.storage.object.v1.finalized"
SWEEP = "tollgate.pipelines.sweep.v1"
SWEEP_JOB = "tollgate-sweep"
TIMEOUT_S = 300
"""Timeout of one delivery; PIPELINE_DEADLINE_SECONDS must be less."""


class Deployed(NamedTuple):
    """A function, and the option with the store that it watches."""

    entry_point: str
    store: str


FUNCTIONS = (
    Deployed("on_data_arrival", "data_store"),
    Deployed("on_model_release", "model_store"),
)


def main() -> None:
    options = parse(sys.argv[1:])
    for function in FUNCTIONS:
        command = deploy(function, options)
        print(shlex.join(command), flush=True)
        if subprocess.run(command).returncode:
            sys.exit(f"error: {function.entry_point} was not deployed")
    if options.sweep_schedule:
        schedule_sweep(options)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make functions-deploy", description=__doc__)
    parser.add_argument("folder", help="output folder of functions_build.py")
    required = parser.add_argument_group("required")
    required.add_argument("--project", required=True, help="Google Cloud project")
    required.add_argument("--region", required=True, help="where the functions run")
    required.add_argument("--data-store", required=True, type=place, help="gs://bucket[/prefix]")
    required.add_argument("--model-store", required=True, type=place, help="gs://bucket[/prefix]")
    required.add_argument("--records", required=True, type=place, help="gs://bucket[/prefix]")
    required.add_argument("--repository", required=True, help="owner/name on GitHub")
    required.add_argument(
        "--service-account", required=True, help="service account of the functions"
    )
    required.add_argument("--trigger-account", required=True, help="service account of Eventarc")
    github = parser.add_argument_group("GitHub: a token, or an App with all three")
    github.add_argument("--token-secret", help="secret with a fine-grained token")
    github.add_argument("--app-id")
    github.add_argument("--installation-id")
    github.add_argument("--key-secret", help="secret with the App's private key")
    sweep = parser.add_argument_group("finding lost drops")
    sweep.add_argument("--sweep-schedule", help="such as '*/15 * * * *'; default: no schedule")
    sweep.add_argument(
        "--sweep-account", help="service account of the schedule; default: --trigger-account"
    )
    sizes = parser.add_argument_group("sizes")
    sizes.add_argument("--bucket-location", help="location of the buckets; default: the region")
    sizes.add_argument("--memory", default="256Mi")
    sizes.add_argument("--max-instances", type=int, default=5)
    sizes.add_argument("--concurrency", type=int, default=4, help="events at once per instance")
    options = parser.parse_args(arguments)
    app = (options.app_id, options.installation_id, options.key_secret)
    if not options.token_secret and not all(app):
        parser.error("use --token-secret, or --app-id with --installation-id and --key-secret")
    return options


def place(url: str) -> str:
    """Check a gs:// URL.

    Raises:
        argparse.ArgumentTypeError: the URL has a different form.
    """
    if not url.startswith("gs://") or len(url) < 6:
        raise argparse.ArgumentTypeError("must be gs://bucket[/prefix]")
    return url


def deploy(function: Deployed, options: argparse.Namespace) -> list[str]:
    """Return the gcloud command for one function."""
    store: str = getattr(options, function.store)
    settings = {
        "PIPELINE_STORE": store,
        "PIPELINE_RECORDS": options.records,
        "PIPELINE_REPOSITORY": options.repository,
        # One thread per concurrent event.
        "THREADS": options.concurrency,
    }
    if options.token_secret:
        secrets = {"PIPELINE_GITHUB_TOKEN": f"{options.token_secret}:latest"}
    else:
        settings["PIPELINE_GITHUB_APP_ID"] = options.app_id
        settings["PIPELINE_GITHUB_INSTALLATION_ID"] = options.installation_id
        secrets = {"PIPELINE_GITHUB_PRIVATE_KEY": f"{options.key_secret}:latest"}
    flags = {
        "project": options.project,
        "region": options.region,
        "runtime": "python312",
        "source": f"{options.folder}/{function.entry_point}",
        "entry-point": function.entry_point,
        "trigger-location": options.bucket_location or options.region,
        "trigger-service-account": options.trigger_account,
        "service-account": options.service_account,
        "set-env-vars": join(settings),
        "set-secrets": join(secrets),
        "memory": options.memory,
        "cpu": "1",
        "timeout": f"{TIMEOUT_S}s",
        "concurrency": options.concurrency,
        "max-instances": options.max_instances,
        "ingress-settings": "internal-only",
    }
    bucket = store.removeprefix("gs://").partition("/")[0]
    return [
        "gcloud",
        "functions",
        "deploy",
        function.entry_point.replace("_", "-"),
        "--gen2",
        # Without retries, an event is lost if the function fails.
        "--retry",
        "--no-allow-unauthenticated",
        f"--trigger-event-filters=type={FINALIZED}",
        f"--trigger-event-filters=bucket={bucket}",
        *(f"--{name}={value}" for name, value in flags.items()),
    ]


def schedule_sweep(options: argparse.Namespace) -> None:
    """Create or update the Cloud Scheduler job that sends a CloudEvent to on_data_arrival."""
    where = [f"--project={options.project}", f"--region={options.region}"]
    describe = ["gcloud", "functions", "describe", "on-data-arrival", "--gen2", *where]
    described = subprocess.run(
        [*describe, "--format=value(serviceConfig.uri)"], stdout=subprocess.PIPE, text=True
    )
    url = described.stdout.strip()
    if described.returncode or not url:
        sys.exit("error: on_data_arrival has no URL; the sweep was not scheduled")
    where = [f"--project={options.project}", f"--location={options.region}"]
    existing = subprocess.run(
        ["gcloud", "scheduler", "jobs", "describe", SWEEP_JOB, *where], capture_output=True
    )
    verb, headers = ("create", "headers") if existing.returncode else ("update", "update-headers")
    event = {
        "Content-Type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": "sweep",
        "ce-type": SWEEP,
        "ce-source": "//cloudscheduler.googleapis.com",
    }
    command = [
        *("gcloud", "scheduler", "jobs", verb, "http", SWEEP_JOB, *where),
        f"--schedule={options.sweep_schedule}",
        f"--uri={url}",
        "--http-method=POST",
        f"--{headers}={join(event)}",
        "--message-body={}",
        f"--oidc-service-account-email={options.sweep_account or options.trigger_account}",
        f"--oidc-token-audience={url}",
        f"--attempt-deadline={TIMEOUT_S}s",
    ]
    print(shlex.join(command), flush=True)
    if subprocess.run(command).returncode:
        sys.exit("error: the sweep was not scheduled")


def join(pairs: Mapping[str, object]) -> str:
    return ",".join(f"{name}={value}" for name, value in pairs.items())


if __name__ == "__main__":
    main()
