"""Record formats: JSON, CSV, Avro and Protobuf, as rows and as typed values.

Theory of operation. A library in C does the reading and writing; what is here decides what its values become. For rows
one Python function is compiled for each row type (`rows.py`), which holds the library's call and takes what is as
declared as it is; whatever else (text where a number is declared, a tuple where a row is) goes the slow way, where
Flink's rules are written down one by one, and where all errors are made. So a good record costs one call.

Each schema makes its functions when it is made and is pickled as its arguments, as those functions cannot be.
"""
