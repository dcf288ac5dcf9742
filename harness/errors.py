"""Everything that can keep us from measuring, in one small tree.

HarnessError       something kept us from measuring
  ConfigError      the request makes no sense              change the arguments
  DataError        a file or array is not as described     restore it or describe it anew
    NotAvailable   a file, package or device is absent     run the command it names
      DataAbsent     a file of data is, and nothing else     fetch it, or go without
      CannotResolve  the rows are too few to tell            score more of them
  ModelError       a model cannot load or predict          see the adapter it names
  NotConverged     a procedure ran out of steps            carries the last state

A refuted claim is an AssertionError; a missing file, GPU or package is `not run` with its reason.
Keep the three apart: only a refuted claim says anything about the model.

What was mended or done without is no error: a `Remark`, and the numbers are right.
"""

from __future__ import annotations


class HarnessError(Exception):
    """Something kept us from measuring. The message says what, the values, and what to do next."""


class ConfigError(HarnessError):
    """The request makes no sense: an option, a name or a setting. Change the arguments."""


class DataError(HarnessError):
    """A file or array is not as described. Restore it, or describe it anew."""


class ModelError(HarnessError):
    """A model cannot load or predict."""


class NotConverged(HarnessError):
    """A procedure ran out of steps. ``last`` carries the state it had reached."""

    def __init__(self, message: str, last: object = None) -> None:
        super().__init__(message)
        self.last = last


class NotAvailable(DataError):
    """A file, package or device that this needs is not on this machine.

    Not a fault: a check that meets it is `not run`, and the message is its reason. It names the
    one command that would make the thing available.
    """


class DataAbsent(NotAvailable):
    """Data that a claim is about are not on this machine, which says nothing about the claim."""


class CannotResolve(NotAvailable):
    """So few rows, or rows so unequal, that not even a large fault would be told from the bound."""


class Remark(UserWarning):
    """Something was mended or done without, such as a damaged file of the cache. Numbers are right.

    A session goes on with it, also where other warnings are errors.
    """
