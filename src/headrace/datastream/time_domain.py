"""`TimeDomain`, where PyFlink has it."""

from headrace.functions import TimeDomain

__all__ = ["TimeDomain"]
