"""What a user reads instead of a library's messages."""

from __future__ import annotations

import logging
import re
import warnings

from runtime.errors import UserError


def sentence(message: str) -> str:
    """The parser's message without the types that it tried in turn."""
    if unknown := re.search(r"Option '([\w.]+)' is not accepted", message):
        message = f"setting {unknown[1]!r} does not exist"
    return " ".join(message.split()) + "; `python -m train COMMAND --help` lists all settings"


def behind(error: BaseException) -> UserError | None:
    """The refusal that made a library's error: the parser tries types in turn, and wraps what each of them says."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    return cause


def from_worker(error: UserError) -> UserError:
    """The error itself, where a process that prepares batches raised it and torch wrapped it into its traceback."""
    lines = str(error).strip().splitlines()
    if len(lines) < 2 or not lines[0].startswith("Caught "):
        return error
    return type(error)(lines[-1].split(f"{type(error).__name__}: ", 1)[-1])


QUIET = (
    ".*does not have many workers.*",
    ".*Consider increasing the value of the `num_workers`.*",
    ".*The number of training batches .* is smaller than the logging interval.*",
    ".*Experiment logs directory .* exists and is not empty.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*The dirpath has changed from.*",
    ".*Total length of `(list|DataLoader)` across ranks is zero.*",
    ".*`training_step` returned `None`.*",
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",
)


def quieten() -> None:
    """Silences advice that does not apply here."""
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
