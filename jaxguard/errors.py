"""Exceptions that end a command, each with its own exit code."""


class UserError(Exception):
    """An error that the user can fix. The message is one line: what is wrong, where, and how to fix it.

    The command line prints it without a traceback and exits with code 2.
    """


class Failure(Exception):
    """Part of the work failed although the input was valid; the command line exits with code 1."""


class Preempted(Exception):
    """Raised after an interrupt or SIGTERM, once the checkpoint is saved; the command line exits with code 75."""
