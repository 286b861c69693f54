"""Refused by name: asynchronous functions."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["ExponentialBackoffDelayRetryStrategy", "FixedDelayRetryStrategy", "NoRetryStrategy", "RetryPredicate"],
    "there are no asynchronous functions; call what you need in a `map`",
)
