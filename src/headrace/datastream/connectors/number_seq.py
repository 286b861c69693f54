"""Refused by name: a sequence of numbers."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["NumberSequenceSource"],
    "use `from_collection(range(start, end + 1))`",
)
