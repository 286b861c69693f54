"""Flink's Kafka connector and the DataStream API, native in Python."""

__version__ = "0.1.0.dev0"
