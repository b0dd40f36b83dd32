"""The one error that users see.

In:  what is wrong, where, and what to do, in a sentence or two.
Out: an exception, which the scripts print without a traceback; exit code 2.
Paper: none.
See: tests/data/test_inputs.py
"""


class InputError(Exception):
    """What the user gave cannot be used. The message names the file, the problem and the remedy."""
