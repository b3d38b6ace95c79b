"""The exceptions that end a command, each with an exit code of its own."""


class UserError(Exception):
    """A failure the user can mend. The message is one line: what is wrong, where, and how to mend it.

    The command line prints it without a traceback and exits with code 2.
    """


class Failure(Exception):
    """Part of the work could not be done though the input was right; the command line exits with code 1."""


class Preempted(Exception):
    """Raised after an interrupt or SIGTERM once the checkpoint is safe; the command line exits with code 75."""
