"""`ExecutionConfig`: the settings of an environment that concern how its programs run."""

from __future__ import annotations

from headrace.common import options
from headrace.common.refusal import refuses
from headrace.common.settings import Settings

_JAVA = "it concerns Java's serializers; leave it out"
_CANCELLATION = "leave it out: a job that is cancelled ends at once"


@refuses(
    {
        "enable_force_kryo": _JAVA,
        "disable_force_kryo": _JAVA,
        "is_force_kryo_enabled": _JAVA,
        "enable_force_avro": _JAVA,
        "disable_force_avro": _JAVA,
        "is_force_avro_enabled": _JAVA,
        "enable_generic_types": _JAVA,
        "disable_generic_types": _JAVA,
        "has_generic_types_disabled": _JAVA,
        "get_default_kryo_serializer_classes": _JAVA,
        "get_registered_kryo_types": _JAVA,
        "get_registered_pojo_types": _JAVA,
        "enable_auto_generated_uids": "leave it out: operators without a uid get one",
        "disable_auto_generated_uids": "leave it out, and give each operator a `uid`",
        "has_auto_generated_uids_enabled": "leave it out: operators without a uid get one",
        "set_latency_tracking_interval": "leave it out: there are no latency markers",
        "get_latency_tracking_interval": "leave it out: there are no latency markers",
        "set_task_cancellation_interval": _CANCELLATION,
        "get_task_cancellation_interval": _CANCELLATION,
        "set_task_cancellation_timeout": _CANCELLATION,
        "get_task_cancellation_timeout": _CANCELLATION,
        "set_use_snapshot_compression": "leave it out: snapshots are written as they are",
        "is_use_snapshot_compression": "leave it out: snapshots are written as they are",
    }
)
class ExecutionConfig:
    """A view of an environment's settings: what is set here is set there.

    *Differences from PyFlink*: what has no meaning without Java is accepted without effect where that is harmless
    (closure cleaner, object reuse), and refused by name otherwise.
    """

    PARALLELISM_DEFAULT = -1
    PARALLELISM_UNKNOWN = -2

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def get_parallelism(self) -> int:
        return self._settings.read(options.PARALLELISM)

    def set_parallelism(self, parallelism: int) -> ExecutionConfig:
        if parallelism != ExecutionConfig.PARALLELISM_DEFAULT:
            self._settings.set(options.PARALLELISM, str(parallelism))
        return self

    def get_max_parallelism(self) -> int:
        return self._settings.read(options.MAX_PARALLELISM)

    def set_max_parallelism(self, max_parallelism: int) -> ExecutionConfig:
        self._settings.set(options.MAX_PARALLELISM, str(max_parallelism))
        return self

    def get_auto_watermark_interval(self) -> int:
        """Milliseconds between watermarks."""
        return self._settings.read(options.AUTO_WATERMARK_INTERVAL)

    def set_auto_watermark_interval(self, interval: int) -> ExecutionConfig:
        """Emit watermarks every so many milliseconds; 0: never."""
        self._settings.set(options.AUTO_WATERMARK_INTERVAL, f"{interval} ms")
        return self

    def get_global_job_parameters(self) -> dict[str, str]:
        parameters: dict[str, str] = self._settings.read(options.GLOBAL_JOB_PARAMETERS)
        return dict(parameters)

    def set_global_job_parameters(self, global_job_parameters_dict: dict[str, str]) -> ExecutionConfig:
        """What functions get from `RuntimeContext.get_job_parameter`."""
        entries = {str(key): str(value) for key, value in global_job_parameters_dict.items()}
        self._settings.set(options.GLOBAL_JOB_PARAMETERS, options.format_map(entries))
        return self

    def enable_object_reuse(self) -> ExecutionConfig:
        self._settings.set(options.OBJECT_REUSE, "true")
        return self

    def disable_object_reuse(self) -> ExecutionConfig:
        self._settings.set(options.OBJECT_REUSE, "false")
        return self

    def is_object_reuse_enabled(self) -> bool:
        return self._settings.read(options.OBJECT_REUSE)

    def enable_closure_cleaner(self) -> ExecutionConfig:
        """No effect: Python's closures need no cleaning."""
        return self

    def disable_closure_cleaner(self) -> ExecutionConfig:
        """No effect: Python's closures need no cleaning."""
        return self

    def is_closure_cleaner_enabled(self) -> bool:
        return False
