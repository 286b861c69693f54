"""Refused by name: the inside of PyFlink's workers."""

from headrace.common.refusal import not_supported

raise not_supported(__name__, "use `headrace.datastream.functions`: programs need nothing of what runs them")
