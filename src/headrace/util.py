"""Refused by name: PyFlink's tools for Java objects."""

from headrace.common.refusal import not_supported

raise not_supported(__name__, "leave it out: there is no JVM, and no Java object to handle")
