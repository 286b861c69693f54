"""Bytes in, the same bytes out."""

from ends import arguments, environment, sink, source
from headrace.common import WatermarkStrategy

options = arguments()
env = environment(options)
env.from_source(source(options), WatermarkStrategy.no_watermarks(), "items").sink_to(sink(options))
env.execute("bytes through")
