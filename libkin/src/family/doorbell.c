/* Doorbells: descriptors that are readable when an object of the arena is ready.
 *
 * docs/doorbell.md has the protocol.  A doorbell's lock guards what it watches, and is held
 * while it is drained, armed and looked at; the family's `bells.lock` guards the list of this
 * process's doorbells and what it rings with.  The first may be held when the second is taken.
 *
 * In a forked child nothing of a doorbell is touched but its list entry and descriptor: its lock
 * may have been another thread's at that moment. */
#include "doorbell.h"

#include <stdlib.h>
#include <string.h>

#include "kinds.h"
#include "os/os_bell.h"
#include "os/os_process.h"
#include "watch.h"

typedef struct watched {
    const void *shm;
    uint32_t hold; /* the handle that it was asked for by */
    int what;
    bool (*is_ready)(const void *shm, int what);
    _Atomic uint64_t *watch;
    _Atomic uint32_t *flag;
    _Atomic uint64_t *entry;
} watched;

struct kin_doorbell {
    kin_family *family;
    uint32_t token, number;
    int fd; /* -1: a forked child's copy */
    pthread_mutex_t lock;
    watched *items;
    size_t count, room;
    kin_doorbell *next, *previous; /* guarded by bells.lock */
};

/* -- What is watched ---------------------------------------------------------------- */

static kin_err watched_of(const kin_handle *object, int what, watched *out) {
    const kin__kind *kind = &kin__kinds[object->ref.kind % KIN_KINDS];
    *out = (watched){.shm = object->shm, .hold = object->hold, .what = what};
    if (!kind->is_ready || !kind->watch) return KIN_EKIND;
    if (what != KIN_READY_TAKE && what != KIN_READY_GIVE) return KIN_EKIND;
    out->is_ready = kind->is_ready;
    out->watch = kind->watch(object->shm, what, &out->flag);
    return out->watch ? 0 : KIN_EKIND;
}

kin_err kin_ready(const kin_handle *object, int what, int *ready) {
    watched item;
    kin_err err = watched_of(object, what, &item);
    if (!err) *ready = item.is_ready(item.shm, what);
    return err;
}

/* -- Ringing ---------------------------------------------------------------------------- */

static void put_number(uint8_t *out, uint32_t number) {
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)(number >> (8 * i));
}

static void name_of(const kin_family *family, uint32_t token, uint32_t number,
                    uint8_t name[KIN__OS_BELL_NAME]) {
    memset(name, 0, KIN__OS_BELL_NAME);
    memcpy(name, "kinbell", 8);
    memcpy(name + 8, family->arena->id, KIN_FAMILY_ID_LEN);
    put_number(name + 8 + KIN_FAMILY_ID_LEN, token);
    put_number(name + 12 + KIN_FAMILY_ID_LEN, number);
}

_Static_assert(12 + 4 + KIN_FAMILY_ID_LEN <= KIN__OS_BELL_NAME, "a name holds all of it");

/* With bells.lock held.  -1: none is to be had. */
static int new_ringer_locked(kin_family *family) {
    int fd = kin__os_ringer_new();
    struct kin__os_identity identity;
    if (fd >= 0 && kin__os_identity(fd, &identity)) {
        kin__os_close(fd);
        fd = -1;
    }
    family->bells.ringer = fd < 0 ? -1 : fd;
    if (fd < 0) return -1;
    family->bells.ringer_device = identity.device;
    family->bells.ringer_inode = identity.inode;
    return fd;
}

/* The number may be another file's by now, if the program closed what it did not know. */
static int ringer_locked(kin_family *family) {
    struct kin__os_identity now;
    if (family->bells.ringer >= 0 && kin__os_identity(family->bells.ringer, &now) == 0 &&
        now.device == family->bells.ringer_device && now.inode == family->bells.ringer_inode)
        return family->bells.ringer;
    return new_ringer_locked(family);
}

/* The ringer has too much under way elsewhere, or the bell has: a fresh one tells, and where
 * there is none to be had the likelier is taken to be true. */
static kin_err ring_afresh(const uint8_t name[KIN__OS_BELL_NAME]) {
    int fresh = kin__os_ringer_new();
    if (fresh < 0) return 0;
    kin_err err = kin__os_bell_ring(fresh, name);
    kin__os_close(fresh);
    return err;
}

