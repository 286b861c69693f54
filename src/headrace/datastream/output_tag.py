"""Refused by name: side outputs."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["OutputTag"],
    "there are no side outputs; use a `filter` for each output",
)
