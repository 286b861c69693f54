"""Restart strategies are settings: `restart-strategy.type` and what belongs to it. Flink 2 has no objects for them."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["RestartStrategies", "RestartStrategyConfiguration"],
    "Flink 2 removed it; set `restart-strategy.type` and its options in the Configuration",
)
