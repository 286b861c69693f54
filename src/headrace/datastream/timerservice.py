"""`TimerService`, where PyFlink has it."""

from headrace.functions import TimerService

__all__ = ["TimerService"]
