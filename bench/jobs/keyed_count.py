"""A running count per key, each update written."""

from collections.abc import Iterator

import orjson
from ends import BYTES, arguments, environment, sink, source
from headrace.common import Types, WatermarkStrategy
from headrace.datastream.functions import KeyedProcessFunction, RuntimeContext
from headrace.datastream.state import ValueStateDescriptor


class Count(KeyedProcessFunction):
    def open(self, runtime_context: RuntimeContext) -> None:
        self.count = runtime_context.get_state(ValueStateDescriptor("count", Types.LONG()))

    def process_element(self, value: str, ctx: KeyedProcessFunction.Context) -> Iterator[bytes]:
        number = (self.count.value() or 0) + 1
        self.count.update(number)
        yield orjson.dumps({"source": value, "count": number})


options = arguments()
env = environment(options)
(
    env.from_source(source(options), WatermarkStrategy.no_watermarks(), "items")
    .map(lambda record: orjson.loads(record)["source"], output_type=Types.STRING())
    .key_by(lambda key: key, key_type=Types.STRING())
    .process(Count(), output_type=BYTES)
    .sink_to(sink(options))
)
env.execute("keyed count")
