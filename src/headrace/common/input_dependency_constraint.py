"""Refused by name: when the tasks of a batch job are scheduled."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(__name__, ["InputDependencyConstraint"], "leave it out: all operators start together")
