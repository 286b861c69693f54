"""Refused by name: the Table API and SQL."""

from headrace.common.refusal import not_supported

raise not_supported(__name__, "use `headrace.datastream`: `map`, `filter`, `key_by`, `reduce` and process functions")
