"""State descriptors and handles, where PyFlink has them."""

from headrace.common.refusal import refuse_names
from headrace.functions import State, StateDescriptor, ValueState, ValueStateDescriptor

__all__ = ["State", "StateDescriptor", "ValueState", "ValueStateDescriptor"]

_STATE = "keep a value of your own kind (a list, a dict) in a `ValueState`"
_BROADCAST = "there is no broadcast state yet"

__getattr__ = refuse_names(
    __name__,
    {
        "AggregatingState": _STATE,
        "AggregatingStateDescriptor": _STATE,
        "BroadcastState": _BROADCAST,
        "ListState": _STATE,
        "ListStateDescriptor": _STATE,
        "MapState": _STATE,
        "MapStateDescriptor": _STATE,
        "OperatorStateStore": _BROADCAST,
        "ReadOnlyBroadcastState": _BROADCAST,
        "ReducingState": _STATE,
        "ReducingStateDescriptor": _STATE,
        "StateTtlConfig": "clear state in the function itself",
    },
)
