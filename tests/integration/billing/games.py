"""Games of Hypothesis' state machines."""

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def play(machine: type[RuleBasedStateMachine], *, games: int, steps: int) -> None:
    """Play games of a machine, each of at most so many steps."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=games, stateful_step_count=steps, deadline=None, database=None
        ),
    )
