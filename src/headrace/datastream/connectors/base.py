"""`Source`, `Sink` and `DeliveryGuarantee`, where PyFlink has them."""

from headrace.common.refusal import refuse_names
from headrace.connector import DeliveryGuarantee, Sink, Source

__all__ = ["DeliveryGuarantee", "Sink", "Source"]

__getattr__ = refuse_names(
    __name__,
    ["StreamTransformer", "SupportsPreprocessing"],
    "put what a sink needs done before it into operators of the stream",
)
