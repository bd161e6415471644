"""A process that repeatedly releases and rolls back.

    python -m tests.integration.trainer.writer <turns> <version> [version ...]

The store and keys come from the environment, as for `tollgate models`. It prints "ready", starts
at the first line on stdin, and prints each record that it wrote, one per line.
"""

import sys

from registry.records import ReleaseTaken
from registry.releases import NoVersion, ReleaseManager
from registry.store import ModelStore
from trainer.settings import TrainerSettings


def main() -> None:
    settings = TrainerSettings.load()
    store = ModelStore(settings.model_store_url)
    release_manager = ReleaseManager(
        store=store, trusted=settings.load_trusted_keys(), by=settings.actor
    )
    turns, versions = int(sys.argv[1]), sys.argv[2:]
    store.list_releases("wine")  # finish all lazy imports before the race
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for turn in range(turns):
        try:
            if turn % 4 == 3:
                decision = release_manager.roll_back("wine")
            else:
                decision = release_manager.release("wine", version=versions[turn % len(versions)])
        except (ReleaseTaken, NoVersion):
            continue
        if decision.written:
            sys.stdout.write(decision.live.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
