"""Refused by name: asynchronous functions."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["empty_result_predicate", "exception_type_predicate", "has_exception_predicate"],
    "there are no asynchronous functions; call what you need in a `map`",
)
