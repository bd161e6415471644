"""Generate the TypeScript client from the services' OpenAPI documents, and compile it.

python scripts/client_typescript.py [folder]

The folder is by default clients/typescript; another one gets a copy of its sources first. Needs
Node.js and the npm registry.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "clients" / "typescript"
sys.path.insert(0, str(ROOT))

from registry.keys import create_signing_key  # noqa: E402
from services.auth.app import create_app as create_auth  # noqa: E402
from services.auth.settings import AuthSettings  # noqa: E402
from services.billing.app import create_app as create_billing  # noqa: E402
from services.billing.settings import BillingSettings  # noqa: E402
from services.inference.api.front import InferenceApp  # noqa: E402
from services.inference.app import create_app as create_inference  # noqa: E402
from services.inference.settings import InferenceSettings  # noqa: E402


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES
    if folder != SOURCES:
        copy_sources(folder)
    with tempfile.TemporaryDirectory() as home:
        documents = openapi_documents(Path(home))
    for name, document in documents.items():
        file = folder / "openapi" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(document, indent=1) + "\n")
    npm("ci", "--no-audit", "--no-fund", "--ignore-scripts", folder=folder)
    npm("run", "build", folder=folder)
    print(f"{folder / 'dist'}: compiled")


def copy_sources(folder: Path) -> None:
    """Copy what is committed, without what an earlier run has generated."""
    generated = shutil.ignore_patterns("node_modules", "dist", "openapi", "generated")
    shutil.copytree(SOURCES, folder, ignore=generated, dirs_exist_ok=True)


def openapi_documents(home: Path) -> dict[str, Any]:
    """Return the OpenAPI document of each service, by name.

    Args:
        home: an empty state folder; nothing is started.
    """
    trusted = home / "keys" / "trusted"
    create_signing_key(home / "keys" / "signing.pem", trusted)
    inference = create_inference(
        InferenceSettings(client_id="inference", client_secret="x", home=home, trusted_keys=trusted)
    )
    if not isinstance(inference, InferenceApp):
        raise TypeError("inference's app has another front")
    apps = {
        "auth": create_auth(AuthSettings(home=home)),
        "inference": inference.app,
        "billing": create_billing(BillingSettings(home=home)),
    }
    return {name: app.openapi() for name, app in apps.items()}


def npm(*arguments: str, folder: Path) -> None:
    """Run npm in a folder; exit with its output if it fails."""
    program = shutil.which("npm")
    if program is None:
        sys.exit("error: npm is not installed")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: npm {' '.join(arguments)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
