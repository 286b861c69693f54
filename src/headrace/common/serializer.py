"""Refused by name: serializers of PyFlink's own namespaces."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(__name__, ["TypeSerializer"], "leave it out: state is stored without serializers of yours")
