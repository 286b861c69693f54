from __future__ import annotations

from typing import Any

import pytest

from headrace.common import Types
from headrace.errors import NotSupportedError
from headrace.functions import RuntimeContext, TimerService, ValueStateDescriptor


class Clock(TimerService):
    def current_processing_time(self) -> int:
        return 1

    def current_watermark(self) -> int:
        return 2


@pytest.mark.parametrize(
    "method",
    [
        "register_event_time_timer",
        "register_processing_time_timer",
        "delete_event_time_timer",
        "delete_processing_time_timer",
    ],
)
def test_timers_are_refused_by_name_on_any_timer_service(method: str) -> None:
    with pytest.raises(NotSupportedError, match=f"`TimerService.{method}` is not supported"):
        getattr(Clock(), method)(5)


@pytest.mark.parametrize("method", ["get_list_state", "get_map_state", "get_reducing_state", "get_aggregating_state"])
def test_other_kinds_of_state_are_refused_by_name(method: str) -> None:
    with pytest.raises(NotSupportedError, match=f"`RuntimeContext.{method}` .*`ValueState`"):
        getattr(RuntimeContext, method)(None, object())


def test_a_state_descriptor_has_a_name_and_no_time_to_live() -> None:
    descriptor = ValueStateDescriptor("count", Types.LONG())
    assert (descriptor.get_name(), descriptor.type_info) == ("count", Types.LONG())
    refused: Any = descriptor
    with pytest.raises(NotSupportedError, match="enable_time_to_live"):
        refused.enable_time_to_live(object())
    with pytest.raises(ValueError, match="needs a name"):
        ValueStateDescriptor("", Types.LONG())
