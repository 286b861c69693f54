# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Handles of librdkafka's own: batches in, batches out, and what goes wrong as `Failure`.

Theory of operation. `load` finds the functions of the librdkafka that confluent-kafka has brought into the process; the
handles made here share nothing with confluent-kafka's. Python is never called back: whatever the library has to say
(deliveries, errors, logs, statistics, tokens wanted, commits) waits as an event in one queue for each handle, and
`events` hands it out as values. So librdkafka's own calls that wait (flush, commit, abort, a login with a token) serve
nothing meanwhile: whoever makes them asks in short slices, and for `events` between them. Each assigned partition has a
queue of its own, taken in turn, so that none waits while another is full; an empty consumer waits on a pipe that the
library writes into when something comes.

Invariants. The C objects of a handle go in a fixed order: records, queues, topics, the handle itself, the partitions
that were chosen for them, the pipe. Records are kept in a list of C structures, not of objects, so that a consumer that
is closed can let go of those that are still held, which say so when they are asked for; the list is changed under the
GIL only. A handle belongs to one thread at a time and to the process that made it: any other use raises. The GIL is
released wherever a call may wait.
"""

cimport cython
from cpython cimport array
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject, PyTypeObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.errno cimport errno
from libc.math cimport fmin
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport atof, calloc, free, malloc, realloc
from libc.string cimport memchr, memcpy, strcmp, strdup
from posix.fcntl cimport F_SETFD, F_SETFL, FD_CLOEXEC, O_NONBLOCK, fcntl
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec
from posix.types cimport pid_t
from posix.unistd cimport close, getpid, pipe, read

import array

from headrace.kafka.client.protocol import (
    ClientError,
    ClientFailed,
    EndOfPartition,
    Failure,
    KafkaConsumerRecord,
    KafkaTopicPartition,
    OffsetsCommitted,
    PartitionFailed,
    Records,
    TimestampType,
)
from headrace.kafka.client.reports import log_no_token


cdef extern from "poll.h" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *, unsigned long, int)
    short POLLIN


cdef extern from "dlfcn.h" nogil:
    void *dlopen(const char *, int)
    const char *dlerror()
    int RTLD_NOW


cdef extern from "librdkafka.h" nogil:
    ctypedef struct rd_kafka_t
    ctypedef struct rd_kafka_conf_t
    ctypedef struct rd_kafka_topic_t
    ctypedef struct rd_kafka_topic_conf_t
    ctypedef struct rd_kafka_queue_t
    ctypedef struct rd_kafka_event_t
    ctypedef struct rd_kafka_error_t
    ctypedef struct rd_kafka_headers_t
    ctypedef struct rd_kafka_consumer_group_metadata_t
    ctypedef struct rd_kafka_message_t:
        int err
        rd_kafka_topic_t *rkt
        int32_t partition
        void *payload
        size_t len
        void *key
        size_t key_len
        int64_t offset
    ctypedef struct rd_kafka_topic_partition_t:
        char *topic
        int32_t partition
        int64_t offset
        void *metadata
        size_t metadata_size
        int err
    ctypedef struct rd_kafka_topic_partition_list_t:
        int cnt
        rd_kafka_topic_partition_t *elems
    ctypedef struct memory_t:
        const void *ptr
        size_t size
    ctypedef union value_t:
        rd_kafka_topic_t *rkt
        int i
        int32_t i32
        int64_t i64
        memory_t mem
        rd_kafka_headers_t *headers
    ctypedef struct rd_kafka_vu_t:
        int vtype
        value_t u

    int RD_KAFKA_PRODUCER, RD_KAFKA_CONSUMER
    int RD_KAFKA_RESP_ERR__PARTITION_EOF, RD_KAFKA_RESP_ERR__TIMED_OUT, RD_KAFKA_RESP_ERR__QUEUE_FULL
    int RD_KAFKA_RESP_ERR__FATAL
    int RD_KAFKA_EVENT_DR, RD_KAFKA_EVENT_FETCH, RD_KAFKA_EVENT_LOG, RD_KAFKA_EVENT_ERROR
    int RD_KAFKA_EVENT_OFFSET_COMMIT, RD_KAFKA_EVENT_STATS, RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH
    int RD_KAFKA_VTYPE_RKT, RD_KAFKA_VTYPE_PARTITION, RD_KAFKA_VTYPE_VALUE, RD_KAFKA_VTYPE_KEY
    int RD_KAFKA_VTYPE_MSGFLAGS, RD_KAFKA_VTYPE_TIMESTAMP, RD_KAFKA_VTYPE_HEADERS
    int RD_KAFKA_MSG_F_COPY, RD_KAFKA_PARTITION_UA, RD_KAFKA_OFFSET_INVALID
    int RD_KAFKA_PURGE_F_QUEUE, RD_KAFKA_PURGE_F_INFLIGHT, RD_KAFKA_PURGE_F_NON_BLOCKING
    int RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE

    const char *find_functions(void *)
    int rd_kafka_version()
    const char *rd_kafka_version_str()
    const char *rd_kafka_err2name(int)
    const char *rd_kafka_err2str(int)
    int rd_kafka_error_code(const rd_kafka_error_t *)
    const char *rd_kafka_error_string(const rd_kafka_error_t *)
    int rd_kafka_error_is_fatal(const rd_kafka_error_t *)
    int rd_kafka_error_is_retriable(const rd_kafka_error_t *)
    int rd_kafka_error_txn_requires_abort(const rd_kafka_error_t *)
    void rd_kafka_error_destroy(rd_kafka_error_t *)
    int rd_kafka_fatal_error(rd_kafka_t *, char *, size_t)
    rd_kafka_conf_t *rd_kafka_conf_new()
    void rd_kafka_conf_destroy(rd_kafka_conf_t *)
    int rd_kafka_conf_set(rd_kafka_conf_t *, const char *, const char *, char *, size_t)
    int rd_kafka_conf_get(const rd_kafka_conf_t *, const char *, char *, size_t *)
    const rd_kafka_conf_t *rd_kafka_conf(rd_kafka_t *)
    void rd_kafka_conf_set_events(rd_kafka_conf_t *, int)
    rd_kafka_t *rd_kafka_new(int, rd_kafka_conf_t *, char *, size_t)
    void rd_kafka_destroy_flags(rd_kafka_t *, int)
    int rd_kafka_set_log_queue(rd_kafka_t *, rd_kafka_queue_t *)
    rd_kafka_queue_t *rd_kafka_queue_get_main(rd_kafka_t *)
    rd_kafka_queue_t *rd_kafka_queue_get_consumer(rd_kafka_t *)
    rd_kafka_queue_t *rd_kafka_queue_get_partition(rd_kafka_t *, const char *, int32_t)
    void rd_kafka_queue_forward(rd_kafka_queue_t *, rd_kafka_queue_t *)
    void rd_kafka_queue_io_event_enable(rd_kafka_queue_t *, int, const void *, size_t)
    void rd_kafka_queue_destroy(rd_kafka_queue_t *)
    rd_kafka_event_t *rd_kafka_queue_poll(rd_kafka_queue_t *, int)
    int rd_kafka_event_type(const rd_kafka_event_t *)
    int rd_kafka_event_error(rd_kafka_event_t *)
    const char *rd_kafka_event_error_string(rd_kafka_event_t *)
    int rd_kafka_event_error_is_fatal(rd_kafka_event_t *)
    int rd_kafka_event_log(rd_kafka_event_t *, const char **, const char **, int *)
    const char *rd_kafka_event_stats(rd_kafka_event_t *)
    const char *rd_kafka_event_config_string(rd_kafka_event_t *)
    rd_kafka_topic_partition_list_t *rd_kafka_event_topic_partition_list(rd_kafka_event_t *)
    const rd_kafka_message_t *rd_kafka_event_message_next(rd_kafka_event_t *)
    void rd_kafka_event_destroy(rd_kafka_event_t *)
    int rd_kafka_oauthbearer_set_token(
        rd_kafka_t *, const char *, int64_t, const char *, const char **, size_t, char *, size_t)
    int rd_kafka_oauthbearer_set_token_failure(rd_kafka_t *, const char *)
    int rd_kafka_poll_set_consumer(rd_kafka_t *)
    int rd_kafka_consumer_close(rd_kafka_t *)
    Py_ssize_t rd_kafka_consume_batch_queue(rd_kafka_queue_t *, int, rd_kafka_message_t **, size_t)
    void rd_kafka_message_destroy(rd_kafka_message_t *)
    int64_t rd_kafka_message_timestamp(const rd_kafka_message_t *, int *)
    int rd_kafka_message_headers(const rd_kafka_message_t *, rd_kafka_headers_t **)
    int rd_kafka_header_get_all(const rd_kafka_headers_t *, size_t, const char **, const void **, size_t *)
    rd_kafka_topic_partition_list_t *rd_kafka_topic_partition_list_new(int)
    rd_kafka_topic_partition_t *rd_kafka_topic_partition_list_add(
        rd_kafka_topic_partition_list_t *, const char *, int32_t)
    void rd_kafka_topic_partition_list_destroy(rd_kafka_topic_partition_list_t *)
    rd_kafka_error_t *rd_kafka_incremental_assign(rd_kafka_t *, const rd_kafka_topic_partition_list_t *)
    rd_kafka_error_t *rd_kafka_incremental_unassign(rd_kafka_t *, const rd_kafka_topic_partition_list_t *)
    int rd_kafka_pause_partitions(rd_kafka_t *, rd_kafka_topic_partition_list_t *)
    int rd_kafka_resume_partitions(rd_kafka_t *, rd_kafka_topic_partition_list_t *)
    rd_kafka_error_t *rd_kafka_seek_partitions(rd_kafka_t *, rd_kafka_topic_partition_list_t *, int)
    int rd_kafka_get_watermark_offsets(rd_kafka_t *, const char *, int32_t, int64_t *, int64_t *)
    int rd_kafka_query_watermark_offsets(rd_kafka_t *, const char *, int32_t, int64_t *, int64_t *, int)
    int rd_kafka_offsets_for_times(rd_kafka_t *, rd_kafka_topic_partition_list_t *, int)
    int rd_kafka_committed(rd_kafka_t *, rd_kafka_topic_partition_list_t *, int)
    int rd_kafka_commit_queue(
        rd_kafka_t *, const rd_kafka_topic_partition_list_t *, rd_kafka_queue_t *, void *, void *)
    ctypedef int32_t choose_partition_t(
        const rd_kafka_topic_t *, const void *, size_t, int32_t, void *, void *) noexcept
    rd_kafka_topic_conf_t *rd_kafka_default_topic_conf_dup(rd_kafka_t *)
    void rd_kafka_topic_conf_set_partitioner_cb(rd_kafka_topic_conf_t *, choose_partition_t *)
    void rd_kafka_topic_conf_set_opaque(rd_kafka_topic_conf_t *, void *)
    rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *, const char *, rd_kafka_topic_conf_t *)
    ctypedef struct rd_kafka_metadata_partition_t:
        int32_t id
    ctypedef struct rd_kafka_metadata_topic_t:
        int partition_cnt
        rd_kafka_metadata_partition_t *partitions
        int err
    ctypedef struct rd_kafka_metadata_t:
        int topic_cnt
        rd_kafka_metadata_topic_t *topics
    int rd_kafka_metadata(rd_kafka_t *, int, rd_kafka_topic_t *, const rd_kafka_metadata_t **, int)
    void rd_kafka_metadata_destroy(const rd_kafka_metadata_t *)
    int rd_kafka_topic_partition_available(const rd_kafka_topic_t *, int32_t)
    const char *rd_kafka_topic_name(const rd_kafka_topic_t *)
    void rd_kafka_topic_destroy(rd_kafka_topic_t *)
    rd_kafka_error_t *rd_kafka_produceva(rd_kafka_t *, const rd_kafka_vu_t *, size_t)
    rd_kafka_headers_t *rd_kafka_headers_new(size_t)
    int rd_kafka_header_add(rd_kafka_headers_t *, const char *, Py_ssize_t, const void *, Py_ssize_t)
    void rd_kafka_headers_destroy(rd_kafka_headers_t *)
    int rd_kafka_flush(rd_kafka_t *, int)
    int rd_kafka_purge(rd_kafka_t *, int)
    int rd_kafka_outq_len(rd_kafka_t *)
    rd_kafka_error_t *rd_kafka_init_transactions(rd_kafka_t *, int)
    rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *)
    rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *, int)
    rd_kafka_error_t *rd_kafka_abort_transaction(rd_kafka_t *, int)
    rd_kafka_consumer_group_metadata_t *rd_kafka_consumer_group_metadata_new(const char *)
    void rd_kafka_consumer_group_metadata_destroy(rd_kafka_consumer_group_metadata_t *)
    rd_kafka_error_t *rd_kafka_send_offsets_to_transaction(
        rd_kafka_t *, const rd_kafka_topic_partition_list_t *, const rd_kafka_consumer_group_metadata_t *, int)
    choose_partition_t rd_kafka_msg_partitioner_murmur2, rd_kafka_msg_partitioner_murmur2_random


cdef bint is_loaded = False
cdef array.array NUMBERS = array.array("q")
cdef str STICKY = "sticky.partitioning.linger.ms"


def load(str path):
    """Find librdkafka's functions in the shared object at `path` or in one that it depends on; the library's version.

    The object stays loaded. Raises `OSError` if it cannot be opened or lacks a function.
    """
    global is_loaded
    cdef bytes name = path.encode()
    cdef void *handle = dlopen(name, RTLD_NOW)
    cdef const char *missing
    if handle is NULL:
        raise OSError(f"{path} cannot be opened: {dlerror().decode()}")
    missing = find_functions(handle)
    if missing is not NULL:
        raise OSError(f"the librdkafka of {path} has no {missing.decode()}")
    is_loaded = True
    return rd_kafka_version(), rd_kafka_version_str().decode()


# --- failures ---------------------------------------------------------------------------------------------------------


cdef str text_of(const char *text):
    return "" if text is NULL else text.decode("utf-8", "replace")


cdef object failure_of(int code, str text="", bint is_fatal=False):
    return Failure(text_of(rd_kafka_err2name(code)), text or text_of(rd_kafka_err2str(code)), is_fatal=is_fatal)


cdef int check(int code) except -1:
    if code:
        raise ClientError(failure_of(code))
    return 0


cdef object taken_failure(rd_kafka_error_t *error):
    """The error as a value; it is destroyed."""
    cdef int code = rd_kafka_error_code(error)
    failure = Failure(
        text_of(rd_kafka_err2name(code)),
        text_of(rd_kafka_error_string(error)),
        is_retriable=rd_kafka_error_is_retriable(error) != 0,
        is_fatal=rd_kafka_error_is_fatal(error) != 0,
        requires_abort=rd_kafka_error_txn_requires_abort(error) != 0,
    )
    rd_kafka_error_destroy(error)
    return failure


cdef int check_error(rd_kafka_error_t *error) except -1:
    if error is not NULL:
        raise ClientError(taken_failure(error))
    return 0


# --- partitions -------------------------------------------------------------------------------------------------------


cdef class PartitionList:
    """A `rd_kafka_topic_partition_list_t` that is destroyed when nobody needs it any more."""

    cdef rd_kafka_topic_partition_list_t *list

    def __cinit__(self, partitions):
        """`partitions`: an iterable, or a mapping to offsets."""
        self.list = rd_kafka_topic_partition_list_new(8)
        cdef rd_kafka_topic_partition_t *one
        cdef bytes topic
        is_mapping = isinstance(partitions, dict)
        for partition in partitions:
            topic = name_of(partition.topic)
            one = rd_kafka_topic_partition_list_add(self.list, topic, partition.partition)
            if is_mapping:
                one.offset = partitions[partition]

    def __dealloc__(self):
        if self.list is not NULL:
            rd_kafka_topic_partition_list_destroy(self.list)

    cdef dict offsets(self):
        """Partition → its offset, as the list says it now, or its failure; None for one without."""
        cdef rd_kafka_topic_partition_t *one
        cdef int i
        found = {}
        for i in range(self.list.cnt):
            one = &self.list.elems[i]
            partition = KafkaTopicPartition(text_of(one.topic), one.partition)
            if one.err:
                found[partition] = failure_of(one.err)
            else:
                found[partition] = one.offset if one.offset >= 0 else None
        return found


cdef bytes name_of(str name):
    """A name for the library, which takes it to end at a zero."""
    if "\0" in name:
        raise ValueError(f"a name holds a zero character: {name!r}")
    return name.encode()


# --- handles ----------------------------------------------------------------------------------------------------------


cdef struct Run:
    # The messages of one batch, in the list of all that their consumer has handed out.
    rd_kafka_message_t **at
    Py_ssize_t count
    Run *previous
    Run *next


cdef class Handle:
    """A client of the library, and the queue of what it has to say."""

    cdef rd_kafka_t *rk
    cdef rd_kafka_queue_t *queue
    cdef pid_t pid
    cdef bint is_busy
    cdef object on_token
    cdef object on_statistics
    cdef object on_log
    cdef list told

    def __cinit__(self):
        self.told = []
        self.pid = getpid()

    cdef int make(self, int kind, settings, int events, on_token, on_statistics, on_log) except -1:
        cdef char text[512]
        cdef rd_kafka_conf_t *conf
        cdef int result
        # Not sooner: before it has attributes a subclass must not fail.
        if not is_loaded:
            raise RuntimeError("`load` comes first")
        conf = rd_kafka_conf_new()
        try:
            for name, value in {**settings, "log.queue": "true"}.items():
                result = rd_kafka_conf_set(conf, name_of(name), name_of(value), text, sizeof(text))
                if result:
                    raise ClientError(Failure("_INVALID_ARG", text_of(text)))
            events |= RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG | RD_KAFKA_EVENT_STATS
            if on_token is not None:
                events |= RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH
            rd_kafka_conf_set_events(conf, events)
            self.on_token, self.on_statistics, self.on_log = on_token, on_statistics, on_log
            with nogil:
                self.rk = rd_kafka_new(kind, conf, text, sizeof(text))
            if self.rk is NULL:
                raise ClientError(Failure("_INVALID_ARG", text_of(text)))
            conf = NULL  # it belongs to the client now
        finally:
            if conf is not NULL:
                rd_kafka_conf_destroy(conf)
        return 0

    cdef int enter(self) except -1:
        """The caller may use the handle, until it sets `is_busy` to False."""
        if self.rk is NULL:
            raise ValueError("the Kafka client is closed")
        if self.pid != getpid():
            raise RuntimeError("a Kafka client cannot be used in a process that was forked from the one that made it")
        if self.is_busy:
            raise RuntimeError("a Kafka client is used from one thread at a time, and another is using it")
        self.is_busy = True
        return 0

    cdef int serve(self) except -1:
        """What the library has to say, as values in `told`; never waits."""
        cdef rd_kafka_event_t *event
        while True:
            event = rd_kafka_queue_poll(self.queue, 0)
            if event is NULL:
                return 0
            try:
                self.tell(event)
            finally:
                rd_kafka_event_destroy(event)

    cdef int tell(self, rd_kafka_event_t *event) except -1:
        cdef int kind = rd_kafka_event_type(event)
        cdef int level = 0, code
        cdef const char *facility = NULL
        cdef const char *text = NULL
        cdef const rd_kafka_message_t *message
        cdef rd_kafka_topic_partition_list_t *partitions
        cdef int i
        if kind == RD_KAFKA_EVENT_ERROR:
            code = rd_kafka_event_error(event)
            text = rd_kafka_event_error_string(event)
            self.told.append(ClientFailed(failure_of(code, text_of(text), rd_kafka_event_error_is_fatal(event) != 0)))
        elif kind == RD_KAFKA_EVENT_DR:
            # A record has an error only if its event has one.
            message = rd_kafka_event_message_next(event) if rd_kafka_event_error(event) else NULL
            while message is not NULL:
                if message.err:
                    self.told.append(Failure(
                        text_of(rd_kafka_err2name(message.err)), text_of(rd_kafka_err2str(message.err)),
                        topic=text_of(rd_kafka_topic_name(message.rkt)), size_bytes=message.len,
                    ))
                message = rd_kafka_event_message_next(event)
        elif kind == RD_KAFKA_EVENT_OFFSET_COMMIT:
            code = rd_kafka_event_error(event)
            partitions = rd_kafka_event_topic_partition_list(event)
            offsets = {}
            if partitions is not NULL:
                for i in range(partitions.cnt):
                    code = code or partitions.elems[i].err
                    at = KafkaTopicPartition(text_of(partitions.elems[i].topic), partitions.elems[i].partition)
                    offsets[at] = partitions.elems[i].offset
            self.told.append(OffsetsCommitted(offsets, failure_of(code) if code else None))
        elif kind == RD_KAFKA_EVENT_LOG:
            if not rd_kafka_event_log(event, &facility, &text, &level):
                self.on_log(level, f"{text_of(facility)} {text_of(text)}")
        elif kind == RD_KAFKA_EVENT_STATS:
            if self.on_statistics is not None:
                self.on_statistics(text_of(rd_kafka_event_stats(event)))
        elif kind == RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH:
            self.refresh_token(text_of(rd_kafka_event_config_string(event)))
        elif kind == RD_KAFKA_EVENT_FETCH:
            raise RuntimeError("librdkafka handed records to a queue that nobody reads; please report this")
        return 0

    cdef int refresh_token(self, str config) except -1:
        cdef char text[512]
        cdef bytes token, principal
        cdef int64_t expires_ms
        cdef const char *none = NULL
        try:
            given, expires_s, whose = self.on_token(config)
            token, principal, expires_ms = name_of(given), name_of(whose), <int64_t>(expires_s * 1000)
            if rd_kafka_oauthbearer_set_token(self.rk, token, expires_ms, principal, &none, 0, text, sizeof(text)):
                raise ValueError(text_of(text))
        except Exception as error:
            log_no_token(error)
            token = str(error).replace("\0", " ").encode("utf-8", "replace") or b"no token"
            rd_kafka_oauthbearer_set_token_failure(self.rk, token)
        return 0

    @property
    def is_closed(self):
        return self.rk is NULL

    cdef void destroy(self) noexcept:
        """Let go of the library's objects: the records and queues of this handle are gone already."""
        cdef rd_kafka_t *rk = self.rk
        self.rk = NULL
        with nogil:
            rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE)

    def events(self):
        """What the library has to say beside its calls; never waits."""
        self.enter()
        try:
            self.serve()
            return self.take_told()
        finally:
            self.is_busy = False

    cdef list take_told(self):
        told, self.told = self.told, []
        return told


