"""Compare two signatures: what would a model's callers notice?"""

from registry.records import Label, Manifest, Signature
from registry.value_rules import ValueRules
from trainer.errors import DataError
from trainer.types import kind_of_classes
from trainer.wording import listed

MAX_NAMED = 10
"""How many changes a message names."""


def list_changes(before: Signature, now: Signature) -> list[str]:
    """Return the changes that a model's callers would notice, each as a clause.

    Changes of kinds and classes come first, because a message may not have room for all.
    """
    kinds = {column.name: column.kind for column in before.columns}
    kinds_now = {column.name: column.kind for column in now.columns}
    changes = [
        f"column {name!r} was {kind} and is {kinds_now[name]}"
        for name, kind in kinds.items()
        if kinds_now.get(name, kind) != kind
    ]
    if before.target != now.target:
        changes.append(f"the target was {before.target!r} and is {now.target!r}")
    if before.task != now.task:
        changes.append(f"the task was {before.task} and is {now.task}")
    elif kind_of_classes(before.classes) != kind_of_classes(now.classes):
        kind, kind_now = kind_of_classes(before.classes), kind_of_classes(now.classes)
        changes.append(f"the target was {kind} and is {kind_now}")
    elif before.target == now.target:
        changes += _list_class_changes(before.classes or [], now.classes or [])
    changes += [f"column {name!r} is new" for name in kinds_now if name not in kinds]
    changes += [f"column {name!r} is missing" for name in kinds if name not in kinds_now]
    return changes + _list_rule_changes(before.value_rules, now.value_rules)


def accept_changes(before: Manifest | None, now: Signature, *, allowed: bool) -> list[str]:
    """Return the changes since the last version, if there is one.

    Args:
        allowed: whether the owner has said that callers are prepared.

    Raises:
        DataError: there are changes, and they are not allowed.
    """
    changes = [] if before is None else list_changes(before.signature, now)
    if before is not None and changes and not allowed:
        raise DataError(
            f"The signature differs from that of version {before.version}: {name_some(changes)}. "
            "If this is intended and callers are prepared, use --allow-signature-change."
        )
    return changes


def name_some(changes: list[str]) -> str:
    """Return the changes as a message names them."""
    return listed(changes, most=MAX_NAMED, separator="; ")


def _list_class_changes(before: list[Label], now: list[Label]) -> list[str]:
    return [
        *(f"class {label!r} is new" for label in now if label not in before),
        *(f"class {label!r} is gone" for label in before if label not in now),
    ]


def _list_rule_changes(before: ValueRules | None, now: ValueRules | None) -> list[str]:
    """Return changes in which words mean missing; older versions without rules do not compare."""
    if before is None or now is None:
        return []
    return [
        *(f"{text!r} now means missing" for text in now.missing if text not in before.missing),
        *(
            f"{text!r} no longer means missing"
            for text in before.missing
            if text not in now.missing
        ),
    ]
