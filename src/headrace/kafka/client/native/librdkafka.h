/* librdkafka's public C API, as far as it is used here, and its functions as pointers that `load` fills.
 *
 * The library is the one that the installed confluent-kafka has loaded already. It ships no header, and need not: this
 * part of its API and of its structures' layout has been stable since 2.0 (https://github.com/confluentinc/librdkafka,
 * src/rdkafka.h: "ABI compatibility"). Where a name means the same as there, it is the same.
 *
 * A function more is a row in FUNCTIONS, and a declaration in _librdkafka.pyx.
 */
#ifndef HEADRACE_LIBRDKAFKA_H
#define HEADRACE_LIBRDKAFKA_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_topic_conf_s rd_kafka_topic_conf_t;
typedef int32_t choose_partition_t(const rd_kafka_topic_t *, const void *, size_t, int32_t, void *, void *);
typedef struct rd_kafka_queue_s rd_kafka_queue_t;
typedef struct rd_kafka_op_s rd_kafka_event_t;
typedef struct rd_kafka_error_s rd_kafka_error_t;
typedef struct rd_kafka_headers_s rd_kafka_headers_t;
typedef struct rd_kafka_consumer_group_metadata_s rd_kafka_consumer_group_metadata_t;

typedef struct {
    int err;
    rd_kafka_topic_t *rkt;
    int32_t partition;
    void *payload;
    size_t len;
    void *key;
    size_t key_len;
    int64_t offset;
    void *_private;
} rd_kafka_message_t;

typedef struct {
    char *topic;
    int32_t partition;
    int64_t offset;
    void *metadata;
    size_t metadata_size;
    void *opaque;
    int err;
    void *_private;
} rd_kafka_topic_partition_t;

typedef struct {
    int cnt;
    int size;
    rd_kafka_topic_partition_t *elems;
} rd_kafka_topic_partition_list_t;

typedef struct {
    const void *ptr;
    size_t size;
} memory_t;

typedef union {
    rd_kafka_topic_t *rkt;
    int i;
    int32_t i32;
    int64_t i64;
    memory_t mem;
    rd_kafka_headers_t *headers;
    char _pad[64];
} value_t;

typedef struct {
    int vtype;
    value_t u;
} rd_kafka_vu_t;

typedef struct {
    int32_t id;
    int err;
    int32_t leader;
    int replica_cnt;
    int32_t *replicas;
    int isr_cnt;
    int32_t *isrs;
} rd_kafka_metadata_partition_t;

typedef struct {
    char *topic;
    int partition_cnt;
    rd_kafka_metadata_partition_t *partitions;
    int err;
} rd_kafka_metadata_topic_t;

typedef struct {
    int broker_cnt;
    void *brokers;
    int topic_cnt;
    rd_kafka_metadata_topic_t *topics;
    int32_t orig_broker_id;
    char *orig_broker_name;
} rd_kafka_metadata_t;

enum { RD_KAFKA_PRODUCER = 0, RD_KAFKA_CONSUMER = 1 };
enum { RD_KAFKA_RESP_ERR__PARTITION_EOF = -191, RD_KAFKA_RESP_ERR__TIMED_OUT = -185,
       RD_KAFKA_RESP_ERR__QUEUE_FULL = -184, RD_KAFKA_RESP_ERR__FATAL = -150 };
enum { RD_KAFKA_EVENT_DR = 0x1, RD_KAFKA_EVENT_FETCH = 0x2, RD_KAFKA_EVENT_LOG = 0x4, RD_KAFKA_EVENT_ERROR = 0x8,
       RD_KAFKA_EVENT_OFFSET_COMMIT = 0x20, RD_KAFKA_EVENT_STATS = 0x40,
       RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH = 0x100 };
enum { RD_KAFKA_VTYPE_RKT = 2, RD_KAFKA_VTYPE_PARTITION = 3, RD_KAFKA_VTYPE_VALUE = 4, RD_KAFKA_VTYPE_KEY = 5,
       RD_KAFKA_VTYPE_MSGFLAGS = 7, RD_KAFKA_VTYPE_TIMESTAMP = 8, RD_KAFKA_VTYPE_HEADERS = 10 };
enum { RD_KAFKA_MSG_F_COPY = 0x2, RD_KAFKA_PARTITION_UA = -1, RD_KAFKA_OFFSET_INVALID = -1001 };
enum { RD_KAFKA_PURGE_F_QUEUE = 1, RD_KAFKA_PURGE_F_INFLIGHT = 2, RD_KAFKA_PURGE_F_NON_BLOCKING = 4,
       RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE = 8 };