kin_err kin__doorbell_ring(kin_family *family, uint32_t token, uint32_t number) {
    uint8_t name[KIN__OS_BELL_NAME];
    name_of(family, token, number, name);
    pthread_mutex_lock(&family->bells.lock);
    int ringer = ringer_locked(family);
    kin_err err = ringer < 0 ? -EMFILE : kin__os_bell_ring(ringer, name);
    if (err == -EAGAIN) err = ring_afresh(name);
    pthread_mutex_unlock(&family->bells.lock);
    return err == -ECONNREFUSED ? err : 0;
}

static void ring_own(kin_doorbell *doorbell) {
    (void)kin__doorbell_ring(doorbell->family, doorbell->token, doorbell->number);
}

/* -- Opening and closing ---------------------------------------------------------------- */

#define NAMES_TRIED 1000

static void link_locked(kin_family *family, kin_doorbell *doorbell) {
    doorbell->next = family->bells.first;
    if (doorbell->next) doorbell->next->previous = doorbell;
    family->bells.first = doorbell;
}

static void unlink_locked(kin_family *family, kin_doorbell *doorbell) {
    if (doorbell->next) doorbell->next->previous = doorbell->previous;
    if (doorbell->previous) doorbell->previous->next = doorbell->next;
    else family->bells.first = doorbell->next;
}

static kin_err bind_locked(kin_family *family, kin_doorbell *doorbell) {
    uint8_t name[KIN__OS_BELL_NAME];
    int fd = -EADDRINUSE;
    for (int tries = 0; fd == -EADDRINUSE && tries < NAMES_TRIED; tries++) {
        doorbell->number = family->bells.number++;
        name_of(family, doorbell->token, doorbell->number, name);
        fd = kin__os_bell_new(name);
    }
    if (fd < 0) return fd;
    doorbell->fd = fd;
    return 0;
}

kin_err kin_doorbell_open(kin_family *family, kin_doorbell **out) {
    kin_err err = kin__may(family);
    if (err) return err;
    kin_doorbell *doorbell = calloc(1, sizeof *doorbell);
    if (!doorbell) return -ENOMEM;
    doorbell->family = family;
    doorbell->token = kin__token(family);
    pthread_mutex_init(&doorbell->lock, NULL);
    /* a fork finds it in the list, or not made yet */
    pthread_mutex_lock(&family->bells.lock);
    err = bind_locked(family, doorbell);
    if (!err) link_locked(family, doorbell);
    pthread_mutex_unlock(&family->bells.lock);
    if (err) free(doorbell);
    else *out = doorbell;
    return err;
}

/* Does it belong to this process? */
static bool is_own(const kin_doorbell *doorbell) {
    return doorbell->fd >= 0 && doorbell->token == kin__token(doorbell->family);
}

static kin_err check(const kin_doorbell *doorbell) {
    return is_own(doorbell) ? kin__may(doorbell->family) : KIN_ESTALE;
}

static void unwatch_all(kin_doorbell *doorbell) {
    /* Who has left has given its holds back: the objects may be gone. */
    bool may = kin__may(doorbell->family) == 0;
    for (size_t i = 0; may && i < doorbell->count; i++)
        atomic_store_explicit(doorbell->items[i].entry, 0, memory_order_seq_cst);
    doorbell->count = 0;
}

void kin_doorbell_close(kin_doorbell *doorbell) {
    if (!doorbell) return;
    kin_family *family = doorbell->family;
    if (is_own(doorbell)) {
        unwatch_all(doorbell);
        pthread_mutex_lock(&family->bells.lock);
        unlink_locked(family, doorbell);
        kin__os_close(doorbell->fd);
        pthread_mutex_unlock(&family->bells.lock);
        pthread_mutex_destroy(&doorbell->lock);
        free(doorbell->items); /* a forked child's may be torn: leave it */
    }
    free(doorbell);
}

int kin_doorbell_fd(const kin_doorbell *doorbell) {
    return doorbell->fd;
}

/* -- Watching ------------------------------------------------------------------------------ */

static kin_err add_locked(kin_doorbell *doorbell, const kin_handle *object, int what) {
    if (doorbell->count == doorbell->room) {
        size_t room = doorbell->room * 2 + 4;
        void *grown = realloc(doorbell->items, room * sizeof *doorbell->items);
        if (!grown) return -ENOMEM;
        doorbell->items = grown;
        doorbell->room = room;
    }
    watched *item = &doorbell->items[doorbell->count];
    kin_err err = watched_of(object, what, item);
    if (err) return err;
    uint64_t word = KIN_WATCH_ENTRY(doorbell->token, doorbell->number);
    err = kin__watch_claim(doorbell->family, item->watch, word, &item->entry);
    if (!err) doorbell->count++;
    return err;
}

