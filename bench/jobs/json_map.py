"""JSON in, one field changed, JSON out."""

from time import thread_time_ns

import orjson
from ends import BYTES, arguments, environment, sink, source
from headrace.common import WatermarkStrategy


def enrich(record: bytes) -> bytes:
    item = orjson.loads(record)
    item["title"] = item["title"].upper()
    return orjson.dumps(item)


def enrich_slowly(record: bytes) -> bytes:
    until = thread_time_ns() + work_ns
    while thread_time_ns() < until:
        pass
    return enrich(record)


options = arguments()
work_ns = options.work_us * 1000
env = environment(options)
(
    env.from_source(source(options), WatermarkStrategy.no_watermarks(), "items")
    .map(enrich_slowly if work_ns else enrich, output_type=BYTES)
    .sink_to(sink(options))
)
env.execute("json map")
