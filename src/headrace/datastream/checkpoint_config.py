"""`CheckpointConfig`: the settings of an environment that concern checkpoints."""

from __future__ import annotations

from headrace.common import Duration, options
from headrace.common.settings import Settings
from headrace.datastream.checkpointing_mode import CheckpointingMode
from headrace.datastream.externalized_checkpoint_retention import ExternalizedCheckpointRetention


class CheckpointConfig:
    """A view of an environment's settings: what is set here is set there. Times are in ms."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def is_checkpointing_enabled(self) -> bool:
        return self._settings.read(options.CHECKPOINT_INTERVAL) is not None

    def get_checkpointing_mode(self) -> CheckpointingMode:
        return CheckpointingMode[self._settings.read(options.CHECKPOINT_MODE)]

    def set_checkpointing_mode(self, checkpointing_mode: CheckpointingMode) -> CheckpointConfig:
        self._settings.set(options.CHECKPOINT_MODE, checkpointing_mode.name)
        return self

    def get_checkpoint_interval(self) -> int:
        """-1 where checkpoints are off."""
        return self._settings.read(options.CHECKPOINT_INTERVAL) or -1

    def set_checkpoint_interval(self, checkpoint_interval: int) -> CheckpointConfig:
        """At least 10 ms."""
        self._settings.set(options.CHECKPOINT_INTERVAL, f"{checkpoint_interval} ms")
        return self

    def get_checkpoint_timeout(self) -> int:
        return self._settings.read(options.CHECKPOINT_TIMEOUT)

    def set_checkpoint_timeout(self, checkpoint_timeout: int) -> CheckpointConfig:
        """At least 10 ms."""
        self._settings.set(options.CHECKPOINT_TIMEOUT, f"{checkpoint_timeout} ms")
        return self

    def get_min_pause_between_checkpoints(self) -> int:
        return self._settings.read(options.CHECKPOINT_MIN_PAUSE)

    def set_min_pause_between_checkpoints(self, min_pause_between_checkpoints: int) -> CheckpointConfig:
        self._settings.set(options.CHECKPOINT_MIN_PAUSE, f"{min_pause_between_checkpoints} ms")
        return self

    def get_max_concurrent_checkpoints(self) -> int:
        return self._settings.read(options.MAX_CONCURRENT_CHECKPOINTS)

    def set_max_concurrent_checkpoints(self, max_concurrent_checkpoints: int) -> CheckpointConfig:
        """1; more are refused."""
        self._settings.set(options.MAX_CONCURRENT_CHECKPOINTS, str(max_concurrent_checkpoints))
        return self

    def is_fail_on_checkpointing_errors(self) -> bool:
        return self.get_tolerable_checkpoint_failure_number() == 0

    def set_fail_on_checkpointing_errors(self, fail_on_checkpointing_errors: bool) -> CheckpointConfig:
        """False: however many checkpoints fail, the job goes on."""
        return self.set_tolerable_checkpoint_failure_number(0 if fail_on_checkpointing_errors else options.UNLIMITED)

    def get_tolerable_checkpoint_failure_number(self) -> int:
        return self._settings.read(options.TOLERABLE_FAILED_CHECKPOINTS)

    def set_tolerable_checkpoint_failure_number(self, tolerable_checkpoint_failure_number: int) -> CheckpointConfig:
        self._settings.set(options.TOLERABLE_FAILED_CHECKPOINTS, str(tolerable_checkpoint_failure_number))
        return self

    def is_externalized_checkpoints_enabled(self) -> bool:
        retention = self.get_externalized_checkpoint_retention()
        return retention is not ExternalizedCheckpointRetention.NO_EXTERNALIZED_CHECKPOINTS

    def get_externalized_checkpoint_retention(self) -> ExternalizedCheckpointRetention:
        return ExternalizedCheckpointRetention[self._settings.read(options.CHECKPOINT_RETENTION)]

    def set_externalized_checkpoint_retention(
        self, retention_mode: ExternalizedCheckpointRetention
    ) -> CheckpointConfig:
        self._settings.set(options.CHECKPOINT_RETENTION, retention_mode.name)
        return self

    def is_unaligned_checkpoints_enabled(self) -> bool:
        return self._settings.read(options.UNALIGNED_CHECKPOINTS)

    def enable_unaligned_checkpoints(self, enabled: bool = True) -> CheckpointConfig:
        """Refused, except to disable them."""
        self._settings.set(options.UNALIGNED_CHECKPOINTS, str(enabled))
        return self

    def disable_unaligned_checkpoints(self) -> CheckpointConfig:
        return self.enable_unaligned_checkpoints(False)

    def is_force_unaligned_checkpoints(self) -> bool:
        return self._settings.read(options.FORCE_UNALIGNED_CHECKPOINTS)

    def set_force_unaligned_checkpoints(self, force_unaligned_checkpoints: bool = True) -> CheckpointConfig:
        """Refused, except to disable them."""
        self._settings.set(options.FORCE_UNALIGNED_CHECKPOINTS, str(force_unaligned_checkpoints))
        return self

    def get_aligned_checkpoint_timeout(self) -> Duration:
        return Duration.of_millis(self._settings.read(options.ALIGNED_CHECKPOINT_TIMEOUT))

    def set_aligned_checkpoint_timeout(self, alignment_timeout: Duration) -> CheckpointConfig:
        """Refused, except for 0: checkpoints are aligned."""
        self._settings.set(options.ALIGNED_CHECKPOINT_TIMEOUT, f"{alignment_timeout.to_millis()} ms")
        return self

    def get_alignment_timeout(self) -> Duration:
        return self.get_aligned_checkpoint_timeout()

    def set_alignment_timeout(self, alignment_timeout: Duration) -> CheckpointConfig:
        """Refused, except for 0: checkpoints are aligned."""
        return self.set_aligned_checkpoint_timeout(alignment_timeout)
