"""Refused by name: PyFlink's bridge to Java."""

from headrace.common.refusal import not_supported

raise not_supported(__name__, "leave it out: there is no JVM, and no jar to load")
