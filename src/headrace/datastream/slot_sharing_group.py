"""Refused by name: slots and their resources."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["MemorySize", "SlotSharingGroup"],
    "leave it out: one machine has one slot",
)
