/* The queue: order, bounds, blobs, many at once as threads and as processes. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "check.h"
#include "family/fault.h"
#include "kin.h"

static kin_family *family;

static kin_queue queue_new(uint64_t maxsize) {
    kin_queue queue;
    CHECK_EQ(kin_queue_create(family, maxsize, &queue), 0);
    return queue;
}

static uint64_t blocks(void) {
    kin_family_stats stats;
    kin_family_stats_read(family, &stats);
    return stats.blocks;
}

static void keeps_order_over_many_segments(void) {
    uint64_t before = blocks();
    kin_queue queue = queue_new(0);
    char buffer[KIN_RECORD_MAX];
    kin_record record;
    for (uint32_t i = 0; i < 200000; i++)
        CHECK_EQ(kin_queue_push(&queue, &i, sizeof i, i & 0xff, KIN_NOW), 0);
    CHECK_EQ(kin_queue_len(&queue), 200000);
    for (uint32_t i = 0; i < 200000; i++) {
        CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_NOW), 0);
        CHECK_EQ(record.len, 4);
        CHECK_EQ(record.tag, i & 0xff);
        CHECK(memcmp(buffer, &i, 4) == 0);
    }
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_NOW), -ETIMEDOUT);
    kin_queue_close(&queue);
    CHECK_EQ(blocks(), before);
}

static void takes_records_of_any_length(void) {
    kin_queue queue = queue_new(0);
    char out[KIN_RECORD_MAX], in[KIN_RECORD_MAX];
    kin_record record;
    for (size_t i = 0; i < sizeof out; i++) out[i] = (char)(i * 7);
    for (uint32_t len = 0; len <= KIN_RECORD_MAX; len += 1 + len / 16)
        CHECK_EQ(kin_queue_push(&queue, out, len, 0, KIN_NOW), 0);
    for (uint32_t len = 0; len <= KIN_RECORD_MAX; len += 1 + len / 16) {
        CHECK_EQ(kin_queue_pop(&queue, in, &record, KIN_NOW), 0);
        CHECK_EQ(record.len, len);
        CHECK(memcmp(in, out, len) == 0);
    }
    CHECK_EQ(kin_queue_push(&queue, out, KIN_RECORD_MAX + 1, 0, KIN_NOW), -EMSGSIZE);
    kin_queue_close(&queue);
}

static void keeps_its_bound(void) {
    kin_queue queue = queue_new(2);
    char buffer[KIN_RECORD_MAX];
    kin_record record;
    CHECK_EQ(kin_queue_push(&queue, "a", 1, 0, KIN_NOW), 0);
    CHECK_EQ(kin_queue_push(&queue, "b", 1, 0, KIN_NOW), 0);
    CHECK_EQ(kin_queue_push(&queue, "c", 1, 0, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_queue_push(&queue, "c", 1, 0, kin_deadline_after(2000000)), -ETIMEDOUT);
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_NOW), 0);
    CHECK_EQ(kin_queue_push(&queue, "c", 1, 0, KIN_NOW), 0);
    kin_queue_shutdown(&queue, 0);
    CHECK_EQ(kin_queue_push(&queue, "d", 1, 0, KIN_FOREVER), KIN_ECLOSED);
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_FOREVER), 0);
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_FOREVER), 0);
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_FOREVER), KIN_ECLOSED);
    kin_queue_close(&queue);
}

static void counts_work_done(void) {
    kin_queue queue = queue_new(0);
    CHECK_EQ(kin_queue_join(&queue, KIN_NOW), 0);
    CHECK_EQ(kin_queue_task_done(&queue), KIN_EOVERRELEASE);
    CHECK_EQ(kin_queue_push(&queue, "a", 1, 0, KIN_NOW), 0);
    CHECK_EQ(kin_queue_join(&queue, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_queue_task_done(&queue), 0);
    CHECK_EQ(kin_queue_join(&queue, KIN_FOREVER), 0);
    kin_queue_close(&queue);
}

/* A queue in a blob in a queue: the inner one lives as long as the message. */
static void carries_blobs_and_what_they_mention(void) {
    uint64_t before = blocks();
    kin_queue outer = queue_new(0), inner = queue_new(0);
    kin_ref ref = inner.handle.ref;
    kin_blob blob;
    CHECK_EQ(kin_blob_create(family, 1 << 20, 2, &blob), 0);
    memset(blob.data, 'x', blob.len);
    CHECK_EQ(kin_blob_add_ref(&blob, &ref), 0);
    CHECK_EQ(kin_queue_push(&inner, "hello", 5, 0, KIN_NOW), 0);
    CHECK_EQ(kin_queue_push_blob(&outer, &blob, 9, KIN_NOW), 0);
    CHECK(blob.family == NULL);
    kin_queue_close(&inner);

    char buffer[KIN_RECORD_MAX];
    kin_record record;
    CHECK_EQ(kin_queue_pop(&outer, buffer, &record, KIN_NOW), 0);
    CHECK_EQ(record.tag, 9);
    CHECK_EQ(record.blob.len, 1 << 20);
    CHECK_EQ(record.blob.data[record.blob.len - 1], 'x');
    CHECK_EQ(kin_queue_open(family, &ref, &inner), 0);
    kin_blob_free(&record.blob);
    CHECK_EQ(kin_queue_pop(&inner, buffer, &record, KIN_NOW), 0);
    CHECK(memcmp(buffer, "hello", 5) == 0);
    kin_queue_close(&inner);
    CHECK_EQ(kin_queue_open(family, &ref, &inner), KIN_ESTALE);

    /* Undelivered: the blob and what it mentions end with the queue. */
    inner = queue_new(0);
    CHECK_EQ(kin_blob_create(family, 10, 1, &blob), 0);
    CHECK_EQ(kin_blob_add_ref(&blob, &inner.handle.ref), 0);
    CHECK_EQ(kin_queue_push_blob(&outer, &blob, 0, KIN_NOW), 0);
    kin_queue_close(&inner);
    kin_queue_close(&outer);
    CHECK_EQ(blocks(), before);
}

