"""What the demonstration's job reads: news items and hourly prices, the same ones every time but for their times."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

NEWS, PRICES, COUNTS = "rss.events", "polymarket.price_hourly", "rss.counts"
TOPICS = {NEWS: 4, PRICES: 1, COUNTS: 4}
"""Name → partitions."""

_SOURCES = 40
_DAY_MS = 86_400_000
_CHUNK = 10_000
_NEWS = (
    b'{"id":%d,"ts":%d,"source":"%s","title":"Markets move as item %d is published, and analysts disagree",'
    b'"url":"https://%s/%d","language":"en"}'
)
_PRICE = b'{"market":%d,"ts":%d,"source":"polymarket.com","price":0.%02d}'


def news(count: int, now_ms: int) -> Iterator[tuple[list[bytes], Counter[str]]]:
    """News items of about 170 bytes over the last day, in chunks, each with its number of items by source.

    A few sources write most of it, as in life.
    """
    draw = random.Random(7)
    names = [b"source-%02d.example" % number for number in range(_SOURCES)]
    weights = [1 / (number + 1) for number in range(_SOURCES)]
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        sources = draw.choices(names, weights, k=size)
        first_ms = now_ms - _DAY_MS + start * _DAY_MS // count
        values = [
            _NEWS % (number, first_ms + number - start, source, number, source, number)
            for number, source in enumerate(sources, start)
        ]
        yield values, Counter(source.decode() for source in sources)


def prices(count: int, now_ms: int) -> tuple[list[bytes], Counter[str]]:
    """Hourly prices of many markets, and their number by source."""
    values = [_PRICE % (number, now_ms - (count - number) * _DAY_MS // count, number % 100) for number in range(count)]
    return values, Counter({"polymarket.com": count})
