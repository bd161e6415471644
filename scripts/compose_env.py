"""Create .env for docker-compose.yml, with generated passwords and mode 0600.

python scripts/compose_env.py [domain]

Existing values are kept, so this can be repeated. A domain also sets the public URLs and enables
the `https` profile; another domain replaces the first.
"""

import os
import secrets
import sys
from pathlib import Path

ENV = Path(".env")
SECRETS = (
    "MYSQL_ROOT_PASSWORD",
    "MYSQL_AUTH_PASSWORD",
    "MYSQL_BILLING_PASSWORD",
    "MYSQL_BACKUP_PASSWORD",
    "AUTH_ADMIN_PASSWORD",
    "AUTH_PASSPHRASE",
    "CONSOLE_SECRET",
    "INFERENCE_CLIENT_SECRET",
    "GRAFANA_PASSWORD",
)
HEADER = """\
# Local to this installation: read by docker compose, kept by `make compose-env`, never committed.
# .env.example lists the other settings.
"""


def main() -> None:
    domain = sys.argv[1] if len(sys.argv) > 1 else ""
    lines = ENV.read_text().splitlines() if ENV.exists() else HEADER.splitlines()
    values = {name: secrets.token_hex(24) for name in SECRETS if not value_of(name, lines)}
    if domain:
        values |= public_settings(domain, profiles=value_of("COMPOSE_PROFILES", lines))
    kept = [line for line in lines if line.partition("=")[0] not in values]
    write("\n".join([*kept, *(f"{name}={value}" for name, value in values.items())]) + "\n")
    print(f"{ENV}: {', '.join(values) or 'nothing was missing'}")


def public_settings(domain: str, *, profiles: str) -> dict[str, str]:
    """Return the settings of a public installation with HTTPS under `domain`.

    `profiles` are the enabled profiles, separated by commas; they stay enabled.
    """
    origins = ",".join(f"https://{name}.{domain}" for name in ("auth", "inference", "billing"))
    return {
        "TOLLGATE_DOMAIN": domain,
        "AUTH_ISSUER": f"https://auth.{domain}",
        "INFERENCE_PUBLIC_URL": f"https://inference.{domain}",
        "BILLING_PUBLIC_URL": f"https://billing.{domain}",
        "AUTH_CORS_ORIGINS": origins,
        "CONSOLE_PUBLIC_URL": f"https://console.{domain}",
        "COMPOSE_PROFILES": ",".join(sorted({*filter(None, profiles.split(",")), "https"})),
    }


def value_of(name: str, lines: list[str]) -> str:
    """Return the last value of a variable in the lines, or an empty string."""
    values = [line.partition("=")[2].strip() for line in lines if line.partition("=")[0] == name]
    return values[-1] if values else ""


def write(text: str) -> None:
    """Replace .env atomically; it is never readable by others."""
    draft = ENV.with_name(f".env.{secrets.token_hex(4)}.tmp")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(ENV)


if __name__ == "__main__":
    main()
