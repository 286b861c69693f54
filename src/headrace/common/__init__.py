"""What programs are written in, as `pyflink.common`: types, rows, settings, watermark strategies, schemas."""

from headrace.common.completable_future import CompletableFuture
from headrace.common.config_options import ConfigOption, ConfigOptions
from headrace.common.configuration import Configuration
from headrace.common.execution_config import ExecutionConfig
from headrace.common.job_client import JobClient
from headrace.common.job_execution_result import JobExecutionResult
from headrace.common.job_id import JobID
from headrace.common.job_status import JobStatus
from headrace.common.refusal import refuse_names
from headrace.common.serialization import (
    MOVED_SCHEMAS,
    ByteArraySchema,
    DeserializationSchema,
    SerializationSchema,
    SimpleStringSchema,
)
from headrace.common.time import Duration, Instant, Time
from headrace.common.typeinfo import TypeInformation, Types
from headrace.common.types import Row, RowKind
from headrace.common.watermark_strategy import (
    TimestampAssigner,
    WatermarkGenerator,
    WatermarkOutput,
    WatermarkStrategy,
)

__all__ = [
    "ByteArraySchema",
    "CompletableFuture",
    "ConfigOption",
    "ConfigOptions",
    "Configuration",
    "DeserializationSchema",
    "Duration",
    "ExecutionConfig",
    "Instant",
    "JobClient",
    "JobExecutionResult",
    "JobID",
    "JobStatus",
    "Row",
    "RowKind",
    "SerializationSchema",
    "SimpleStringSchema",
    "Time",
    "TimestampAssigner",
    "TypeInformation",
    "Types",
    "WatermarkGenerator",
    "WatermarkOutput",
    "WatermarkStrategy",
]

__getattr__ = refuse_names(
    __name__,
    {
        "AssignerWithPeriodicWatermarksWrapper": "use `WatermarkStrategy` and a `TimestampAssigner`",
        "Encoder": "it belongs to file sinks; write to Kafka with a `SerializationSchema`",
        "InputDependencyConstraint": "leave it out: all operators start together",
        "RestartStrategies": "Flink 2 removed it; set `restart-strategy.type` in the Configuration",
        "RestartStrategyConfiguration": "Flink 2 removed it; set `restart-strategy.type` in the Configuration",
        "TypeSerializer": "leave it out: state is stored without serializers of yours",
    },
    moved=MOVED_SCHEMAS,
)
