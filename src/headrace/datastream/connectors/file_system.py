"""Refused by name: files."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    [
        "BucketAssigner",
        "BulkFormat",
        "FileCompactStrategy",
        "FileCompactor",
        "FileEnumeratorProvider",
        "FileSink",
        "FileSource",
        "FileSourceBuilder",
        "FileSplitAssignerProvider",
        "OutputFileConfig",
        "RollingPolicy",
        "StreamFormat",
        "StreamingFileSink",
    ],
    "files are not read or written; read from Kafka or a collection",
)
