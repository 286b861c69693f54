"""Refused by name: one source after another."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["HybridSource", "HybridSourceBuilder"],
    "use `union`",
)
