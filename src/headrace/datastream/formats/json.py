"""Refused by name: JSON."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["JsonRowDeserializationSchema", "JsonRowSerializationSchema"],
    "use any callable as schema: `json.loads`, or `msgspec.json.decode`",
)