# --- reading ----------------------------------------------------------------------------------------------------------


cdef enum:
    BYTES, TEXT, RECORDS  # what a batch's values are


cdef tuple TIMESTAMP_TYPES = tuple(TimestampType)


@cython.no_gc_clear
cdef class Messages:
    """The records behind a batch, in the library's own memory."""

    cdef Consumer consumer
    cdef Run run
    cdef object place

    def __len__(self):
        return self.run.count

    cdef rd_kafka_message_t *message(self, Py_ssize_t index) except NULL:
        if self.run.at is NULL:
            raise ValueError("the records are gone: their Kafka client is closed")
        if not 0 <= index < self.run.count:
            raise IndexError(f"record {index} of {self.run.count}")
        return self.run.at[index]

    def offset(self, Py_ssize_t index):
        return self.message(index).offset

    def key(self, Py_ssize_t index):
        cdef rd_kafka_message_t *message = self.message(index)
        return bytes_of(message.key, message.key_len)

    def value(self, Py_ssize_t index):
        cdef rd_kafka_message_t *message = self.message(index)
        return bytes_of(message.payload, message.len)

    def headers(self, Py_ssize_t index):
        return headers_of(self.message(index), self.consumer.names)

    def timestamp(self, Py_ssize_t index):
        return rd_kafka_message_timestamp(self.message(index), NULL)

    cdef object element(self, Py_ssize_t index, int form):
        cdef rd_kafka_message_t *message = self.message(index)
        if form == RECORDS:
            return self.record(message)
        if message.payload is NULL:
            return None
        if form == TEXT:
            return PyUnicode_DecodeUTF8(<const char *>message.payload, message.len, "replace")
        return PyBytes_FromStringAndSize(<const char *>message.payload, message.len)

    cdef object record(self, rd_kafka_message_t *message):
        cdef int kind = 0
        cdef int64_t timestamp = rd_kafka_message_timestamp(message, &kind)
        topic, partition = <tuple>self.place
        columns = ((
            topic,
            partition,
            message.offset,
            timestamp,
            (<tuple>TIMESTAMP_TYPES)[kind],
            bytes_of(message.key, message.key_len),
            bytes_of(message.payload, message.len),
            headers_of(message, self.consumer.names),
        ),)
        # As the class does it, without the calls in Python around it.
        return (<PyTypeObject *>tuple).tp_new(KafkaConsumerRecord, <PyObject *>columns, NULL)

    def __dealloc__(self):
        if self.run.at is NULL:
            return
        self.run.previous.next = self.run.next
        if self.run.next is not NULL:
            self.run.next.previous = self.run.previous
        if self.consumer.pid == getpid():
            release(&self.run)


