/* A C program among Python ones: it takes messages from a queue, and answers.
 *
 * The Python program tells it the family and the queue:
 *
 *     queue = kinfolk.Queue()
 *     answers = kinfolk.Queue()
 *     queue.put({"numbers": [1, 2, 3], "answer to": answers})
 *     fds = kinfolk._kin.family_fds()
 *     subprocess.Popen(["./talk_to_python", *map(str, fds), queue.ref.hex()], pass_fds=fds)
 *     answers.get()       # {"sum": 6}
 *
 * Without arguments it plays Python's part itself.
 *
 *     cc talk_to_python.c $(pkg-config --cflags --libs kin) -o talk_to_python
 */
#include <kin.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void check(kin_err err, const char *what) {
    if (err >= 0) return;
    fprintf(stderr, "%s: %s\n", what, kin_strerror(err));
    exit(1);
}

static int64_t sum_of(const kin_value *numbers) {
    int64_t sum = 0;
    for (size_t i = 0; numbers && numbers->type == KIN_LIST && i < numbers->len; i++) {
        if (numbers->items[i]->type == KIN_INT) sum += numbers->items[i]->integer;
    }
    return sum;
}

static void send_sum(kin_queue *to, int64_t sum) {
    kin_pickler p;
    kin_pickled pickled;
    kin_pickler_init(&p, KIN_PICKLE_PROTOCOL);
    kin_put_dict_begin(&p);
    kin_put_str(&p, "sum", 3);
    kin_put_int(&p, sum);
    kin_put_end(&p);
    check(kin_pickler_end(&p, &pickled), "pickle");
    check(kin_message_push(to, &pickled, KIN_FOREVER), "push");
    kin_pickler_fini(&p);
}

/* Takes one message, and answers it. */
static void answer(kin_family *family, kin_queue *queue) {
    kin_message message;
    kin_read_error error;
    kin_err err = kin_message_pop(queue, NULL, &message, &error, KIN_FOREVER);
    if (err < 0) fprintf(stderr, "at byte %zu: %s\n", error.off, error.reason);
    check(err, "pop");
    const kin_value *to = kin_value_get(message.values.root, "answer to");
    int64_t sum = sum_of(kin_value_get(message.values.root, "numbers"));
    printf("the numbers add up to %" PRId64 "\n", sum);

    kin_ref ref;
    kin_queue answers;
    check(to ? kin_value_ref(to, family, &ref) : -EINVAL, "no queue to answer to");
    check(kin_queue_open(family, &ref, &answers), "open");
    kin_message_fini(&message); /* now we hold the queue ourselves */
    send_sum(&answers, sum);
    kin_queue_close(&answers);
}

/* A ref as Python gives it: the family's id, kind, offset and serial, in hexadecimal digits. */
static kin_ref parse_ref(const char *hex) {
    uint8_t bytes[36];
    for (size_t i = 0; i < sizeof bytes; i++) {
        unsigned byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1) check(-EINVAL, hex);
        bytes[i] = (uint8_t)byte;
    }
    return (kin_ref){
        .kind = kin_load4(bytes + 16),
        .off = kin_load8(bytes + 20),
        .serial = kin_load8(bytes + 28),
    };
}

/* What Python's queue.put({"numbers": [1, 2, 3], "answer to": answers}) does. */
static void ask(kin_family *family, kin_queue *queue, const kin_queue *answers) {
    kin_pickler p;
    kin_pickled pickled;
    kin_pickler_init(&p, KIN_PICKLE_PROTOCOL);
    kin_put_dict_begin(&p);
    kin_put_str(&p, "numbers", 7);
    kin_put_list_begin(&p);
    for (int i = 1; i <= 3; i++) kin_put_int(&p, i);
    kin_put_end(&p);
    kin_put_str(&p, "answer to", 9);
    kin_put_ref(&p, family, &answers->handle.ref, NULL, NULL);
    kin_put_end(&p);
    check(kin_pickler_end(&p, &pickled), "pickle");
    check(kin_message_push(queue, &pickled, KIN_FOREVER), "push");
    kin_pickler_fini(&p);
}

static int play_both_parts(void) {
    kin_family *family;
    kin_queue queue, answers;
    kin_message message;
    check(kin_family_found(NULL, &family), "found a family");
    check(kin_queue_create(family, 0, &queue), "queue");
    check(kin_queue_create(family, 0, &answers), "answers");
    ask(family, &queue, &answers);
    answer(family, &queue);
    check(kin_message_pop(&answers, NULL, &message, NULL, KIN_NOW), "pop");
    const kin_value *sum = kin_value_get(message.values.root, "sum");
    int fine = sum && sum->type == KIN_INT && sum->integer == 6;
    kin_message_fini(&message);
    kin_queue_close(&answers);
    kin_queue_close(&queue);
    kin_family_leave(family);
    return fine ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc != 4) return play_both_parts();
    kin_family *family;
    kin_queue queue;
    check(kin_family_join(atoi(argv[1]), atoi(argv[2]), &family), "join the family");
    kin_ref ref = parse_ref(argv[3]);
    check(kin_queue_open(family, &ref, &queue), "open the queue");
    answer(family, &queue);
    kin_queue_close(&queue);
    kin_family_leave(family);
    return 0;
}