/* Each queue is held by a message in the one before it; the end of the first is the
 * end of all. */
static void ends_a_long_chain_of_queues(void) {
    uint64_t before = blocks();
    kin_queue outer = queue_new(0);
    kin_queue last = outer;
    for (int i = 0; i < 50000; i++) {
        kin_queue inner = queue_new(0);
        kin_blob blob;
        CHECK_EQ(kin_blob_create(family, 10, 1, &blob), 0);
        CHECK_EQ(kin_blob_add_ref(&blob, &inner.handle.ref), 0);
        CHECK_EQ(kin_queue_push_blob(&last, &blob, 0, KIN_NOW), 0);
        if (i) kin_queue_close(&last);
        last = inner;
    }
    kin_queue_close(&last);
    kin_queue_close(&outer);
    CHECK_EQ(blocks(), before);
}

/* -- Many at a time ------------------------------------------------------------------ */

static void takes_and_gives_many(void) {
    uint64_t before = blocks();
    kin_queue queue = queue_new(5);
    char buffer[2 * KIN_RECORD_MAX];
    kin_record out[10];
    kin_item items[8];
    for (uint32_t i = 0; i < 8; i++)
        items[i] = (kin_item){.data = "abcdefgh" + i, .len = 8 - i, .tag = i};
    kin_blob blob;
    CHECK_EQ(kin_blob_create(family, 100000, 0, &blob), 0);
    items[2] = (kin_item){.blob = &blob, .tag = 2};

    size_t done = 0, taken;
    CHECK_EQ(kin_queue_push_many(&queue, items, 8, &done, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(done, 5);
    CHECK(blob.family == NULL);
    CHECK_EQ(kin_queue_len(&queue), 5);
    CHECK_EQ(kin_queue_bytes(&queue), 8 + 7 + 100000 + 5 + 4);
    CHECK_EQ(kin_queue_pop_many(&queue, buffer, sizeof buffer, out, 2, 0, &taken, KIN_NOW), 0);
    CHECK_EQ(taken, 2);
    CHECK_EQ(kin_queue_push_many(&queue, items, 8, &done, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(done, 7);
    /* Only the room for another largest record goes on: here there is none after the first. */
    CHECK_EQ(kin_queue_pop_many(&queue, buffer, KIN_RECORD_MAX, out, 10, 0, &taken, KIN_NOW), 0);
    CHECK_EQ(taken, 2);
    CHECK_EQ(out[0].blob.len, 100000);
    CHECK_EQ(out[1].tag, 3);
    kin_blob_free(&out[0].blob);
    CHECK_EQ(kin_queue_push_many(&queue, items, 8, &done, KIN_NOW), 0);
    CHECK_EQ(kin_queue_push_many(&queue, items, 8, &done, KIN_NOW), 0);
    CHECK_EQ(done, 8);
    CHECK_EQ(kin_queue_pop_many(&queue, buffer, sizeof buffer, out, 10, 0, &taken, KIN_NOW), 0);
    CHECK_EQ(taken, 4);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_EQ(out[i].tag, 4 + i);
        CHECK_EQ(out[i].len, 4 - i);
        CHECK(memcmp(buffer + out[i].off, "efgh" + i, out[i].len) == 0);
    }
    CHECK_EQ(kin_queue_pop_many(&queue, buffer, sizeof buffer, out, 10, 0, &taken, KIN_NOW),
             -ETIMEDOUT);
    CHECK_EQ(taken, 0);
    CHECK_EQ(kin_queue_pop_many(&queue, buffer, 100, out, 10, 0, &taken, KIN_NOW), -EINVAL);
    CHECK_EQ(kin_queue_bytes(&queue), 0);
    kin_queue_close(&queue);
    CHECK_EQ(blocks(), before);
}

/* Only a record whose tag says so is followed by another. */
static void goes_on_through_tags(void) {
    kin_queue queue = queue_new(0);
    char buffer[4 * KIN_RECORD_MAX];
    kin_record out[10];
    size_t taken;
    static const uint32_t tags[] = {5, 1, 4, 3, 2, 1};
    for (int i = 0; i < 6; i++) CHECK_EQ(kin_queue_push(&queue, "x", 1, tags[i], KIN_NOW), 0);
    static const size_t expected[] = {3, 2, 1};
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(kin_queue_pop_many(&queue, buffer, sizeof buffer, out, 10, 1, &taken, KIN_NOW), 0);
        CHECK_EQ(taken, expected[i]);
    }
    kin_queue_close(&queue);
}

/* -- The bound in bytes ----------------------------------------------------------------- */

static void keeps_its_bound_in_bytes(void) {
    kin_queue queue;
    CHECK_EQ(kin_queue_create_bounded(family, 0, 1000, &queue), 0);
    char buffer[KIN_RECORD_MAX] = {0};
    kin_record record;
    kin_blob blob;
    CHECK_EQ(kin_queue_push(&queue, buffer, 600, 0, KIN_NOW), 0);
    CHECK_EQ(kin_queue_push(&queue, buffer, 401, 0, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_queue_push(&queue, buffer, 399, 0, KIN_NOW), 0);
    CHECK(!kin_queue_is_full(&queue));
    CHECK_EQ(kin_queue_push(&queue, buffer, 1, 0, KIN_NOW), 0);
    CHECK(kin_queue_is_full(&queue));
    CHECK_EQ(kin_queue_push(&queue, buffer, 0, 0, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_queue_bytes(&queue), 1000);
    for (int i = 0; i < 3; i++) CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_NOW), 0);
    CHECK_EQ(kin_queue_bytes(&queue), 0);
    /* One that is larger than the bound goes in alone. */
    CHECK_EQ(kin_blob_create(family, 50000, 0, &blob), 0);
    CHECK_EQ(kin_queue_push_blob(&queue, &blob, 0, KIN_NOW), 0);
    CHECK_EQ(kin_queue_push(&queue, buffer, 1, 0, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_NOW), 0);
    kin_blob_free(&record.blob);
    CHECK_EQ(kin_queue_push(&queue, buffer, 1, 0, KIN_NOW), 0);
    kin_queue_close(&queue);
}

/* -- Shutdown ------------------------------------------------------------------------------ */

static void drops_what_is_in_it(void) {
    uint64_t before = blocks();
    kin_queue queue = queue_new(0);
    char buffer[KIN_RECORD_MAX];
    kin_record record;
    for (uint32_t i = 0; i < 10000; i++) {
        kin_blob blob;
        CHECK_EQ(kin_queue_push(&queue, &i, sizeof i, 0, KIN_NOW), 0);
        if (i % 100) continue;
        CHECK_EQ(kin_blob_create(family, 20000, 0, &blob), 0);
        CHECK_EQ(kin_queue_push_blob(&queue, &blob, 0, KIN_NOW), 0);
    }
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_NOW), 0);
    kin_queue_shutdown(&queue, 1);
    CHECK(kin_queue_is_shutdown(&queue));
    CHECK_EQ(kin_queue_len(&queue), 0);
    CHECK_EQ(kin_queue_bytes(&queue), 0);
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_FOREVER), KIN_ECLOSED);
    CHECK_EQ(kin_queue_push(&queue, "x", 1, 0, KIN_FOREVER), KIN_ECLOSED);
    CHECK(blocks() <= before + 2); /* the queue, and its last segment */
    CHECK_EQ(kin_queue_join(&queue, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_queue_task_done(&queue), 0);
    CHECK_EQ(kin_queue_join(&queue, KIN_FOREVER), 0);
    CHECK_EQ(kin_queue_task_done(&queue), KIN_EOVERRELEASE);
    kin_queue_shutdown(&queue, 1);
    kin_queue_shutdown(&queue, 0);
    kin_queue_close(&queue);
    CHECK_EQ(blocks(), before);
}

