"""How a long step tells whoever is watching how far it is. Knows nothing of rows, queues or terminals."""

from collections.abc import Callable

Progress = Callable[[str, float, str], None]
"""Called with the stage's name, the share of it that is done (0 to 1) and one line of text."""


def ignore_progress(stage: str, done: float, message: str) -> None:
    """The progress of somebody who is not watching."""


def do_nothing() -> None:
    """What is yielded to where nobody waits."""


def yielding(progress: Progress, yield_to: Callable[[], None]) -> Progress:
    """The same progress, for steps that let others go first whenever they tell how far they are."""

    def tell(stage: str, done: float, message: str) -> None:
        progress(stage, done, message)
        yield_to()

    return tell
