"""The two kinds of error: the user's input (`UserError`) and a defect of this software (`InternalError`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Input that cannot be worked with; the message is one sentence: what, where, why, what to do.

    Attributes:
        exit_code: What a command returns to the shell (2 = bad input or usage, 1 = a failed parity or gate).
    """

    exit_code = 2


class GateError(UserError):
    """A proof or measurement that came out red: parity, verification, a speed gate."""

    exit_code = 1


class InternalError(Exception):
    """A state that this software promises never to reach; please report it."""


def guard(command: Callable[[], int | None]) -> int:
    """Runs a command's body and turns a `UserError` into one line on stderr and its exit code.

    Args:
        command: The body; its return value is the exit code, `None` meaning 0.

    Returns:
        The exit code for the shell.
    """
    try:
        return command() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); leave without a second error at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
