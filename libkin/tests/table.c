/* Dicts and lists in the arena: against plain arrays; by many threads and processes at once; and
 * with members killed at every fault point. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "check.h"
#include "family/fault.h"
#include "kin.h"

#define KEYS 300
#define WORKERS 4

static kin_family *family;
static kin_dict dict;
static kin_list list;
static kin_handle board;

static kin_entry entry(uint32_t key, const char *text, size_t len, const kin_ref *ref) {
    kin_entry made;
    kin_part parts[2] = {{text, len}, {NULL, 0}};
    CHECK_EQ(kin_entry_create(family, 7, &key, sizeof key, parts, 2, ref, ref != NULL, &made), 0);
    return made;
}

static void put(uint32_t key, const char *text, size_t len) {
    kin_entry made = entry(key, text, len, NULL);
    CHECK_EQ(kin_dict_put(&dict, &made, KIN_PUT_ALWAYS, 0, NULL, KIN_FOREVER), 0);
    CHECK(!made.family);
}

static bool get(uint32_t key, kin_found *out) {
    kin_err err = kin_dict_get(&dict, &key, sizeof key, out, KIN_FOREVER);
    CHECK(err == 0 || err == -ENOENT);
    return err == 0;
}

static bool drop(uint32_t key) {
    kin_err err = kin_dict_take(&dict, &key, sizeof key, NULL, KIN_FOREVER);
    CHECK(err == 0 || err == -ENOENT);
    return err == 0;
}

static uint64_t blocks(void) {
    kin_family_stats stats;
    kin_family_stats_read(family, &stats);
    return stats.blocks;
}

/* -- One at a time -------------------------------------------------------------------------- */

/* A dict as simple as can be. */
static struct {
    size_t len;
    struct {
        uint32_t key, value;
    } item[KEYS];
} plain;

static int plain_find(uint32_t key) {
    for (size_t i = 0; i < plain.len; i++)
        if (plain.item[i].key == key) return (int)i;
    return -1;
}

static void plain_put(uint32_t key, uint32_t value) {
    int at = plain_find(key);
    if (at < 0) at = (int)plain.len++;
    plain.item[at].key = key;
    plain.item[at].value = value;
}

static bool plain_drop(uint32_t key) {
    int at = plain_find(key);
    if (at < 0) return false;
    memmove(&plain.item[at], &plain.item[at + 1],
            (--plain.len - (size_t)at) * sizeof plain.item[0]);
    return true;
}

static void same_in_both_directions(void) {
    CHECK_EQ(kin_dict_len(&dict), plain.len);
    for (int back = 0; back < 2; back++) {
        uint64_t number = back ? UINT64_MAX : 0, row = 0;
        kin_found found;
        for (size_t i = 0; i < plain.len; i++) {
            CHECK_EQ(kin_dict_next(&dict, number, back, &row, &found, KIN_FOREVER), 0);
            size_t at = back ? plain.len - 1 - i : i;
            CHECK_EQ(memcmp(found.key, &plain.item[at].key, 4), 0);
            CHECK_EQ(memcmp(found.value, &plain.item[at].value, 4), 0);
            CHECK_EQ(found.tag, 7);
            CHECK(back ? found.number < number : found.number > number);
            number = found.number;
            kin_found_drop(&found);
        }
        CHECK_EQ(kin_dict_next(&dict, number, back, &row, &found, KIN_FOREVER), -ENOENT);
    }
}

static void does_what_a_plain_one_does(void) {
    uint64_t before = blocks();
    uint32_t seed = 1;
    for (int i = 0; i < 30000; i++) {
        seed = seed * 1664525u + 1013904223u;
        uint32_t key = (seed >> 8) % KEYS, value[240];
        memset(value, 0, sizeof value);
        value[0] = seed;
        int grows = i / 3000 % 2; /* now more come, now more go */
        if ((seed >> 24) % 4 > (grows ? 0u : 2u)) {
            put(key, (const char *)value,
                seed >> 20 & 1 ? 4 : sizeof value / (1 + (seed >> 21 & 3)));
            plain_put(key, value[0]);
        } else {
            CHECK_EQ(drop(key), plain_drop(key));
        }
        if (i % 500 == 0) same_in_both_directions();
    }
    same_in_both_directions();
    while (plain.len) {
        kin_found found;
        CHECK_EQ(kin_dict_take_last(&dict, &found, KIN_FOREVER), 0);
        CHECK_EQ(memcmp(found.key, &plain.item[--plain.len].key, 4), 0);
        kin_found_drop(&found);
    }
    CHECK_EQ(kin_dict_take_last(&dict, NULL, KIN_FOREVER), -ENOENT);
    CHECK_EQ(kin_dict_clear(&dict, KIN_FOREVER), 0);
    CHECK_EQ(blocks(), before);
}