@cython.final
cdef class Values:
    """The values of some consecutive records, or the records, as a sequence, each made when it is asked for: it is used,
    and gone, while it is in the processor's cache, and a producer takes bytes without any being made."""

    cdef Messages source
    cdef Py_ssize_t start
    cdef Py_ssize_t stop
    cdef int form

    def __len__(self):
        return self.stop - self.start

    def __getitem__(self, at):
        cdef Py_ssize_t first, last, step, count = self.stop - self.start
        cdef Values part
        if isinstance(at, slice):
            first, last, step = at.indices(count)
            if step != 1:
                return [self[index] for index in range(first, last, step)]
            part = Values.__new__(Values)
            part.source, part.form = self.source, self.form
            part.start, part.stop = self.start + first, self.start + max(first, last)
            return part
        first = at
        if first < 0:
            first += count
        if not 0 <= first < count:
            raise IndexError(f"record {at} of {count}")
        return self.source.element(self.start + first, self.form)

    def __iter__(self):
        cdef ValuesIterator made = ValuesIterator.__new__(ValuesIterator)
        made.source, made.at, made.stop, made.form = self.source, self.start, self.stop, self.form
        return made


@cython.final
cdef class ValuesIterator:
    """Like a list's iterator, `__length_hint__` says how many are to come."""

    cdef Messages source
    cdef Py_ssize_t at
    cdef Py_ssize_t stop
    cdef int form

    def __iter__(self):
        return self

    def __next__(self):
        if self.at >= self.stop:
            raise StopIteration
        self.at += 1
        return self.source.element(self.at - 1, self.form)

    def __length_hint__(self):
        return self.stop - self.at