#define FUNCTIONS(F) \
    F(int, version, (void)) \
    F(const char *, version_str, (void)) \
    F(const char *, err2name, (int)) \
    F(const char *, err2str, (int)) \
    F(int, error_code, (const rd_kafka_error_t *)) \
    F(const char *, error_string, (const rd_kafka_error_t *)) \
    F(int, error_is_fatal, (const rd_kafka_error_t *)) \
    F(int, error_is_retriable, (const rd_kafka_error_t *)) \
    F(int, error_txn_requires_abort, (const rd_kafka_error_t *)) \
    F(void, error_destroy, (rd_kafka_error_t *)) \
    F(int, fatal_error, (rd_kafka_t *, char *, size_t)) \
    F(rd_kafka_conf_t *, conf_new, (void)) \
    F(void, conf_destroy, (rd_kafka_conf_t *)) \
    F(int, conf_set, (rd_kafka_conf_t *, const char *, const char *, char *, size_t)) \
    F(int, conf_get, (const rd_kafka_conf_t *, const char *, char *, size_t *)) \
    F(const rd_kafka_conf_t *, conf, (rd_kafka_t *)) \
    F(void, conf_set_events, (rd_kafka_conf_t *, int)) \
    F(rd_kafka_t *, new, (int, rd_kafka_conf_t *, char *, size_t)) \
    F(void, destroy_flags, (rd_kafka_t *, int)) \
    F(int, set_log_queue, (rd_kafka_t *, rd_kafka_queue_t *)) \
    F(rd_kafka_queue_t *, queue_get_main, (rd_kafka_t *)) \
    F(rd_kafka_queue_t *, queue_get_consumer, (rd_kafka_t *)) \
    F(rd_kafka_queue_t *, queue_get_partition, (rd_kafka_t *, const char *, int32_t)) \
    F(void, queue_forward, (rd_kafka_queue_t *, rd_kafka_queue_t *)) \
    F(void, queue_io_event_enable, (rd_kafka_queue_t *, int, const void *, size_t)) \
    F(void, queue_destroy, (rd_kafka_queue_t *)) \
    F(rd_kafka_event_t *, queue_poll, (rd_kafka_queue_t *, int)) \
    F(int, event_type, (const rd_kafka_event_t *)) \
    F(int, event_error, (rd_kafka_event_t *)) \
    F(const char *, event_error_string, (rd_kafka_event_t *)) \
    F(int, event_error_is_fatal, (rd_kafka_event_t *)) \
    F(int, event_log, (rd_kafka_event_t *, const char **, const char **, int *)) \
    F(const char *, event_stats, (rd_kafka_event_t *)) \
    F(const char *, event_config_string, (rd_kafka_event_t *)) \
    F(rd_kafka_topic_partition_list_t *, event_topic_partition_list, (rd_kafka_event_t *)) \
    F(const rd_kafka_message_t *, event_message_next, (rd_kafka_event_t *)) \
    F(void, event_destroy, (rd_kafka_event_t *)) \
    F(int, oauthbearer_set_token, (rd_kafka_t *, const char *, int64_t, const char *, const char **, size_t, char *, \
                                   size_t)) \
    F(int, oauthbearer_set_token_failure, (rd_kafka_t *, const char *)) \
    F(int, poll_set_consumer, (rd_kafka_t *)) \
    F(int, consumer_close, (rd_kafka_t *)) \
    F(ssize_t, consume_batch_queue, (rd_kafka_queue_t *, int, rd_kafka_message_t **, size_t)) \
    F(void, message_destroy, (rd_kafka_message_t *)) \
    F(int64_t, message_timestamp, (const rd_kafka_message_t *, int *)) \
    F(int, message_headers, (const rd_kafka_message_t *, rd_kafka_headers_t **)) \
    F(int, header_get_all, (const rd_kafka_headers_t *, size_t, const char **, const void **, size_t *)) \
    F(rd_kafka_topic_partition_list_t *, topic_partition_list_new, (int)) \
    F(rd_kafka_topic_partition_t *, topic_partition_list_add, (rd_kafka_topic_partition_list_t *, const char *, \
                                                               int32_t)) \
    F(void, topic_partition_list_destroy, (rd_kafka_topic_partition_list_t *)) \
    F(rd_kafka_error_t *, incremental_assign, (rd_kafka_t *, const rd_kafka_topic_partition_list_t *)) \
    F(rd_kafka_error_t *, incremental_unassign, (rd_kafka_t *, const rd_kafka_topic_partition_list_t *)) \
    F(int, pause_partitions, (rd_kafka_t *, rd_kafka_topic_partition_list_t *)) \
    F(int, resume_partitions, (rd_kafka_t *, rd_kafka_topic_partition_list_t *)) \
    F(rd_kafka_error_t *, seek_partitions, (rd_kafka_t *, rd_kafka_topic_partition_list_t *, int)) \
    F(int, get_watermark_offsets, (rd_kafka_t *, const char *, int32_t, int64_t *, int64_t *)) \
    F(int, query_watermark_offsets, (rd_kafka_t *, const char *, int32_t, int64_t *, int64_t *, int)) \
    F(int, offsets_for_times, (rd_kafka_t *, rd_kafka_topic_partition_list_t *, int)) \
    F(int, committed, (rd_kafka_t *, rd_kafka_topic_partition_list_t *, int)) \
    F(int, commit_queue, (rd_kafka_t *, const rd_kafka_topic_partition_list_t *, rd_kafka_queue_t *, void *, void *)) \
    F(rd_kafka_topic_conf_t *, default_topic_conf_dup, (rd_kafka_t *)) \
    F(void, topic_conf_set_partitioner_cb, (rd_kafka_topic_conf_t *, choose_partition_t *)) \
    F(void, topic_conf_set_opaque, (rd_kafka_topic_conf_t *, void *)) \
    F(rd_kafka_topic_t *, topic_new, (rd_kafka_t *, const char *, rd_kafka_topic_conf_t *)) \
    F(int, topic_partition_available, (const rd_kafka_topic_t *, int32_t)) \
    F(const char *, topic_name, (const rd_kafka_topic_t *)) \
    F(void, topic_destroy, (rd_kafka_topic_t *)) \
    F(int, metadata, (rd_kafka_t *, int, rd_kafka_topic_t *, const rd_kafka_metadata_t **, int)) \
    F(void, metadata_destroy, (const rd_kafka_metadata_t *)) \
    F(rd_kafka_error_t *, produceva, (rd_kafka_t *, const rd_kafka_vu_t *, size_t)) \
    F(rd_kafka_headers_t *, headers_new, (size_t)) \
    F(int, header_add, (rd_kafka_headers_t *, const char *, ssize_t, const void *, ssize_t)) \
    F(void, headers_destroy, (rd_kafka_headers_t *)) \
    F(int, flush, (rd_kafka_t *, int)) \
    F(int, purge, (rd_kafka_t *, int)) \
    F(int, outq_len, (rd_kafka_t *)) \
    F(rd_kafka_error_t *, init_transactions, (rd_kafka_t *, int)) \
    F(rd_kafka_error_t *, begin_transaction, (rd_kafka_t *)) \
    F(rd_kafka_error_t *, commit_transaction, (rd_kafka_t *, int)) \
    F(rd_kafka_error_t *, abort_transaction, (rd_kafka_t *, int)) \
    F(rd_kafka_consumer_group_metadata_t *, consumer_group_metadata_new, (const char *)) \
    F(void, consumer_group_metadata_destroy, (rd_kafka_consumer_group_metadata_t *)) \
    F(rd_kafka_error_t *, send_offsets_to_transaction, (rd_kafka_t *, const rd_kafka_topic_partition_list_t *, \
                                                        const rd_kafka_consumer_group_metadata_t *, int)) \
    F(int32_t, msg_partitioner_murmur2, (const rd_kafka_topic_t *, const void *, size_t, int32_t, void *, void *)) \
    F(int32_t, msg_partitioner_murmur2_random, (const rd_kafka_topic_t *, const void *, size_t, int32_t, void *, void *))

#define DECLARE(result, name, parameters) static result(*rd_kafka_##name) parameters;
FUNCTIONS(DECLARE)
#undef DECLARE

/* The name of the first function that the library of `handle` or one it depends on does not have; NULL: all are there. */
static const char *find_functions(void *handle) {
#define FIND(result, name, parameters) \
    if (!dlsym(handle, "rd_kafka_" #name)) \
        return "rd_kafka_" #name;
    FUNCTIONS(FIND)
#undef FIND
#define TAKE(result, name, parameters) *(void **)&rd_kafka_##name = dlsym(handle, "rd_kafka_" #name);
    FUNCTIONS(TAKE)
#undef TAKE
    return NULL;
}

#endif
