"""The one exception for mistakes a user can mend."""


class UserError(Exception):
    """A mistake in what the user gave (a file, a key, a value): one sentence that names it and the way out.

    Commands print the sentence without a stack trace and exit with a non-zero status.
    """