cdef void release(Run *run) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(run.count):
        rd_kafka_message_destroy(run.at[i])
    free(run.at)
    run.at = NULL
    run.count = 0


cdef inline object bytes_of(const void *data, size_t size):
    return None if data is NULL else PyBytes_FromStringAndSize(<const char *>data, size)


cdef enum:
    MOST_NAMES = 64


cdef list headers_of(rd_kafka_message_t *message, list names):
    """`names` are those of the records before, one for each place: most records have the same ones."""
    cdef rd_kafka_headers_t *headers = NULL
    cdef const char *name = NULL
    cdef const void *value = NULL
    cdef size_t size = 0, i = 0
    found = []
    if rd_kafka_message_headers(message, &headers):
        return found
    while not rd_kafka_header_get_all(headers, i, &name, &value, &size):
        if i < <size_t>len(names):
            text = names[i]
            if strcmp(PyUnicode_AsUTF8AndSize(text, NULL), name) != 0:
                names[i] = text = text_of(name)
        else:
            text = text_of(name)
            if i < MOST_NAMES:
                names.append(text)
        found.append((text, bytes_of(value, size)))
        i += 1
    return found


cdef enum:
    MOST_RECORDS = 100000  # of one call, however many are asked for
    RECORDS_OF_A_LOOK = 4096  # between two looks at the clock and at leaders in one call


cdef class Assigned:
    """A partition that is read, and its queue."""

    cdef readonly object partition
    cdef bytes topic
    cdef rd_kafka_queue_t *queue