#ifdef KIN_FAULT_POINTS

/* A child shuts the queue down, and is killed the `after`th time that it comes by. */
static void kill_in_shutdown(kin_queue *queue, const char *point, long after) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        kin__fault_name = point;
        kin__fault_after = after;
        kin_queue_shutdown(queue, 1);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static kin_queue queue_of_ten(void) {
    kin_queue queue = queue_new(0);
    for (uint32_t i = 0; i < 10; i++) {
        kin_blob blob;
        CHECK_EQ(kin_blob_create(family, 20000, 0, &blob), 0);
        CHECK_EQ(kin_queue_push_blob(&queue, &blob, 0, KIN_NOW), 0);
    }
    return queue;
}

static void is_shut_or_dropped_by_the_dead(void) {
    uint64_t before = blocks();
    kin_queue queue = queue_of_ten();
    kill_in_shutdown(&queue, "queue-shutting", 1);
    CHECK(kin_queue_is_shutdown(&queue));
    CHECK_EQ(kin_queue_len(&queue), 10);
    char buffer[KIN_RECORD_MAX];
    kin_record record;
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_FOREVER), 0);
    kin_blob_free(&record.blob);
    CHECK_EQ(kin_family_reap(family), 1);
    kin_queue_close(&queue);
    CHECK_EQ(blocks(), before);

    for (long after = 1; after <= 10; after++) {
        queue = queue_of_ten();
        kill_in_shutdown(&queue, "queue-dropping", after);
        CHECK_EQ(kin_queue_len(&queue), 0);
        CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_FOREVER), KIN_ECLOSED);
        CHECK_EQ(kin_queue_join(&queue, KIN_NOW), 0);
        CHECK_EQ(kin_family_reap(family), 1);
        CHECK_EQ(blocks(), before + 2); /* the queue and its segment */
        kin_queue_close(&queue);
        CHECK_EQ(blocks(), before);
    }
}

