"""Refused by name: choosing checkpoint storage by object."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["CheckpointStorage", "CustomCheckpointStorage", "FileSystemCheckpointStorage", "JobManagerCheckpointStorage"],
    "set `execution.checkpointing.dir` in the Configuration",
)
