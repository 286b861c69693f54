"""JSON in, one field changed, JSON out."""

import orjson
from ends import BYTES, arguments, environment, sink, source
from headrace.common import WatermarkStrategy


def enrich(record: bytes) -> bytes:
    item = orjson.loads(record)
    item["title"] = item["title"].upper()
    return orjson.dumps(item)


options = arguments()
env = environment(options)
(
    env.from_source(source(options), WatermarkStrategy.no_watermarks(), "items")
    .map(enrich, output_type=BYTES)
    .sink_to(sink(options))
)
env.execute("json map")