#endif

/* -- Many producers and consumers ------------------------------------------------------------ */

#define PRODUCERS 4
#define CONSUMERS 4
#define EACH 50000
static kin_queue shared, results;

static void *produce(void *context) {
    uint64_t id = (uint64_t)(uintptr_t)context;
    for (uint64_t i = 1; i <= EACH; i++) {
        uint64_t value = id << 32 | i;
        CHECK_EQ(kin_queue_push(&shared, &value, sizeof value, 0, KIN_FOREVER), 0);
    }
    return NULL;
}

/* The same, some at a time. */
static void *produce_many(void *context) {
    uint64_t id = (uint64_t)(uintptr_t)context, values[7];
    kin_item items[7];
    for (uint64_t i = 1; i <= EACH;) {
        size_t count = 0, done = 0;
        for (; count < 7 && i <= EACH; count++, i++) {
            values[count] = id << 32 | i;
            items[count] = (kin_item){.data = &values[count], .len = sizeof values[count]};
        }
        CHECK_EQ(kin_queue_push_many(&shared, items, count, &done, KIN_FOREVER), 0);
    }
    return NULL;
}

/* Takes until the queue is shut; sends how many and their sum. */
static void *consume_up_to(size_t most) {
    uint64_t got[2] = {0, 0}, last[PRODUCERS] = {0}, value[2 * KIN_RECORD_MAX / 8];
    kin_record record[5];
    for (;;) {
        size_t taken;
        kin_err err =
            kin_queue_pop_many(&shared, value, sizeof value, record, most, 0, &taken, KIN_FOREVER);
        if (err == KIN_ECLOSED) break;
        CHECK_EQ(err, 0);
        CHECK(taken > 0 && taken <= most);
        for (size_t i = 0; i < taken; i++) {
            CHECK_EQ(record[i].len, 8);
            uint64_t it = value[record[i].off / 8], id = it >> 32, number = it & 0xffffffff;
            CHECK(id < PRODUCERS && number > last[id]);
            last[id] = number;
            got[0]++;
            got[1] += number;
        }
    }
    CHECK_EQ(kin_queue_push(&results, got, sizeof got, 0, KIN_FOREVER), 0);
    return NULL;
}