@cython.no_gc_clear
cdef class Consumer(Handle):
    """Reads assigned partitions. `settings` need a `group.id`."""

    cdef list assigned
    cdef Py_ssize_t turn
    cdef int form
    cdef list names
    cdef bint has_pipe
    cdef int reading_end
    cdef int writing_end
    cdef rd_kafka_message_t **scratch
    cdef Py_ssize_t room
    cdef Run runs

    def __cinit__(self, settings, *, bint with_text=False, bint whole_records=False, on_token=None, on_statistics=None,
                  on_log=None):
        cdef int ends[2]
        cdef int end
        self.assigned = []
        self.form = RECORDS if whole_records else TEXT if with_text else BYTES
        self.names = []
        self.runs.next = NULL
        self.make(RD_KAFKA_CONSUMER, settings, RD_KAFKA_EVENT_OFFSET_COMMIT, on_token, on_statistics, on_log)
        if pipe(ends):
            raise OSError(errno, "no pipe for a Kafka consumer")
        self.reading_end, self.writing_end, self.has_pipe = ends[0], ends[1], True
        for end in ends:
            fcntl(end, F_SETFL, O_NONBLOCK)
            fcntl(end, F_SETFD, FD_CLOEXEC)
        check(rd_kafka_poll_set_consumer(self.rk))
        self.queue = rd_kafka_queue_get_consumer(self.rk)
        check(rd_kafka_set_log_queue(self.rk, self.queue))
        rd_kafka_queue_io_event_enable(self.queue, self.writing_end, b"1", 1)

    def assign(self, positions):
        """Read these partitions too: a mapping of partitions to offsets."""
        cdef PartitionList listed = PartitionList(dict(positions))
        cdef Assigned one
        cdef rd_kafka_error_t *error
        self.enter()
        try:
            # A queue is the partition's, not ours: giving up a second one would silence the first.
            taken = {one.partition for one in self.assigned}.intersection(positions)
            if taken:
                raise ClientError(Failure("_CONFLICT", f"{min(taken)} is assigned already"))
            added = []
            try:
                for partition in positions:
                    one = Assigned()
                    one.partition, one.topic = partition, name_of(partition.topic)
                    one.queue = rd_kafka_queue_get_partition(self.rk, one.topic, partition.partition)
                    if one.queue is NULL:
                        raise ClientError(Failure("_INVALID_ARG", f"{partition} cannot be a partition"))
                    added.append(one)
                    # Before it is read: its records would go to the queue of all.
                    rd_kafka_queue_forward(one.queue, NULL)
                    rd_kafka_queue_io_event_enable(one.queue, self.writing_end, b"1", 1)
                with nogil:
                    error = rd_kafka_incremental_assign(self.rk, listed.list)
                check_error(error)
            except BaseException:
                for one in added:
                    drop(one)
                raise
            self.assigned += added
        finally:
            self.is_busy = False

    def unassign(self, partitions):
        """Read these no more."""
        cdef PartitionList listed
        cdef Assigned one
        cdef rd_kafka_error_t *error
        gone = set(partitions)
        listed = PartitionList(gone)
        self.enter()
        try:
            with nogil:
                error = rd_kafka_incremental_unassign(self.rk, listed.list)
            check_error(error)
            self.make_room(1)
            for one in self.assigned:
                if one.partition in gone:
                    # What was fetched is out of date now: a look at the queue lets it go.
                    if rd_kafka_consume_batch_queue(one.queue, 0, self.scratch, 1) == 1:
                        rd_kafka_message_destroy(self.scratch[0])
                    drop(one)
            self.assigned = [one for one in self.assigned if one.partition not in gone]
        finally:
            self.is_busy = False

    def pause(self, partitions):
        """Fetch nothing from these until `resume`."""
        cdef PartitionList listed = PartitionList(partitions)
        self.enter()
        try:
            check(rd_kafka_pause_partitions(self.rk, listed.list))
        finally:
            self.is_busy = False

    def resume(self, partitions):
        """Fetch from these again."""
        cdef PartitionList listed = PartitionList(partitions)
        self.enter()
        try:
            check(rd_kafka_resume_partitions(self.rk, listed.list))
        finally:
            self.is_busy = False

    def seek(self, positions, double timeout_s):
        """Go on with assigned partitions at these offsets."""
        cdef PartitionList listed = PartitionList(dict(positions))
        cdef rd_kafka_error_t *error
        cdef int timeout_ms = milliseconds(timeout_s)
        cdef int i
        self.enter()
        try:
            with nogil:
                error = rd_kafka_seek_partitions(self.rk, listed.list, timeout_ms)
            check_error(error)
            for i in range(listed.list.cnt):
                check(listed.list.elems[i].err)
        finally:
            self.is_busy = False

    def consume(self, Py_ssize_t max_records, double timeout_s):
        """At most `max_records` records, of partitions in turn, and what happened between them, as events.

        Waits at most `timeout_s` for the first. If a callback raises, what was taken before comes with the next call.
        """
        cdef pollfd waiting
        cdef int timeout_ms = milliseconds(timeout_s)
        cdef int result
        cdef char drained[64]
        if max_records < 1:
            raise ValueError(f"at least one record has to be asked for, not {max_records}")
        max_records = min(max_records, MOST_RECORDS)
        self.enter()
        try:
            self.make_room(max_records)
            self.take_all(max_records)
            if self.told or timeout_ms == 0:
                return self.take_told()
            # Emptied before another look: what comes behind the look writes into it again.
            while read(self.reading_end, drained, sizeof(drained)) == sizeof(drained):
                pass
            self.take_all(max_records)
            if self.told:
                return self.take_told()
            waiting.fd, waiting.events = self.reading_end, POLLIN
            with nogil:
                result = poll(&waiting, 1, timeout_ms)
            if result < 0:
                PyErr_CheckSignals()
            elif result > 0:
                self.take_all(max_records)
            return self.take_told()
        finally:
            self.is_busy = False

    cdef int make_room(self, Py_ssize_t count) except -1:
        cdef void *larger
        if count > self.room:
            larger = realloc(self.scratch, count * sizeof(rd_kafka_message_t *))
            if larger is NULL:
                raise MemoryError()
            self.scratch, self.room = <rd_kafka_message_t **>larger, count
        return 0

    cdef int take_all(self, Py_ssize_t max_records) except -1:
        cdef Py_ssize_t parts = len(self.assigned), i
        cdef Py_ssize_t left = max_records
        cdef Assigned one
        self.serve()
        for i in range(parts):
            self.turn = self.turn + 1 if self.turn + 1 < parts else 0
            one = self.assigned[self.turn]
            left -= self.take(one, left)
            if left == 0:
                break
        return 0

    cdef Py_ssize_t take(self, Assigned one, Py_ssize_t max_records) except -1:
        """Records of one partition, and what happened between them."""
        cdef Py_ssize_t count, i, start = 0
        cdef rd_kafka_message_t *message
        cdef int code
        cdef int64_t offset
        with nogil:
            count = rd_kafka_consume_batch_queue(one.queue, 0, self.scratch, max_records)
        if count <= 0:
            return 0
        try:
            for i in range(count):
                message = self.scratch[i]
                if message.err:
                    if i > start:
                        self.hand_over(one, start, i)
                    start = i + 1
                    code, offset = message.err, message.offset
                    try:
                        text = "" if message.payload is NULL else text_of(<const char *>message.payload)
                    finally:
                        self.scratch[i] = NULL
                        rd_kafka_message_destroy(message)
                    if code == RD_KAFKA_RESP_ERR__PARTITION_EOF:
                        self.told.append(EndOfPartition(one.partition, offset))
                    else:
                        self.told.append(PartitionFailed(one.partition, failure_of(code, text)))
            if count > start:
                self.hand_over(one, start, count)
        except BaseException:
            for i in range(start, count):
                if self.scratch[i] is not NULL:
                    rd_kafka_message_destroy(self.scratch[i])
            raise
        return count

    cdef int hand_over(self, Assigned one, Py_ssize_t start, Py_ssize_t stop) except -1:
        """Messages `start` to `stop` of `scratch` as a batch, which owns them from here on."""
        cdef Py_ssize_t count = stop - start, i
        cdef Messages source = Messages.__new__(Messages)
        cdef rd_kafka_message_t **at = <rd_kafka_message_t **>malloc(count * sizeof(rd_kafka_message_t *))
        cdef Values values = Values.__new__(Values)
        cdef array.array timestamps
        if at is NULL:
            raise MemoryError()
        memcpy(at, self.scratch + start, count * sizeof(rd_kafka_message_t *))
        for i in range(start, stop):
            self.scratch[i] = NULL
        source.consumer = self
        source.place = (one.partition.topic, one.partition.partition)
        source.run.at, source.run.count = at, count
        source.run.previous, source.run.next = &self.runs, self.runs.next
        if self.runs.next is not NULL:
            self.runs.next.previous = &source.run
        self.runs.next = &source.run
        values.source, values.start, values.stop, values.form = source, 0, count, self.form
        # Numbers for C, which nobody may ever look at: no object for each.
        timestamps = array.clone(NUMBERS, count, False)
        for i in range(count):
            timestamps.data.as_longlongs[i] = rd_kafka_message_timestamp(at[i], NULL)
        self.told.append(Records(one.partition, values, timestamps, at[count - 1].offset + 1, source))
        return 0

    def end_seen(self, partition):
        """The end of the partition's log as of the last answer; None: not known yet. Asks nobody."""
        cdef int64_t low = 0, high = 0
        cdef bytes topic = name_of(partition.topic)
        self.enter()
        try:
            check(rd_kafka_get_watermark_offsets(self.rk, topic, partition.partition, &low, &high))
            return high if high >= 0 else None
        finally:
            self.is_busy = False

    def watermark_offsets(self, partition, double timeout_s):
        """The first offset of the partition's log, and the one behind its last; asks its broker."""
        cdef int64_t low = 0, high = 0
        cdef bytes name = name_of(partition.topic)
        cdef const char *topic = name
        cdef int32_t number = partition.partition
        cdef int timeout_ms = milliseconds(timeout_s), code
        self.enter()
        try:
            with nogil:
                code = rd_kafka_query_watermark_offsets(self.rk, topic, number, &low, &high, timeout_ms)
            check(code)
            return low, high
        finally:
            self.is_busy = False

    def offsets_for_times(self, times_ms, double timeout_s):
        """Partition → offset of the first record at or after its time in ms; None: there is none. Asks the brokers."""
        cdef PartitionList listed = PartitionList(dict(times_ms))
        cdef int timeout_ms = milliseconds(timeout_s), code
        self.enter()
        try:
            with nogil:
                code = rd_kafka_offsets_for_times(self.rk, listed.list, timeout_ms)
            check(code)
            return listed.offsets()
        finally:
            self.is_busy = False

    def committed(self, partitions, double timeout_s):
        """Partition → offset committed to the group, None where there is none; asks the group's coordinator."""
        cdef PartitionList listed = PartitionList(partitions)
        cdef int timeout_ms = milliseconds(timeout_s), code
        self.enter()
        try:
            with nogil:
                code = rd_kafka_committed(self.rk, listed.list, timeout_ms)
            check(code)
            return listed.offsets()
        finally:
            self.is_busy = False

    def commit(self, offsets):
        """Commit to the group, in the background; `consume` reports `OffsetsCommitted`."""
        cdef PartitionList listed = PartitionList(dict(offsets))
        self.enter()
        try:
            check(rd_kafka_commit_queue(self.rk, listed.list, self.queue, NULL, NULL))
        finally:
            self.is_busy = False

    cdef void let_go(self) noexcept:
        """The records and queues."""
        cdef Run *run = self.runs.next
        cdef Assigned one
        while run is not NULL:
            release(run)
            run = run.next
        self.runs.next = NULL
        for one in self.assigned:
            drop(one)
        self.assigned = []
        if self.queue is not NULL:
            rd_kafka_queue_io_event_enable(self.queue, -1, NULL, 0)
            rd_kafka_queue_destroy(self.queue)
            self.queue = NULL

    cdef void close_pipe(self) noexcept:
        if self.has_pipe:
            close(self.reading_end)
            close(self.writing_end)
            self.has_pipe = False

    def close(self):
        """Leave, and let go of everything; commits under way are waited for. May be called twice."""
        cdef int code
        if self.rk is NULL:
            return
        self.enter()
        try:
            # Lines for the log that are left would go to stderr.
            self.serve()
        finally:
            try:
                self.let_go()
                with nogil:
                    code = rd_kafka_consumer_close(self.rk)
                self.destroy()
                self.close_pipe()
                check(code)
            finally:
                self.is_busy = False

    def __dealloc__(self):
        # Records hold their consumer (for that `no_gc_clear`), so there are none any more. A forked process must touch
        # nothing of it.
        if self.pid == getpid():
            if self.rk is not NULL:
                self.let_go()
                self.destroy()
            self.close_pipe()
        free(self.scratch)


