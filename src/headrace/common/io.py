"""Refused by name: Java input formats."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(__name__, ["InputFormat"], "it wraps a Java object; read with `from_source`")
