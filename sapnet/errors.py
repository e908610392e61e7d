"""Exception for user errors."""


class UserError(Exception):
    """An error in the user's input, such as a file, key or value; the message names it and suggests a solution.

    Commands print the message without a stack trace and exit with a non-zero code.
    """