cdef void drop(Assigned one) noexcept:
    """Let go of a partition's queue, which must not write into the pipe any more."""
    rd_kafka_queue_io_event_enable(one.queue, -1, NULL, 0)
    rd_kafka_queue_destroy(one.queue)
    one.queue = NULL


cdef int milliseconds(double seconds) except -1:
    if not seconds >= 0:
        raise ValueError(f"a time to wait cannot be {seconds} s")
    return <int>(seconds * 1000) if seconds < 1e6 else 1000000000


# --- writing ----------------------------------------------------------------------------------------------------------


cdef struct Now:
    # How many periods have begun, and how often partitions were to be looked at. Written without the library's lock of
    # a topic: a thread of the library may see either a moment late.
    int64_t period
    int64_t look


cdef struct Chosen:
    # A topic's partition for records without a key, when it was chosen, and when it was last seen to have a leader.
    int32_t partition
    int64_t period
    int64_t look
    const Now *now
    Chosen *next


cdef int32_t choose_partition(
    const rd_kafka_topic_t *topic, const void *key, size_t size, int32_t count, void *opaque, void *record
) noexcept nogil:
    """`murmur2_random`, but records without a key stay where one of them went in this period, while that has a leader.

    Called under the library's lock of the topic; in a thread of its own for records that came before it knew the topic.
    """
    cdef Chosen *chosen = <Chosen *>opaque
    cdef int64_t period = chosen.now.period, look = chosen.now.look
    cdef int32_t partition
    if key is not NULL:
        return rd_kafka_msg_partitioner_murmur2(topic, key, size, count, NULL, NULL)
    if chosen.period == period and chosen.partition < count:
        if chosen.look == look or rd_kafka_topic_partition_available(topic, chosen.partition):
            chosen.look = look
            return chosen.partition
    partition = rd_kafka_msg_partitioner_murmur2_random(topic, NULL, 0, count, NULL, NULL)
    # A random one may have no leader, and is not stayed with then.
    if rd_kafka_topic_partition_available(topic, partition):
        chosen.partition, chosen.period, chosen.look = partition, period, look
    return partition