kin_err kin__doorbell_add(kin_doorbell *doorbell, const kin_handle *object, int what) {
    pthread_mutex_lock(&doorbell->lock);
    kin_err err = add_locked(doorbell, object, what);
    pthread_mutex_unlock(&doorbell->lock);
    return err;
}

/* True: it is ready.  Else it will ring. */
static bool arm_and_look(const watched *item) {
    if (item->is_ready(item->shm, item->what)) return true;
    kin__watch_arm(item->entry, item->watch, item->flag);
    return item->is_ready(item->shm, item->what);
}

static watched *find_locked(kin_doorbell *doorbell, const kin_handle *object, int what) {
    for (size_t i = 0; i < doorbell->count; i++) {
        watched *item = &doorbell->items[i];
        if (item->hold == object->hold && item->what == what) return item;
    }
    return NULL;
}

kin_err kin_doorbell_watch(kin_doorbell *doorbell, const kin_handle *object, int what) {
    kin_err err = check(doorbell);
    if (err) return err;
    pthread_mutex_lock(&doorbell->lock);
    if (!find_locked(doorbell, object, what)) {
        err = add_locked(doorbell, object, what);
        if (!err && arm_and_look(&doorbell->items[doorbell->count - 1])) ring_own(doorbell);
    }
    pthread_mutex_unlock(&doorbell->lock);
    return err;
}

void kin_doorbell_unwatch(kin_doorbell *doorbell, const kin_handle *object, int what) {
    if (check(doorbell)) return;
    pthread_mutex_lock(&doorbell->lock);
    watched *item = find_locked(doorbell, object, what);
    if (item) {
        atomic_store_explicit(item->entry, 0, memory_order_seq_cst);
        *item = doorbell->items[--doorbell->count];
    }
    pthread_mutex_unlock(&doorbell->lock);
}

static bool rearm_locked(kin_doorbell *doorbell) {
    bool ready = false;
    kin__os_bell_drain(doorbell->fd);
    for (size_t i = 0; i < doorbell->count; i++) ready |= arm_and_look(&doorbell->items[i]);
    return ready;
}

bool kin__doorbell_rearm(kin_doorbell *doorbell) {
    pthread_mutex_lock(&doorbell->lock);
    bool ready = rearm_locked(doorbell);
    pthread_mutex_unlock(&doorbell->lock);
    return ready;
}

kin_err kin_doorbell_settle(kin_doorbell *doorbell) {
    kin_err err = check(doorbell);
    if (err) return err;
    pthread_mutex_lock(&doorbell->lock);
    bool ready = rearm_locked(doorbell);
    if (ready) ring_own(doorbell);
    pthread_mutex_unlock(&doorbell->lock);
    return ready;
}

/* -- One that is kept open ------------------------------------------------------------------- */

kin_err kin__doorbell_borrow(kin_family *family, kin_doorbell **out) {
    pthread_mutex_lock(&family->bells.lock);
    kin_doorbell *kept = family->bells.kept;
    family->bells.kept = NULL;
    pthread_mutex_unlock(&family->bells.lock);
    if (kept && check(kept) == 0) {
        *out = kept;
        return 0;
    }
    kin_doorbell_close(kept);
    return kin_doorbell_open(family, out);
}

void kin__doorbell_give_back(kin_doorbell *doorbell) {
    kin_family *family = doorbell->family;
    pthread_mutex_lock(&doorbell->lock);
    unwatch_all(doorbell);
    pthread_mutex_unlock(&doorbell->lock);
    pthread_mutex_lock(&family->bells.lock);
    bool kept = !family->bells.kept;
    if (kept) family->bells.kept = doorbell;
    pthread_mutex_unlock(&family->bells.lock);
    if (!kept) kin_doorbell_close(doorbell);
}

/* -- The process comes in, and forks ----------------------------------------------------------- */

void kin__doorbells_enter(kin_family *family) {
    pthread_mutex_lock(&family->bells.lock);
    (void)ringer_locked(family); /* none to be had now: it is tried again when it is needed */
    pthread_mutex_unlock(&family->bells.lock);
}

void kin__doorbells_before_fork(kin_family *family) {
    pthread_mutex_lock(&family->bells.lock);
}

void kin__doorbells_after_fork(kin_family *family, bool in_child) {
    kin_doorbell *doorbell = in_child ? family->bells.first : NULL;
    for (; doorbell; doorbell = doorbell->next) {
        kin__os_close(doorbell->fd);
        doorbell->fd = -1;
    }
    if (in_child) family->bells.first = family->bells.kept = NULL;
    pthread_mutex_unlock(&family->bells.lock);
}
