/* Two processes and a queue, in C alone.
 *
 * The first process founds a family and makes two queues in its arena.  A forked
 * child is a member at once and finds the queues where they were: it takes
 * numbers from one and puts their squares into the other.  The last answer
 * is too large for a record, so it travels as a blob: written where it will
 * be read, and never copied.
 *
 *     cc two_processes.c $(pkg-config --cflags --libs kin) -o two_processes
 */
#include <kin.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { NUMBERS = 1000, TAG_NUMBER = 1, TAG_TABLE = 2 };

/* Where a small record is copied to. */
typedef union {
    uint64_t number;
    unsigned char bytes[KIN_RECORD_MAX];
} buffer;

typedef struct {
    kin_family *family;
    kin_queue questions, answers;
} shop;

static void check(kin_err err, const char *what) {
    if (err >= 0) return;
    fprintf(stderr, "%s: %s\n", what, kin_strerror(err));
    exit(1);
}

/* Every square so far, in one message of NUMBERS * 8 bytes. */
static void send_table(shop *shop) {
    kin_blob blob;
    check(kin_blob_create(shop->family, NUMBERS * sizeof(uint64_t), 0, &blob), "blob");
    uint64_t *table = (uint64_t *)blob.data;
    for (uint64_t i = 0; i < NUMBERS; i++) table[i] = i * i;
    check(kin_queue_push_blob(&shop->answers, &blob, TAG_TABLE, KIN_FOREVER), "push");
}

/* The child: answers until the queue of questions is shut and empty. */
static int answer(void *arg) {
    shop *shop = arg;
    buffer in;
    kin_record record;
    kin_err err;
    while ((err = kin_queue_pop(&shop->questions, &in, &record, KIN_FOREVER)) == 0) {
        uint64_t square = in.number * in.number;
        check(kin_queue_push(&shop->answers, &square, sizeof square, TAG_NUMBER, KIN_FOREVER),
              "push");
    }
    if (err != KIN_ECLOSED) check(err, "pop");
    send_table(shop);
    return 0;
}

/* Takes every answer; the sum of the squares. */
static uint64_t add_up(shop *shop) {
    buffer in;
    uint64_t sum = 0;
    for (;;) {
        kin_record record;
        check(kin_queue_pop(&shop->answers, &in, &record, KIN_FOREVER), "pop");
        if (record.tag == TAG_TABLE) {
            const uint64_t *table = (const uint64_t *)record.blob.data;
            printf("a table of %" PRIu64 " bytes: %d squared is %" PRIu64 "\n", record.blob.len,
                   NUMBERS - 1, table[NUMBERS - 1]);
            kin_blob_free(&record.blob);
            return sum;
        }
        sum += in.number;
    }
}

int main(void) {
    shop shop;
    check(kin_family_found(NULL, &shop.family), "found a family");
    check(kin_queue_create(shop.family, 16, &shop.questions), "questions");
    check(kin_queue_create(shop.family, 0, &shop.answers), "answers");

    kin_process child;
    check(kin_process_start_fork(answer, &shop, &child), "start");
    for (uint64_t i = 0; i < NUMBERS; i++)
        check(kin_queue_push(&shop.questions, &i, sizeof i, TAG_NUMBER, KIN_FOREVER), "push");
    kin_queue_shutdown(&shop.questions, 0);
    uint64_t sum = add_up(&shop);

    int status;
    check(kin_process_wait(&child, KIN_FOREVER, &status), "wait");
    kin_process_close(&child);
    printf("the squares below %d add up to %" PRIu64 "; the child exited with %d\n", NUMBERS, sum,
           status);
    kin_queue_close(&shop.questions);
    kin_queue_close(&shop.answers);
    kin_family_leave(shop.family);
    return sum == 332833500 && status == 0 ? 0 : 1;
}
