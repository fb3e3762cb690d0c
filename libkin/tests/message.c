/* Messages: pickles through queues, small and large, with refs and buffers. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "kin.h"

static kin_family *family;

/* One that something has been through: it has the blocks that it keeps. */
static kin_queue queue_new(void) {
    kin_queue queue;
    char buffer[KIN_RECORD_MAX];
    kin_record record;
    CHECK_EQ(kin_queue_create(family, 0, &queue), 0);
    CHECK_EQ(kin_queue_push(&queue, "", 0, 0, KIN_NOW), 0);
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_NOW), 0);
    return queue;
}

static uint64_t blocks(void) {
    kin_family_stats stats;
    kin_family_stats_read(family, &stats);
    return stats.blocks;
}

/* Ends the pickle, and sends it. */
static void push(kin_pickler *p, kin_queue *queue) {
    kin_pickled pickled;
    CHECK_EQ(kin_pickler_end(p, &pickled), 0);
    CHECK_EQ(kin_message_push(queue, &pickled, KIN_NOW), 0);
    kin_pickler_fini(p);
}

static kin_message pop(kin_queue *queue) {
    kin_message message;
    kin_read_error error;
    CHECK_EQ(kin_message_pop(queue, NULL, &message, &error, KIN_NOW), 0);
    return message;
}

static void small_and_large_ones_arrive(void) {
    kin_queue queue = queue_new();
    char text[20000];
    memset(text, 'x', sizeof text);
    for (size_t len = 1; len <= sizeof text; len *= 2) {
        kin_pickler p;
        kin_pickler_init(&p, 5);
        kin_put_str(&p, text, len);
        push(&p, &queue);
        kin_message message = pop(&queue);
        CHECK_EQ((long long)message.values.root->len, (long long)len);
        CHECK(memcmp(message.values.root->text, text, len) == 0);
        CHECK_EQ(message.blob.family != NULL, len >= 8192);
        kin_message_fini(&message);
        kin_message_fini(&message); /* twice is fine */
    }
    kin_message none;
    CHECK_EQ(kin_message_pop(&queue, NULL, &none, NULL, KIN_NOW), -ETIMEDOUT);
    kin_queue_close(&queue);
}

static void buffers_travel_beside(void) {
    kin_queue queue = queue_new();
    uint64_t before = blocks();
    kin_pickler p;
    kin_pickler_init(&p, 5);
    kin_put_tuple_begin(&p);
    kin_put_buffer(&p, (char[]){"one"}, 3, false);
    kin_put_buffer(&p, NULL, 0, false);
    kin_put_buffer(&p, (char[]){"three"}, 5, true);
    kin_put_end(&p);
    push(&p, &queue);
    kin_message message = pop(&queue);
    const kin_value *const *items = message.values.root->items;
    CHECK(items[0]->len == 3 && memcmp(items[0]->bytes, "one", 3) == 0);
    CHECK_EQ((long long)items[1]->len, 0);
    CHECK(items[2]->readonly && memcmp(items[2]->bytes, "three", 5) == 0);
    CHECK((uintptr_t)items[2]->bytes % 64 == 0);
    kin_message_fini(&message);
    CHECK_EQ(blocks(), before);
    kin_queue_close(&queue);
}

/* The sender gives the queue up before anybody has taken the message. */
static void a_message_keeps_what_it_mentions(void) {
    kin_queue queue = queue_new(), other = queue_new(), opened;
    kin_pickler p;
    kin_pickler_init(&p, 5);
    kin_put_list_begin(&p);
    kin_put_ref(&p, family, &other.handle.ref, NULL, NULL);
    kin_put_ref(&p, family, &other.handle.ref, "kinfolk.queues", "SimpleQueue");
    kin_put_end(&p);
    push(&p, &queue);
    kin_queue_close(&other);
    kin_message message = pop(&queue);
    kin_ref ref;
    CHECK(strcmp(message.values.root->items[1]->ref->name, "SimpleQueue") == 0);
    CHECK_EQ(kin_value_ref(message.values.root->items[0], family, &ref), 0);
    CHECK_EQ(kin_queue_open(family, &ref, &opened), 0);
    kin_queue_close(&opened);
    kin_message_fini(&message);
    CHECK_EQ(kin_queue_open(family, &ref, &opened), KIN_ESTALE);
    kin_queue_close(&queue);
}

static void refuses_what_is_gone(void) {
    kin_queue queue = queue_new(), other = queue_new();
    uint64_t before = blocks();
    kin_pickler p;
    kin_pickled pickled;
    kin_pickler_init(&p, 5);
    kin_put_ref(&p, family, &other.handle.ref, NULL, NULL);
    CHECK_EQ(kin_pickler_end(&p, &pickled), 0);
    kin_queue_close(&other);
    CHECK_EQ(kin_message_push(&queue, &pickled, KIN_NOW), KIN_ESTALE);
    CHECK(blocks() < before);
    kin_pickler_fini(&p);
    kin_queue_close(&queue);
}

static void push_blob(kin_queue *queue, const void *data, uint64_t len) {
    kin_blob blob;
    CHECK_EQ(kin_blob_create(family, len, 0, &blob), 0);
    memcpy(blob.data, data, len);
    CHECK_EQ(kin_queue_push_blob(queue, &blob, 0, KIN_NOW), 0);
}

static void torn_ones_are_errors(void) {
    static const struct {
        const char *bytes;
        size_t len;
        kin_err err;
        const char *reason;
    } torn[] = {
        {"kin1", 4, -EBADMSG, "the blob holds no message"},
        {"kin2\0\0\0\0\1\0\0\0\0\0\0\0.", 17, -EBADMSG, "the blob holds no message"},
        {"kin1\0\0\0\0\2\0\0\0\0\0\0\0.", 17, -EBADMSG, "the blob holds no message"},
        {"kin1\xff\xff\xff\xff\1\0\0\0\0\0\0\0.", 17, -EBADMSG, "the blob holds no message"},
        {"kin1\1\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0.", 25, -EBADMSG,
         "a buffer does not lie in the blob"},
        {"kin1\0\0\0\0\1\0\0\0\0\0\0\0.", 17, KIN_EPICKLE, "too little is on the stack"},
    };
    kin_queue queue = queue_new();
    uint64_t before = blocks();
    kin_message message;
    kin_read_error error;
    for (size_t i = 0; i < sizeof torn / sizeof *torn; i++) {
        push_blob(&queue, torn[i].bytes, torn[i].len);
        CHECK_EQ(kin_message_pop(&queue, NULL, &message, &error, KIN_NOW), torn[i].err);
        CHECK(strcmp(error.reason, torn[i].reason) == 0);
    }
    CHECK_EQ(kin_queue_push(&queue, "]", 1, 0, KIN_NOW), 0);
    CHECK_EQ(kin_message_pop(&queue, NULL, &message, &error, KIN_NOW), KIN_EPICKLESHORT);
    CHECK_EQ((long long)error.off, 1);
    CHECK_EQ(blocks(), before);
    kin_queue_close(&queue);
}

int main(void) {
    CHECK_EQ(kin_family_found(NULL, &family), 0);
    small_and_large_ones_arrive();
    buffers_travel_beside();
    a_message_keeps_what_it_mentions();
    refuses_what_is_gone();
    torn_ones_are_errors();
    kin_family_leave(family);
    return 0;
}
