"""Every error and warning that secateur raises on purpose.

Each error is also a built-in one (`ValueError`, `TypeError`, `ImportError`), so code that knows
nothing of secateur can still catch it. A message says what came, what was expected and how to mend it.
"""

import warnings


class SecateurError(Exception):
    """Base of all errors of this package."""


class InvalidArgumentError(SecateurError, ValueError):
    """An argument has a value, shape or dtype that cannot be used."""


class ArgumentTypeError(SecateurError, TypeError):
    """An argument is of a type that cannot be used."""


class NonFiniteError(SecateurError, ValueError):
    """A weight or saliency is NaN or infinite; the message names the tensor.

    Attributes:
        index: Which of the arrays given it is, so that a caller who knows its name can say it.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class FactorisationError(SecateurError, ValueError):
    """A matrix that should be positive definite is not; the message names the remedy."""


class UnsupportedModelError(SecateurError, ValueError):
    """A Keras model is not built, cannot be traced or cannot be cloned."""


class ProofError(SecateurError, ValueError):
    """A cut model does not compute what the original computes with the removed parts held at zero."""


class FileFormatError(SecateurError, ValueError):
    """A file is truncated, damaged, hostile or not one of ours."""


class TargetNotReachedError(SecateurError, RuntimeError):
    """Training or compression ended with less removed than was asked for; nothing was lost."""


class MissingDependencyError(SecateurError, ImportError):
    """An optional package is needed for this call; the message names the extra that installs it."""


class SecateurWarning(UserWarning):
    """Base of all warnings of this package."""


class TargetNotReachedWarning(SecateurWarning):
    """Less was removed than was asked for; the message says how much, where and why."""


class CutNotFasterWarning(SecateurWarning):
    """Layers that a cut makes smaller but, as timed on this machine, not faster."""


class CalibrationWarning(SecateurWarning):
    """Calibration data is thin, or was not read to its end; the message says how far."""


class DataOverlapWarning(SecateurWarning):
    """Held-out data is not held out: some of it occurs in the training data."""


def warn_calibration(message: str) -> None:
    """Warn that calibration data is thin, in the caller's caller's name."""
    warnings.warn(message, CalibrationWarning, stacklevel=3)