@cython.no_gc_clear
cdef class Producer(Handle):
    """Writes records, at will in transactions.

    The library reports each delivery, and its record is freed where that is served: in the thread that made it. A
    record without a report would be freed by one of the library's threads, for whose malloc all others have to wait.

    Records without a key stay in one partition of their topic for a period of twice `linger.ms`, as they do in the
    library (KIP-480). But for each record the library looks at the clock and whether the partition has a leader, a
    fifth of a record's way into its queue; here both are looked at for each call, and each few thousand records of one.
    Where `sticky.partitioning.linger.ms` or another partitioner is set, the library does it its own way.
    """

    cdef dict topics  # name → `Topic`
    cdef bint has_periods
    cdef Now now
    cdef int64_t period_ns, period_end_ns
    cdef Chosen *chosen  # of all topics

    def __cinit__(self, settings, *, on_token=None, on_statistics=None, on_log=None):
        cdef char linger_ms[64]
        cdef size_t size = sizeof(linger_ms)
        self.topics = {}
        settings = {**settings}
        self.has_periods = settings.get("partitioner") == "murmur2_random" and STICKY not in settings
        if self.has_periods:
            # Otherwise it would ask no partitioner of ours about a record without a key.
            settings[STICKY] = "0"
        self.make(RD_KAFKA_PRODUCER, settings, RD_KAFKA_EVENT_DR, on_token, on_statistics, on_log)
        check(rd_kafka_conf_get(rd_kafka_conf(self.rk), "queue.buffering.max.ms", linger_ms, &size))
        # The library's own periods have the same limit.
        self.period_ns = <int64_t>(1e6 * fmin(2 * atof(linger_ms), 900000))
        self.queue = rd_kafka_queue_get_main(self.rk)
        check(rd_kafka_set_log_queue(self.rk, self.queue))

    cdef rd_kafka_topic_t *topic_of(self, str name) except NULL:
        cdef Topic topic = self.topics.get(name)
        cdef rd_kafka_topic_conf_t *conf = NULL
        cdef Chosen *chosen
        cdef bytes encoded
        if topic is None:
            topic, encoded = Topic.__new__(Topic), name_of(name)
            if self.has_periods and encoded:
                chosen = <Chosen *>calloc(1, sizeof(Chosen))
                if chosen is NULL:
                    raise MemoryError()
                chosen.now, chosen.next, self.chosen = &self.now, self.chosen, chosen
                conf = rd_kafka_default_topic_conf_dup(self.rk)
                rd_kafka_topic_conf_set_opaque(conf, chosen)
                rd_kafka_topic_conf_set_partitioner_cb(conf, choose_partition)
            topic.at = rd_kafka_topic_new(self.rk, encoded, conf) if encoded else NULL
            if topic.at is NULL:
                raise ClientError(Failure("_INVALID_ARG", f"{name!r} cannot be the name of a topic"))
            self.topics[name] = topic
        return topic.at

    cdef void look(self) noexcept:
        """At the clock, and have partitions looked at."""
        cdef timespec time
        cdef int64_t time_ns
        clock_gettime(CLOCK_MONOTONIC, &time)
        time_ns = <int64_t>time.tv_sec * 1000000000 + time.tv_nsec
        self.now.look += 1
        if time_ns >= self.period_end_ns:
            self.now.period, self.period_end_ns = self.now.period + 1, time_ns + self.period_ns

    def produce(self, str topic, values, keys=None, timestamps=None, partitions=None):
        """Hand over records; waits while the library's queue is full.

        Columns are sequences as long as `values` (a consumer's are taken as they are): bytes or None for keys and
        values, ms for timestamps (0 or below: now), numbers for partitions (below 0: the partitioner chooses). What
        failed meanwhile comes as from `events`. Raises `TypeError` for a wrong type before anything is handed over, and
        `ClientError` for a record that is refused, behind those that stand before it.
        """
        cdef rd_kafka_vu_t record[6]
        cdef rd_kafka_error_t *error
        cdef Py_ssize_t count, i
        cdef int fields = 4
        cdef int at_key = 0, at_time = 0
        # Kept as they are while the library may wait: nobody else changes a tuple, or an array that is looked into.
        cdef Values records = values if type(values) is Values and (<Values>values).form == BYTES else None
        cdef tuple value_column = () if records is not None else tuple(values)
        cdef rd_kafka_message_t *message
        cdef tuple key_column = None if keys is None else tuple(keys)
        cdef const long long[::1] time_column = None if timestamps is None else numbers(timestamps)
        cdef const long long[::1] partition_column = None if partitions is None else numbers(partitions)
        count = len(value_column) if records is None else len(records)
        for kept in (key_column, time_column, partition_column):
            if kept is not None and len(kept) != count:
                raise ValueError(f"{count} values, and a column of {len(kept)}")
        check_bytes(value_column, "value")
        if key_column is not None:
            check_bytes(key_column, "key")
        self.enter()
        try:
            record[0].vtype, record[0].u.rkt = RD_KAFKA_VTYPE_RKT, self.topic_of(topic)
            record[1].vtype, record[1].u.i = RD_KAFKA_VTYPE_MSGFLAGS, RD_KAFKA_MSG_F_COPY
            record[2].vtype, record[2].u.i32 = RD_KAFKA_VTYPE_PARTITION, RD_KAFKA_PARTITION_UA
            record[3].vtype = RD_KAFKA_VTYPE_VALUE
            if key_column is not None:
                at_key, fields = fields, fields + 1
                record[at_key].vtype = RD_KAFKA_VTYPE_KEY
            if time_column is not None:
                at_time, fields = fields, fields + 1
                record[at_time].vtype = RD_KAFKA_VTYPE_TIMESTAMP
            for i in range(count):
                if i % RECORDS_OF_A_LOOK == 0:
                    self.look()
                if records is not None:
                    # Looked up each time: whoever closes the consumer meanwhile takes them away.
                    message = records.source.message(records.start + i)
                    record[3].u.mem.ptr, record[3].u.mem.size = message.payload, message.len
                else:
                    set_bytes(&record[3], value_column[i])
                if at_key:
                    set_bytes(&record[at_key], key_column[i])
                if at_time:
                    record[at_time].u.i64 = max(time_column[i], 0)
                if partition_column is not None:
                    record[2].u.i32 = <int32_t>max(min(partition_column[i], 0x7FFFFFFF), RD_KAFKA_PARTITION_UA)
                while True:
                    error = rd_kafka_produceva(self.rk, record, fields)
                    if error is NULL:
                        break
                    if rd_kafka_error_code(error) == RD_KAFKA_RESP_ERR__QUEUE_FULL:
                        rd_kafka_error_destroy(error)
                        self.wait_for_room()
                        if records is not None:
                            record[3].u.mem.ptr = records.source.message(records.start + i).payload
                        continue
                    raise ClientError(self.refusal(error, topic, record[3].u.mem.size +
                                                   (record[at_key].u.mem.size if at_key else 0)))
            self.serve()
            return self.take_told()
        finally:
            self.is_busy = False

    def produce_records(self, records):
        """Hand over whole records, tuples as a `KafkaProducerRecord` is one; otherwise as `produce`."""
        cdef rd_kafka_vu_t record[7]
        cdef rd_kafka_error_t *error
        # Which holds the bytes that are pointed to.
        cdef tuple given = tuple(records)
        cdef Py_ssize_t count = len(given), i
        cdef Outgoing *out = NULL
        cdef Outgoing *one
        self.enter()
        try:
            out = <Outgoing *>calloc(max(count, 1), sizeof(Outgoing))
            if out is NULL:
                raise MemoryError()
            for i in range(count):
                self.prepare(given[i], i, &out[i])
            record[0].vtype = RD_KAFKA_VTYPE_RKT
            record[1].vtype, record[1].u.i = RD_KAFKA_VTYPE_MSGFLAGS, RD_KAFKA_MSG_F_COPY
            record[2].vtype = RD_KAFKA_VTYPE_PARTITION
            record[3].vtype = RD_KAFKA_VTYPE_VALUE
            record[4].vtype = RD_KAFKA_VTYPE_KEY
            record[5].vtype = RD_KAFKA_VTYPE_TIMESTAMP
            record[6].vtype = RD_KAFKA_VTYPE_HEADERS
            for i in range(count):
                if i % RECORDS_OF_A_LOOK == 0:
                    self.look()
                one = &out[i]
                record[0].u.rkt, record[2].u.i32, record[5].u.i64 = one.topic, one.partition, one.timestamp
                record[3].u.mem, record[4].u.mem, record[6].u.headers = one.value, one.key, one.headers
                while True:
                    error = rd_kafka_produceva(self.rk, record, 6 if one.headers is NULL else 7)
                    if error is NULL:
                        break
                    if rd_kafka_error_code(error) == RD_KAFKA_RESP_ERR__QUEUE_FULL:
                        rd_kafka_error_destroy(error)
                        self.wait_for_room()
                        continue
                    raise ClientError(self.refusal(error, (<tuple>given[i])[0], one.value.size + one.key.size))
                one.headers = NULL  # they belong to the record now
            self.serve()
            return self.take_told()
        finally:
            if out is not NULL:
                for i in range(count):
                    if out[i].headers is not NULL:
                        rd_kafka_headers_destroy(out[i].headers)
                free(out)
            self.is_busy = False

    cdef int prepare(self, record, Py_ssize_t number, Outgoing *out) except -1:
        """What the library takes of a record, whose headers it owns; all types are looked at here."""
        if not isinstance(record, tuple) or len(<tuple>record) != 6:
            raise TypeError(f"record {number} is a {type(record).__name__}, not a tuple of what a record has")
        topic, value, key, partition, timestamp, headers = <tuple>record
        if not isinstance(topic, str):
            raise TypeError(f"the topic of record {number} is a {type(topic).__name__}, not a str")
        out.topic = self.topic_of(topic)
        memory_of(value, number, "value", &out.value)
        memory_of(key, number, "key", &out.key)
        out.partition = RD_KAFKA_PARTITION_UA
        if partition is not None:
            out.partition = <int32_t>max(min(number_of(partition, number, "partition"), 0x7FFFFFFF), RD_KAFKA_PARTITION_UA)
        if timestamp is not None:
            out.timestamp = max(number_of(timestamp, number, "timestamp"), 0)
        if not isinstance(headers, (list, tuple)):
            raise TypeError(f"the headers of record {number} are a {type(headers).__name__}, not a list")
        if headers:
            out.headers = rd_kafka_headers_new(len(headers))
            for pair in headers:
                add_header(out.headers, pair, number)
        return 0

    cdef int wait_for_room(self) except -1:
        """It empties as deliveries are served, at the latest when they have timed out."""
        cdef timespec pause
        pause.tv_sec, pause.tv_nsec = 0, 1000000
        with nogil:
            nanosleep(&pause, NULL)
        PyErr_CheckSignals()
        self.look()
        return self.serve()

    cdef object refusal(self, rd_kafka_error_t *error, str topic, size_t size):
        cdef char text[512]
        cdef int code = rd_kafka_error_code(error)
        failure = taken_failure(error)
        if code == RD_KAFKA_RESP_ERR__FATAL:
            code = rd_kafka_fatal_error(self.rk, text, sizeof(text))
            failure = failure_of(code, text_of(text), True)
        return Failure(
            failure.name, failure.text, failure.is_retriable, failure.is_fatal, failure.requires_abort, topic, size
        )

    def partitions(self, str topic, double timeout_s):
        """The numbers of the topic's partitions; asks the brokers, and knows them itself from then on."""
        cdef int timeout_ms = milliseconds(timeout_s), code, i
        cdef const rd_kafka_metadata_t *found = NULL
        cdef rd_kafka_topic_t *at
        self.enter()
        try:
            at = self.topic_of(topic)
            with nogil:
                code = rd_kafka_metadata(self.rk, 0, at, &found, timeout_ms)
            check(code)
            try:
                if found.topic_cnt != 1:
                    raise ClientError(Failure("_UNKNOWN_TOPIC", "the brokers say nothing of the topic"))
                check(found.topics[0].err)
                return tuple([found.topics[0].partitions[i].id for i in range(found.topics[0].partition_cnt)])
            finally:
                rd_kafka_metadata_destroy(found)
        finally:
            self.is_busy = False

    def flush(self, double timeout_s):
        """Wait until everything is acknowledged or has failed; how many records are neither after `timeout_s`.

        A record that `events` has not told of yet is neither.
        """
        cdef int timeout_ms = milliseconds(timeout_s), code
        self.enter()
        try:
            with nogil:
                code = rd_kafka_flush(self.rk, timeout_ms)
            if code == RD_KAFKA_RESP_ERR__TIMED_OUT:
                return max(1, rd_kafka_outq_len(self.rk))
            check(code)
            return 0
        finally:
            self.is_busy = False

    def init_transactions(self, double timeout_s):
        cdef int timeout_ms = milliseconds(timeout_s)
        cdef rd_kafka_error_t *error
        self.enter()
        try:
            with nogil:
                error = rd_kafka_init_transactions(self.rk, timeout_ms)
            check_error(error)
        finally:
            self.is_busy = False

    def begin_transaction(self):
        cdef rd_kafka_error_t *error
        self.enter()
        try:
            with nogil:
                error = rd_kafka_begin_transaction(self.rk)
            check_error(error)
        finally:
            self.is_busy = False

    def send_offsets(self, str group, partition, int64_t offset, str metadata, double timeout_s):
        """Add an offset with its metadata to the transaction."""
        cdef PartitionList listed = PartitionList({partition: offset})
        cdef bytes name = name_of(group), text = name_of(metadata)
        cdef rd_kafka_consumer_group_metadata_t *members
        cdef int timeout_ms = milliseconds(timeout_s)
        cdef rd_kafka_error_t *error
        # The list frees it. With the zero at its end, as confluent-kafka writes it: that reads until it finds one, and
        # librdkafka copies what is stored, and no more.
        listed.list.elems[0].metadata = strdup(text)
        listed.list.elems[0].metadata_size = len(text) + 1
        self.enter()
        try:
            members = rd_kafka_consumer_group_metadata_new(name)
            with nogil:
                error = rd_kafka_send_offsets_to_transaction(self.rk, listed.list, members, timeout_ms)
                rd_kafka_consumer_group_metadata_destroy(members)
            check_error(error)
        finally:
            self.is_busy = False

    def commit_transaction(self, double timeout_s):
        cdef int timeout_ms = milliseconds(timeout_s)
        cdef rd_kafka_error_t *error
        self.enter()
        try:
            with nogil:
                error = rd_kafka_commit_transaction(self.rk, timeout_ms)
            check_error(error)
        finally:
            self.is_busy = False

    def abort_transaction(self, double timeout_s):
        cdef int timeout_ms = milliseconds(timeout_s)
        cdef rd_kafka_error_t *error
        self.enter()
        try:
            with nogil:
                error = rd_kafka_abort_transaction(self.rk, timeout_ms)
            check_error(error)
        finally:
            self.is_busy = False

    cdef void let_go(self) noexcept:
        cdef rd_kafka_event_t *event
        cdef Chosen *chosen
        rd_kafka_purge(
            self.rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING
        )
        if self.queue is not NULL:
            event = rd_kafka_queue_poll(self.queue, 0)
            while event is not NULL:
                rd_kafka_event_destroy(event)
                event = rd_kafka_queue_poll(self.queue, 0)
            rd_kafka_queue_destroy(self.queue)
            self.queue = NULL
        self.topics.clear()
        self.destroy()
        while self.chosen is not NULL:
            chosen, self.chosen = self.chosen, self.chosen.next
            free(chosen)

    def close(self):
        """Drop what was not flushed. May be called twice."""
        if self.rk is NULL:
            return
        self.enter()
        try:
            self.let_go()
        finally:
            self.is_busy = False

    def __dealloc__(self):
        cdef Topic topic
        if self.pid == getpid():
            if self.rk is not NULL:
                self.let_go()
        elif self.topics is not None:
            for topic in self.topics.values():
                topic.at = NULL


