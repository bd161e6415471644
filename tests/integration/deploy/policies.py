"""Evaluate network policies as a network plugin does, for the parts that the chart uses."""

from collections.abc import Mapping, Sequence

from tests.integration.deploy.chart import Manifest

Labels = Mapping[str, str]


def selects(selector: Manifest, labels: Labels) -> bool:
    """Return whether a label selector, of the two kinds in the chart, selects a pod."""
    return all(
        labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()
    ) and all(
        each["operator"] == "In" and labels.get(each["key"]) in each["values"]
        for each in selector.get("matchExpressions", [])
    )


def may_call(policies: Sequence[Manifest], caller: Labels, called: Labels) -> bool:
    """Return whether the policies of a namespace let one of its pods call another's port `http`."""
    if not policies:
        return True

    def rules(labels: Labels, direction: str) -> list[Manifest]:
        return [
            rule
            for policy in policies
            if selects(policy["spec"]["podSelector"], labels)
            for rule in policy["spec"].get(direction, [])
        ]

    return _allows(rules(caller, "egress"), "to", called) and _allows(
        rules(called, "ingress"), "from", caller
    )


def _allows(rules: Sequence[Manifest], side: str, labels: Labels) -> bool:
    """Return whether a rule admits a pod of the same namespace on port `http`."""
    return any(
        any(entry.get("port") == "http" for entry in rule.get("ports", [{"port": "http"}]))
        and (
            side not in rule
            or any(
                "namespaceSelector" not in peer and selects(peer.get("podSelector", {}), labels)
                for peer in rule[side]
                if "ipBlock" not in peer
            )
        )
        for rule in rules
    )
