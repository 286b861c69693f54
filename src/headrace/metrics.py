"""Refused by name: a program's own metrics."""

from headrace.errors import NotSupportedError

# Not `common.refusal`, which is above metrics.
raise NotSupportedError(
    f"`{__name__}` is not supported by Headrace; leave it out: there are no metrics of a program's own"
)