static void puts_as_it_is_asked(void) {
    kin_found found;
    kin_entry made = entry(1, "one", 3, NULL);
    CHECK_EQ(kin_dict_put(&dict, &made, KIN_PUT_SAME, 5, NULL, KIN_NOW), -ESTALE);
    CHECK_EQ(kin_dict_put(&dict, &made, KIN_PUT_SAME, 0, NULL, KIN_NOW), 0);
    made = entry(1, "other", 5, NULL);
    CHECK_EQ(kin_dict_put(&dict, &made, KIN_PUT_NEW, 0, &found, KIN_NOW), -EEXIST);
    CHECK_EQ(found.value_len, 3);
    CHECK_EQ(memcmp(found.value, "one", 3), 0);
    CHECK_EQ(kin_dict_put(&dict, &made, KIN_PUT_SAME, found.serial + 1, NULL, KIN_NOW), -ESTALE);
    CHECK_EQ(kin_dict_put(&dict, &made, KIN_PUT_SAME, found.serial, NULL, KIN_NOW), 0);
    CHECK(get(1, &found));
    CHECK_EQ(found.value_len, 5);
    made = entry(2, "unused", 6, NULL);
    kin_entry_free(&made);
    kin_entry_free(&made);
    CHECK_EQ(kin_dict_clear(&dict, KIN_NOW), 0);
    CHECK(!get(1, &found));
}

/* What a value mentions lives as long as it, and a found one as long as it is held. */
static void holds_what_it_mentions(void) {
    uint64_t before = blocks();
    kin_lock lock;
    kin_found found;
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    kin_ref ref = lock.handle.ref;
    kin_entry made = entry(1, "lock", 4, &ref);
    CHECK_EQ(kin_dict_put(&dict, &made, KIN_PUT_ALWAYS, 0, NULL, KIN_FOREVER), 0);
    kin_lock_close(&lock);
    CHECK(get(1, &found));
    put(1, "nothing", 7);
    CHECK_EQ(kin_lock_open(family, &ref, &lock), 0);
    kin_lock_close(&lock);
    kin_found_drop(&found);
    CHECK_EQ(kin_lock_open(family, &ref, &lock), KIN_ESTALE);
    made = entry(2, "gone", 4, NULL);
    CHECK_EQ(kin_dict_clear(&dict, KIN_FOREVER), 0);
    kin_entry none;
    CHECK_EQ(kin_entry_create(family, 0, "k", 1, NULL, 0, &ref, 1, &none), KIN_ESTALE);
    kin_entry_free(&made);
    CHECK_EQ(blocks(), before);
}

/* -- Lists ------------------------------------------------------------------------------------- */

static uint32_t at(int64_t index) {
    kin_found found;
    uint32_t value;
    CHECK_EQ(kin_list_get(&list, index, &found, KIN_FOREVER), 0);
    CHECK_EQ(found.value_len, sizeof value);
    memcpy(&value, found.value, sizeof value);
    kin_found_drop(&found);
    return value;
}

static kin_entry item(uint32_t value) {
    kin_entry made;
    kin_part part = {&value, sizeof value};
    CHECK_EQ(kin_entry_create(family, 0, NULL, 0, &part, 1, NULL, 0, &made), 0);
    return made;
}

static void append(uint32_t value) {
    kin_entry made = item(value);
    CHECK_EQ(kin_list_append(&list, &made, KIN_FOREVER), 0);
}

static void insert(int64_t index, uint32_t value) {
    kin_entry made = item(value);
    CHECK_EQ(kin_list_insert(&list, index, &made, KIN_FOREVER), 0);
}

static void take_at(int64_t index) {
    CHECK_EQ(kin_list_take(&list, index, NULL, KIN_FOREVER), 0);
}

