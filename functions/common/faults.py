"""What keeps an event from being finished now."""


class Unfinished(Exception):
    """The event is to be delivered again.

    Args:
        fix: what a person has to change first; empty for what passes by itself.
    """

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} {self.fix}" if self.fix else message
