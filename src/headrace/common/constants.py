"""Limits of Flink's longs, which timestamps and watermarks are, and the name of the main output."""

MAX_LONG_VALUE = 0x7FFFFFFFFFFFFFFF
MIN_LONG_VALUE = -MAX_LONG_VALUE - 1
DEFAULT_OUTPUT_TAG = ""
