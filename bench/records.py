"""The input: JSON records of 170 bytes, each with a key out of 5,000. Record `i` is always the same bytes."""

from __future__ import annotations

SIZE_BYTES = 170
KEYS = 5_000

_TITLES = (
    "markets wait for the central bank to speak",
    "rain in the north delays the wheat harvest",
    "copper rises as the strike enters day nine",
    "two ports reopen after a week of high wind",
)


def record(number: int) -> bytes:
    """Record `number`: a news item, padded to `SIZE_BYTES`.

    >>> len(record(0)) == len(record(9_999_999)) == SIZE_BYTES
    True
    """
    text = (
        f'{{"id":{number},"source":"{key(number)}","title":"{_TITLES[number % 4]}",'
        f'"published_at":{1_700_000_000_000 + number},"price":{0.1 + number % 89 / 100:.2f},"note":"'
    )
    return f'{text:x<{SIZE_BYTES - 2}}"}}'.encode()


def key(number: int) -> str:
    """The key of record `number`: 5,000 keys in an order without runs."""
    return f"source-{number * 2_654_435_761 % (1 << 32) % KEYS:04}"


def altered(item: dict[str, object], number: int) -> bool:
    """Whether a parsed output is record `number` with its one field changed, and nothing else of it touched."""
    return (
        item.get("id") == number
        and item.get("source") == key(number)
        and item.get("title") == _TITLES[number % 4].upper()
        and item.get("published_at") == 1_700_000_000_000 + number
        and len(item) == 6
    )
