"""Refused by name: wrappers of Java objects."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(__name__, ["JavaObjectWrapper"], "there is no Java here; use the Python classes")
