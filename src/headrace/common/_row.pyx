# cython: language_level=3
"""`RowBase`, `row_maker` and `fitting` of `headrace.common.row_base`, compiled: what a job's loop does with rows."""

from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.math cimport isfinite

cdef extern from "Python.h":
    ctypedef object (*newfunc)(type, tuple, void *)
    ctypedef struct PyTypeObject:
        newfunc tp_new


cdef class RowBase:
    cdef public list _fields
    cdef public list _values
    cdef public object _row_kind

    cdef Py_ssize_t _at(self, item) except -1:
        cdef list fields = self._fields
        cdef Py_ssize_t i
        if fields is not None:
            # A program's names are mostly the very strings that the row has.
            for i in range(len(fields)):
                if fields[i] is item:
                    return i
            for i in range(len(fields)):
                if fields[i] == item:
                    return i
        raise KeyError(item)

    def __getitem__(self, item):
        return self._values[item if isinstance(item, (int, slice)) else self._at(item)]

    def __setitem__(self, key, value):
        self._values[key if isinstance(key, (int, slice)) else self._at(key)] = value

    def __getattr__(self, item):
        if item[:1] != "_" and self._fields is not None:
            try:
                return self._values[self._at(item)]
            except KeyError:
                pass
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {item!r}")


def row_maker(type row_class, row_kind):
    cdef newfunc new = (<PyTypeObject *> row_class).tp_new
    cdef type made = row_class

    def make(list fields, list values):
        cdef RowBase row = <RowBase?> new(made, (), NULL)
        row._fields = fields
        row._values = values
        row._row_kind = row_kind
        return row

    return make


def fitting(list names, tuple kinds):
    cdef Py_ssize_t count = len(kinds)

    def fit(RowBase row not None):
        cdef list fields = row._fields, values = row._values
        cdef Py_ssize_t i
        if fields is not names and fields is not None and fields != names:
            return None
        if len(values) != count:
            return None
        for i in range(count):
            if not _is_of(values[i], kinds[i]):
                return None
        return values

    return fit


cdef bint _is_of(value, kind) except -1:
    cdef long long number
    cdef int overflow = 0
    if value is None or kind is None:
        return True
    if type(kind) is int:
        if type(value) is not int:
            return False
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        # What is left of the sign is nothing but the sign.
        return not overflow and number >> (<int> kind - 1) in (0, -1)
    return type(value) is kind and (kind is not float or isfinite(<double> value))