cdef class Topic:
    """A producer's handle of a topic."""

    cdef rd_kafka_topic_t *at

    def __dealloc__(self):
        if self.at is not NULL:
            rd_kafka_topic_destroy(self.at)


cdef inline void set_bytes(rd_kafka_vu_t *field, object value) noexcept:
    if value is None:
        field.u.mem.ptr, field.u.mem.size = NULL, 0
    else:
        field.u.mem.ptr, field.u.mem.size = PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)


cdef int check_bytes(tuple column, str what) except -1:
    cdef Py_ssize_t i
    for i in range(len(column)):
        value = column[i]
        if value is not None and not isinstance(value, bytes):
            raise TypeError(f"the {what} of record {i} is a {type(value).__name__}, not bytes")
    return 0


cdef struct Outgoing:
    # A record that is about to be handed over.
    rd_kafka_topic_t *topic
    memory_t value
    memory_t key
    int32_t partition
    int64_t timestamp
    rd_kafka_headers_t *headers


cdef inline int memory_of(value, Py_ssize_t number, str what, memory_t *memory) except -1:
    if value is None:
        memory.ptr, memory.size = NULL, 0
    elif isinstance(value, bytes):
        memory.ptr, memory.size = PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
    else:
        raise TypeError(f"the {what} of record {number} is a {type(value).__name__}, not bytes")
    return 0


cdef inline int64_t number_of(value, Py_ssize_t number, str what) except? -1:
    if not isinstance(value, int):
        raise TypeError(f"the {what} of record {number} is a {type(value).__name__}, not an int")
    return value


cdef int add_header(rd_kafka_headers_t *headers, pair, Py_ssize_t number) except -1:
    cdef const char *name
    cdef Py_ssize_t size = 0
    cdef memory_t data
    text, value = pair
    if not isinstance(text, str) or not (value is None or isinstance(value, bytes)):
        raise TypeError(
            f"a header is a name and bytes or None, not {text!r} and a {type(value).__name__}, in record {number}"
        )
    name = PyUnicode_AsUTF8AndSize(text, &size)
    if memchr(name, 0, size) is not NULL:
        raise ValueError(f"the name of a header holds a zero character: {text!r}, in record {number}")
    memory_of(value, number, "header", &data)
    rd_kafka_header_add(headers, name, size, data.ptr, data.size)
    return 0


cdef object numbers(column):
    """The column as an array of 64-bit numbers; it is one already if it comes from a consumer."""
    if isinstance(column, array.array) and column.typecode == "q":
        return column
    return array.array("q", list(column))


def murmur2_partitions(keys, int partition_count):
    """The partition that Java's producer chooses for each of these keys, in place of `partitioner.class`."""
    cdef bytes key
    if partition_count < 1:
        raise ValueError(f"a topic has at least one partition, not {partition_count}")
    if not is_loaded:
        raise RuntimeError("`load` comes first")
    chosen = []
    for key in keys:
        if key is None:
            raise TypeError("a key is None: Java's producer chooses any partition then")
        chosen.append(rd_kafka_msg_partitioner_murmur2(
            NULL, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), partition_count, NULL, NULL))
    return chosen
