"""Audit a whole model store: find what readers would refuse and what Tollgate would never write.

Everything is read and nothing is trusted. Releases are read in parallel because a store may be
remote.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from registry.deprecations import find_deprecation_record
from registry.keys import TrustedKeys
from registry.records import Manifest, VersionNotFound, VersionRefused, Withdrawal
from registry.store import ModelStore, ReleaseRecord

READS_AT_ONCE = 16
WRITTEN_BESIDE_FILES = {"manifest.json", "manifest.sig"}
DRAFT = re.compile(r"\.[0-9a-f]{16}\.tmp")
"""A temporary file that a killed writer leaves behind; it is never read."""
KNOWN_PATH = re.compile(
    r"versions/[0-9]{8}t[0-9]{6}z-[0-9a-f]{8}/[^/]+|(releases|pins|deprecations)/[0-9]{8}\.json"
    r"|once/[0-9a-f]{64}\.json"
)
RUN_PATH = re.compile(r"once/([0-9a-f]{64})\.json")

Report = Callable[[str, float], None]


@dataclass
class Verification:
    """The number of versions and releases checked, and a sentence for each failure."""

    checked: int = 0
    failures: list[str] = field(default_factory=list)


def verify_store(store: ModelStore, trusted: TrustedKeys, *, report: Report) -> Verification:
    """Check every version with its files, every release record, and that no number is missing.

    Args:
        report: receives the name of the current item and the share of work done.

    Raises:
        StoreError: the store cannot be read.
    """
    verification = Verification()
    models = []
    for name, is_model in store.list_top():
        if is_model:
            models.append(name)
        elif not DRAFT.fullmatch(name):
            verification.failures.append(
                f"The store contains {ascii(name)[:200]}, which is not a model."
            )
    for index, model in enumerate(models):
        paths = store.list_files(model)
        verification.failures += _unknown_files(model, paths)
        versions = store.list_versions(model)
        manifests = {}
        for done, version in enumerate(versions):
            share = (index + done / (len(versions) + 1)) / len(models)
            report(f"{model} {version}", share)
            try:
                manifests[version] = store.open_version(model, version, trusted)
                verification.failures += _failures_of_files(store, manifests[version], paths)
            except (VersionNotFound, VersionRefused) as error:
                verification.failures.append(str(error))
        numbers, strays = store.split_releases(model)
        report(f"{model} releases: {len(numbers)}", (index + 1) / len(models))
        verification.failures += _failures_of_releases(store, model, numbers, manifests)
        verification.failures += [stray_release(model, number) for number in strays]
        verification.failures += _failures_of_pins(store, model)
        verification.failures += _failures_of_deprecations(store, model, versions)
        verification.failures += _failures_of_runs(store, model, paths, versions)
        verification.checked += len(versions) + len(numbers)
    return verification


def stray_release(model: str, number: int) -> str:
    """Return the sentence about a release record far beyond the sequence."""
    return f"Release {number} of '{model}' is far beyond the sequence and is ignored."


def _unknown_files(model: str, paths: list[str]) -> Iterator[str]:
    for path in paths:
        if not KNOWN_PATH.fullmatch(path) and not DRAFT.fullmatch(path.rpartition("/")[2]):
            yield f"Unknown file {ascii(path)[:200]} in the folder of '{model}'."


def _failures_of_files(store: ModelStore, manifest: Manifest, paths: list[str]) -> Iterator[str]:
    folder = f"versions/{manifest.version}/"
    for name in manifest.files:
        try:
            store.read_file(manifest, name)
        except VersionRefused as error:
            yield str(error)
    existing = {path.removeprefix(folder) for path in paths if path.startswith(folder)}
    for name in sorted(existing - manifest.files.keys() - WRITTEN_BESIDE_FILES):
        if not DRAFT.fullmatch(name):
            what = f"{ascii(name)[:200]} of '{manifest.model}' {manifest.version}"
            yield f"The manifest does not list {what}."


def _failures_of_releases(
    store: ModelStore, model: str, numbers: list[int], manifests: dict[str, Manifest]
) -> Iterator[str]:
    """Yield a sentence for each failure.

    Args:
        manifests: those of the valid versions, by version.
    """
    for number in sorted(set(range(1, max(numbers, default=0))) - set(numbers)):
        yield f"Release {number} of '{model}' is missing, but later releases exist."
    digests = {version: store.manifest_sha256(model, version) for version in manifests}

    def check(number: int) -> list[str]:
        try:
            release = store.find_record(model, number)
        except VersionRefused as error:
            return [str(error)]
        if release is None:
            return [f"Release {number} of '{model}' is not a file."]
        problems = _failures_of_release(release, manifests, digests)
        return [f"Release {number} of '{model}' {what}." for what in problems]

    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        for failures in pool.map(check, numbers):
            yield from failures


def _failures_of_release(
    release: ReleaseRecord, manifests: dict[str, Manifest], digests: dict[str, str]
) -> Iterator[str]:
    if release.previous != (release.number - 1 or None):
        yield f"names release {release.previous} as the previous one"
    if isinstance(release, Withdrawal):
        return
    for target in (release, release.canary, release.shadow):
        if target is None:
            continue
        manifest = manifests.get(target.version)
        if manifest is None:
            yield f"names version {target.version}, which is missing or invalid"
        elif manifest.gate == "failed":
            yield f"names version {target.version}, which failed its gate"
    if digests.get(release.version, release.manifest_sha256) != release.manifest_sha256:
        yield "was made for another manifest"


def _failures_of_pins(store: ModelStore, model: str) -> Iterator[str]:
    for number in store.list_pins(model):
        try:
            if store.find_pin(model, number) is None:
                yield f"Pin {number} of '{model}' is not a file."
        except VersionRefused as error:
            yield str(error)


def _failures_of_deprecations(store: ModelStore, model: str, versions: list[str]) -> Iterator[str]:
    for number in store.list_numbers(model, "deprecations"):
        try:
            record = find_deprecation_record(store, model, number)
        except VersionRefused as error:
            yield str(error)
            continue
        if record is None:
            yield f"Deprecation {number} of '{model}' is not a file."
        elif record.version not in versions:
            what = f"Deprecation {number} of '{model}'"
            yield f"{what} names version {record.version}, which does not exist."


def _failures_of_runs(
    store: ModelStore, model: str, paths: list[str], versions: list[str]
) -> Iterator[str]:
    """Yield a sentence for each bad run record: it would keep data from being trained on."""
    for path in paths:
        if match := RUN_PATH.fullmatch(path):
            try:
                run = store.read_run(model, match[1])
            except VersionRefused as error:
                yield f"{str(error)[:-1]}: {path}."
                continue
            if run is not None and run.version not in versions:
                record = f"The run record {path} of '{model}'"
                yield f"{record} names version {run.version}, which does not exist."
