"""Refused by name: choosing a state backend by object."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["CustomStateBackend", "EmbeddedRocksDBStateBackend", "HashMapStateBackend", "PredefinedOptions", "StateBackend"],
    "leave it out: keyed state is kept in memory",
)
