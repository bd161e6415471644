"""The error for an event that cannot be finished now."""


class Unfinished(Exception):
    """The event must be delivered again.

    Args:
        fix: what a person must change first; empty for a transient failure.
    """

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} {self.fix}" if self.fix else message