static void *consume(void *context) {
    (void)context;
    return consume_up_to(1);
}

static void *consume_many(void *context) {
    (void)context;
    return consume_up_to(5);
}

static void check_results(void) {
    uint64_t count = 0, sum = 0;
    for (int i = 0; i < CONSUMERS; i++) {
        uint64_t got[KIN_RECORD_MAX / 8];
        kin_record record;
        CHECK_EQ(kin_queue_pop(&results, got, &record, KIN_FOREVER), 0);
        count += got[0];
        sum += got[1];
    }
    CHECK_EQ(count, (uint64_t)PRODUCERS * EACH);
    CHECK_EQ(sum, (uint64_t)PRODUCERS * EACH * (EACH + 1) / 2);
}

static kin_queue queue_new_bounded(uint64_t maxsize, uint64_t max_bytes) {
    kin_queue queue;
    CHECK_EQ(kin_queue_create_bounded(family, maxsize, max_bytes, &queue), 0);
    return queue;
}

static void works_among_threads(uint64_t maxsize, uint64_t max_bytes) {
    shared = queue_new_bounded(maxsize, max_bytes);
    results = queue_new(0);
    pthread_t producer[PRODUCERS], consumer[CONSUMERS];
    for (int i = 0; i < CONSUMERS; i++)
        pthread_create(&consumer[i], NULL, i % 2 ? consume_many : consume, NULL);
    for (uintptr_t i = 0; i < PRODUCERS; i++)
        pthread_create(&producer[i], NULL, i % 2 ? produce_many : produce, (void *)i);
    for (int i = 0; i < PRODUCERS; i++) pthread_join(producer[i], NULL);
    kin_queue_shutdown(&shared, 0);
    for (int i = 0; i < CONSUMERS; i++) pthread_join(consumer[i], NULL);
    check_results();
    kin_queue_close(&shared);
    kin_queue_close(&results);
}

static pid_t start(void *(*body)(void *), uintptr_t id) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid) return pid;
    body((void *)id);
    kin_family_leave(family);
    _exit(0);
}

static void wait_for(pid_t pid) {
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

static void works_among_processes(uint64_t maxsize, uint64_t max_bytes) {
    uint64_t before = blocks();
    shared = queue_new_bounded(maxsize, max_bytes);
    results = queue_new(0);
    pid_t producer[PRODUCERS], consumer[CONSUMERS];
    for (uintptr_t i = 0; i < CONSUMERS; i++)
        consumer[i] = start(i % 2 ? consume_many : consume, i);
    for (uintptr_t i = 0; i < PRODUCERS; i++)
        producer[i] = start(i % 2 ? produce_many : produce, i);
    for (int i = 0; i < PRODUCERS; i++) wait_for(producer[i]);
    kin_queue_shutdown(&shared, 0);
    for (int i = 0; i < CONSUMERS; i++) wait_for(consumer[i]);
    check_results();
    kin_queue_close(&shared);
    kin_queue_close(&results);
    CHECK_EQ(kin_family_reap(family), PRODUCERS + CONSUMERS);
    CHECK_EQ(blocks(), before);
}

int main(void) {
    kin_family_options options = {.reserve = 1ull << 32};
    CHECK_EQ(kin_family_found(&options, &family), 0);
    kin_queue first = queue_new(0); /* so that the table of holds is there */
    keeps_order_over_many_segments();
    takes_records_of_any_length();
    keeps_its_bound();
    counts_work_done();
    carries_blobs_and_what_they_mention();
    ends_a_long_chain_of_queues();
    takes_and_gives_many();
    goes_on_through_tags();
    keeps_its_bound_in_bytes();
    drops_what_is_in_it();
#ifdef KIN_FAULT_POINTS
    is_shut_or_dropped_by_the_dead();
#endif
    works_among_threads(0, 0);
    works_among_threads(3, 0);
    works_among_threads(0, 100);
    works_among_processes(0, 0);
    works_among_processes(3, 0);
    works_among_processes(10, 40);
    kin_queue_close(&first);
    return 0;
}
