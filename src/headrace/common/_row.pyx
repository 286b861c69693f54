# cython: language_level=3
"""`RowBase` and `row_maker` of `headrace.common.row_base`, compiled: what a job's loop does with rows, per field."""

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