static void lists_are_lists(void) {
    uint64_t before = blocks();
    CHECK_EQ(kin_list_take(&list, 0, NULL, KIN_FOREVER), -ENOENT);
    for (uint32_t i = 0; i < 1000; i++) append(i);
    CHECK_EQ(kin_list_len(&list), 1000);
    CHECK_EQ(at(0), 0);
    CHECK_EQ(at(-1), 999);
    insert(0, 5000);
    insert(-1, 5001);
    insert(99999, 5002);
    CHECK_EQ(at(0), 5000);
    CHECK_EQ(at(-2), 999);
    CHECK_EQ(at(-3), 5001);
    CHECK_EQ(at(-1), 5002);
    take_at(0);
    take_at(-1);
    take_at(-2);
    take_at(500);
    CHECK_EQ(at(500), 501);
    kin_entry made = item(77);
    CHECK_EQ(kin_list_set(&list, 3, &made, KIN_FOREVER), 0);
    CHECK_EQ(at(3), 77);
    made = item(1);
    CHECK_EQ(kin_list_set(&list, 999, &made, KIN_FOREVER), -ENOENT);
    kin_entry_free(&made);
    while (kin_list_len(&list) > 10) take_at(kin_list_len(&list) % 2 ? 0 : -1);
    kin_entry two[2] = {item(100), item(101)};
    int64_t order[] = {9, -2, 0, -1}, twice[] = {1, 1, -1, -2}, fewer[] = {0, -1};
    uint64_t version = kin_list_version(&list);
    uint32_t first = at(0), last = at(9);
    CHECK_EQ(kin_list_rearrange(&list, version - 1, order, 4, two, 2, KIN_FOREVER), -ESTALE);
    CHECK_EQ(kin_list_rearrange(&list, version, twice, 4, two, 2, KIN_FOREVER), -EINVAL);
    CHECK_EQ(kin_list_rearrange(&list, version, fewer, 2, two, 2, KIN_FOREVER), -EINVAL);
    CHECK_EQ(kin_list_rearrange(&list, version, order, 4, two, 2, KIN_FOREVER), 0);
    CHECK(!two[0].family && !two[1].family);
    CHECK_EQ(kin_list_len(&list), 4);
    CHECK(at(0) == last && at(1) == 101 && at(2) == first && at(3) == 100);
    CHECK_EQ(kin_list_rearrange(&list, kin_list_version(&list), NULL, 0, NULL, 0, KIN_FOREVER), 0);
    CHECK_EQ(kin_list_len(&list), 0);
    CHECK_EQ(blocks(), before + 1); /* its array */
}

/* -- Many at once --------------------------------------------------------------------------------- */

typedef struct notes {
    _Atomic uint32_t workers;
    _Atomic uint64_t appended, taken;
} notes;

static notes *said(void) {
    return kin_memory_data(&board);
}

/* Values are text of one letter: torn or mixed ones would be seen. */
static void look(uint32_t key) {
    kin_found found;
    if (!get(key, &found)) return;
    CHECK_EQ(memcmp(found.key, &key, sizeof key), 0);
    for (uint64_t i = 1; i < found.value_len; i++) CHECK_EQ(found.value[i], found.value[0]);
    kin_found_drop(&found);
}

static void walk(void) {
    uint64_t number = 0, row = 0;
    kin_found found;
    while (kin_dict_next(&dict, number, 0, &row, &found, KIN_FOREVER) == 0) {
        CHECK(found.number > number);
        number = found.number;
        kin_found_drop(&found);
    }
}

static void use(uint32_t seed, int turns) {
    char text[900];
    for (int i = 0; i < turns; i++) {
        seed = seed * 1664525u + 1013904223u;
        uint32_t key = (seed >> 10) % 40;
        memset(text, 'a' + (int)(seed >> 16) % 26, sizeof text);
        switch (seed >> 28) {
        case 0:
        case 1: (void)drop(key); break;
        case 2: walk(); break;
        case 3: CHECK(kin_dict_take_last(&dict, NULL, KIN_FOREVER) <= 0); break;
        case 4:
            if (seed >> 20 & 7) break;
            CHECK_EQ(kin_dict_clear(&dict, KIN_FOREVER), 0);
            break;
        case 5:
            append(key);
            atomic_fetch_add(&said()->appended, 1);
            break;
        case 6:
            insert((int)(seed >> 20 & 7) - 4, key);
            atomic_fetch_add(&said()->appended, 1);
            break;
        case 7:
            if (kin_list_take(&list, (int)(seed >> 20 & 7) - 4, NULL, KIN_FOREVER) == 0)
                atomic_fetch_add(&said()->taken, 1);
            break;
        case 8:
        case 9: look(key); break;
        default: put(key, text, (seed >> 20 & 3) == 3 ? sizeof text : seed >> 22 & 63); break;
        }
    }
}

static void *use_in_thread(void *unused) {
    use(atomic_fetch_add(&said()->workers, 1) * 7919 + 1, 6000);
    return unused;
}

static void settle(uint64_t before) {
    CHECK_EQ(kin_dict_clear(&dict, KIN_FOREVER), 0);
    while (kin_list_take(&list, 0, NULL, KIN_FOREVER) == 0) continue;
    CHECK_EQ(kin_list_rearrange(&list, kin_list_version(&list), NULL, 0, NULL, 0, KIN_FOREVER), 0);
    CHECK_EQ(blocks(), before);
}

