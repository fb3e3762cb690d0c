/* How fast a queue is between two processes: records a second one way, and the
 * time of a round trip over two queues.  Prints one line a case. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kin.h"

static kin_family *family;

static void must(kin_err err) {
    if (!err) return;
    fprintf(stderr, "%s\n", kin_strerror(err));
    _exit(1);
}

static void one_way(uint32_t len, long count) {
    kin_queue queue;
    static uint8_t data[KIN_RECORD_MAX];
    must(kin_queue_create(family, 0, &queue));
    pid_t pid = fork();
    if (pid == 0) {
        for (long i = 0; i < count; i++) must(kin_queue_push(&queue, data, len, 0, KIN_FOREVER));
        kin_family_leave(family);
        _exit(0);
    }
    kin_record record;
    must(kin_queue_pop(&queue, data, &record, KIN_FOREVER));
    kin_deadline began = kin_clock();
    for (long i = 1; i < count; i++) must(kin_queue_pop(&queue, data, &record, KIN_FOREVER));
    double seconds = (double)(kin_clock() - began) / 1e9;
    waitpid(pid, NULL, 0);
    kin_queue_close(&queue);
    printf("one way, %4u bytes: %6.2f million a second\n", len, (double)count / seconds / 1e6);
}

static void round_trip(long count) {
    kin_queue there, back;
    uint8_t data[KIN_RECORD_MAX] = {0};
    kin_record record;
    must(kin_queue_create(family, 0, &there));
    must(kin_queue_create(family, 0, &back));
    pid_t pid = fork();
    if (pid == 0) {
        for (long i = 0; i < count; i++) {
            must(kin_queue_pop(&there, data, &record, KIN_FOREVER));
            must(kin_queue_push(&back, data, record.len, 0, KIN_FOREVER));
        }
        kin_family_leave(family);
        _exit(0);
    }
    kin_deadline began = kin_clock();
    for (long i = 0; i < count; i++) {
        must(kin_queue_push(&there, data, 8, 0, KIN_FOREVER));
        must(kin_queue_pop(&back, data, &record, KIN_FOREVER));
    }
    printf("round trip: %.2f microseconds\n", (double)(kin_clock() - began) / 1e3 / (double)count);
    waitpid(pid, NULL, 0);
}

int main(void) {
    must(kin_family_found(NULL, &family));
    for (int i = 0; i < 3; i++) {
        one_way(8, 3000000);
        one_way(1024, 1000000);
        round_trip(200000);
    }
    return 0;
}
