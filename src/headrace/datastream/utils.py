"""Refused by name: conversions for PyFlink's Java side."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["ResultTypeQueryable", "convert_to_python_obj", "create_hadoop_configuration", "pickled_bytes_to_python_obj"],
    "there is no Java here; leave it out",
)
