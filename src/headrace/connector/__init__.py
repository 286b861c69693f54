"""The seam to the outside world: what a source and a sink are to the engine.

The engine knows nothing of Kafka. A `Source` and a `Sink` are frozen values; the engine asks them for the parts that do
the work, and only then is a client touched.

| value in the plan | on the coordinator | on the worker |
|---|---|---|
| `Source` | `SplitEnumerator`: which splits there are | `SourceReader`: their records, in batches |
| `Sink` | – | `SinkWriter`: records out; `Transaction`: a region's commit |
"""

from headrace.connector.batch import Batch, Origin, OriginalRecord
from headrace.connector.dead_letter import DeadLetter, ErrorPolicy, RecordTooLarge, Stage
from headrace.connector.sink import DeliveryGuarantee, Sink, SinkWriter, WriterContext
from headrace.connector.source import (
    Boundedness,
    JsonValue,
    Source,
    SourceChanged,
    SourceContext,
    SourceReader,
    Split,
    SplitEnumerator,
)
from headrace.connector.transaction import Transaction, TransactionContext, TransactionLost

__all__ = [
    "Batch",
    "Boundedness",
    "DeadLetter",
    "DeliveryGuarantee",
    "ErrorPolicy",
    "JsonValue",
    "Origin",
    "OriginalRecord",
    "RecordTooLarge",
    "Sink",
    "SinkWriter",
    "Source",
    "SourceChanged",
    "SourceContext",
    "SourceReader",
    "Split",
    "SplitEnumerator",
    "Stage",
    "Transaction",
    "TransactionContext",
    "TransactionLost",
    "WriterContext",
]