static void many_at_once(bool as_processes) {
    pthread_t thread[WORKERS];
    uint64_t before = blocks();
    *said() = (notes){0};
    for (int i = 0; i < WORKERS; i++) {
        pid_t pid = as_processes ? fork() : 1;
        if (pid == 0) {
            (void)use_in_thread(NULL);
            kin_family_leave(family);
            _exit(0);
        }
        if (!as_processes) CHECK_EQ(pthread_create(&thread[i], NULL, use_in_thread, NULL), 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        int status = 0;
        if (as_processes) CHECK(wait(&status) > 0);
        else CHECK_EQ(pthread_join(thread[i], NULL), 0);
        CHECK_EQ(status, 0);
    }
    kin_family_reap(family);
    CHECK_EQ(kin_list_len(&list), said()->appended - said()->taken);
    settle(before);
}

/* -- Kills ----------------------------------------------------------------------------------------- */

#ifdef KIN_FAULT_POINTS
static const char *const points[] = {
    "dict-adding",      "dict-replacing",  "dict-retabling", "dict-taking",   "dict-clearing",
    "list-appending",   "list-setting",    "list-taking",    "list-resizing", "list-gathering",
    "list-rearranging", "list-rearranged", "entry-holding",  "journal-store", "arena-freed",
};

/* All kinds of changes; every value is checked by its length: key * 3 bytes, or 800 more. */
static void live(const kin_ref *ref) {
    static char text[1200];
    for (uint32_t i = 0; i < 200; i++) {
        kin_entry made = entry(i % 50, text, i % 50 * 3 + (i % 7 ? 0 : 800), i % 3 ? NULL : ref);
        CHECK_EQ(kin_dict_put(&dict, &made, KIN_PUT_ALWAYS, 0, NULL, KIN_FOREVER), 0);
        if (i % 5 == 0) (void)drop((i + 25) % 50);
        if (i % 90 == 89) CHECK_EQ(kin_dict_clear(&dict, KIN_FOREVER), 0);
        append(i);
        if (i % 3 == 0) insert(i % 11, i);
        if (i % 4 == 0) take_at((int64_t)(i % 13) % (int64_t)kin_list_len(&list));
        made = item(i);
        CHECK_EQ(kin_list_set(&list, 0, &made, KIN_FOREVER), 0);
    }
}

static void is_whole(void) {
    uint64_t count = 0, number = 0, row = 0;
    kin_found found;
    while (kin_dict_next(&dict, number, 0, &row, &found, KIN_FOREVER) == 0) {
        uint32_t key;
        memcpy(&key, found.key, sizeof key);
        CHECK(found.value_len == key * 3 || found.value_len == key * 3 + 800);
        number = found.number;
        kin_found_drop(&found);
        CHECK(get(key, &found));
        CHECK_EQ(found.number, number);
        kin_found_drop(&found);
        count++;
    }
    CHECK_EQ(count, kin_dict_len(&dict));
    for (uint64_t i = 0; i < kin_list_len(&list); i++) CHECK(at((int64_t)i) < 200);
}

static int kill_at(const char *point, long after, const kin_ref *ref) {
    uint64_t before = blocks();
    pid_t pid = fork();
    if (pid == 0) {
        kin__fault_after = after;
        kin__fault_name = point;
        live(ref);
        kin_family_leave(family);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    kin_family_reap(family);
    is_whole();
    put(1, "xyz", 3);
    append(1);
    is_whole();
    settle(before);
    return WIFSIGNALED(status);
}

static void survives_kills(void) {
    kin_lock lock;
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    (void)kill_at("nowhere", 1, &lock.handle.ref);
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        int killed = 0;
        for (long after = 1; after < 300; after += 1 + after / 2)
            killed += kill_at(points[i], after, &lock.handle.ref);
        if (!killed) fprintf(stderr, "nobody came by %s\n", points[i]);
        CHECK(killed);
    }
    kin_lock_close(&lock);
}
#else
static void survives_kills(void) {}
#endif

int main(void) {
    kin_family_options options = {.reserve = 1ull << 32};
    CHECK_EQ(kin_family_found(&options, &family), 0);
    CHECK_EQ(kin_dict_create(family, &dict), 0);
    CHECK_EQ(kin_list_create(family, &list), 0);
    CHECK_EQ(kin_memory_create(family, sizeof(notes), &board), 0);
    does_what_a_plain_one_does();
    puts_as_it_is_asked();
    holds_what_it_mentions();
    lists_are_lists();
    many_at_once(false);
    many_at_once(true);
    survives_kills();
    uint64_t before = blocks();
    kin_dict_close(&dict);
    kin_list_close(&list);
    CHECK(blocks() < before);
    return 0;
}
