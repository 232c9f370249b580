"""What can go wrong here, as types.

::

    ModelExportError
    ├── InputError            an option, a CSV file or a run folder is not what it has to be
    ├── StreamingError        a module cannot be streamed, and why
    └── VerificationError     a model file does not do what it promises

Every message is one line that says what is wrong, where, and what would be right.
"""


class ModelExportError(Exception):
    """The root of all errors that this package raises on purpose."""


class InputError(ModelExportError, ValueError):
    """An option, a CSV file or a run folder is not what it has to be."""


class StreamingError(ModelExportError, ValueError):
    """A module cannot be exported for streaming; the message says what in it prevents that."""


class VerificationError(ModelExportError):
    """A model file failed its verification; the message lists the checks that failed."""
