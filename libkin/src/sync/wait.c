/* Waiting for objects and descriptors together.
 *
 * In this order: a look at all of them; a short spin where there are objects; then a doorbell
 * watches the objects, and is polled beside the descriptors.  The objects are looked at after
 * each poll, so that what was put into a queue before a sentinel fired is seen with it.
 *
 * As a park does, a poll ends after a while to look again: a member killed between a change
 * and its ring owes the ring until somebody buries it. */
#include "kin/wait.h"

#include <stdlib.h>

#include "family/doorbell.h"
#include "family/kinds.h"
#include "family/members.h"
#include "os/os.h"
#include "os/os_bell.h"
#include "park.h"
#include "sync_kinds.h"

#define FEW 32

typedef struct wait {
    kin_family *family;
    kin_wait_item *items;
    size_t count;
    struct kin__os_reader *readers; /* the descriptors, in the items' order */
    size_t reader_count;
    kin_doorbell *doorbell; /* NULL until it is needed; then it is polled last */
} wait;

/* -- Looking ------------------------------------------------------------------------- */

static bool is_ready(const kin_wait_item *item) {
    return kin__kinds[item->object->ref.kind % KIN_KINDS].is_ready(item->object->shm, item->what);
}

static kin_err check_items(const wait *w) {
    for (size_t i = 0; i < w->count; i++) {
        const kin_wait_item *item = &w->items[i];
        int ready;
        kin_err err = item->object   ? kin_ready(item->object, item->what, &ready)
                      : item->fd < 0 ? -EBADF
                                     : 0;
        if (err) return err;
    }
    return 0;
}

static bool any_object_ready(const void *object) {
    const wait *w = object;
    for (size_t i = 0; i < w->count; i++)
        if (w->items[i].object && is_ready(&w->items[i])) return true;
    return false;
}

/* Poll, then mark what is ready.  0: something is; -ETIMEDOUT; -EINTR and others. */
static kin_err poll_and_mark(wait *w, kin_deadline until) {
    size_t polled = w->reader_count + (w->doorbell != NULL);
    kin_err err = polled ? kin__os_readers_poll(w->readers, polled, until) : -ETIMEDOUT;
    if (err && err != -ETIMEDOUT) return err;
    size_t reader = 0, found = 0;
    for (size_t i = 0; i < w->count; i++) {
        kin_wait_item *item = &w->items[i];
        item->ready = item->object ? is_ready(item) : w->readers[reader++].ready != 0;
        found += (size_t)item->ready;
    }
    return found ? 0 : -ETIMEDOUT;
}

/* -- Waiting --------------------------------------------------------------------------- */

/* A lock whose holder was killed is given on by its burial. */
static void bury_holders(const wait *w) {
    for (size_t i = 0; i < w->count; i++) {
        const kin_handle *object = w->items[i].object;
        if (!object || (object->ref.kind != KIN_KIND_LOCK && object->ref.kind != KIN_KIND_RLOCK))
            continue;
        uint32_t holder = kin__lock_holder(object->shm);
        if (holder && !kin__member_alive(w->family, holder)) (void)kin_family_reap(w->family);
    }
}

static kin_err watch_objects(wait *w) {
    kin_err err = kin__doorbell_borrow(w->family, &w->doorbell);
    for (size_t i = 0; !err && i < w->count; i++)
        if (w->items[i].object)
            err = kin__doorbell_add(w->doorbell, w->items[i].object, w->items[i].what);
    if (!err) w->readers[w->reader_count].fd = kin_doorbell_fd(w->doorbell);
    return err;
}

static kin_err wait_watching(wait *w, kin_deadline deadline) {
    for (;;) {
        bury_holders(w);
        bool ready = kin__doorbell_rearm(w->doorbell);
        kin_deadline until = ready ? KIN_NOW : kin__patience_end();
        bool patient = until < deadline;
        kin_err err = poll_and_mark(w, patient ? until : deadline);
        if (!ready && (patient || err != -ETIMEDOUT)) kin__patience_after(err);
        if (err != -ETIMEDOUT) return err;
        if (kin__os_clock() >= deadline) return err;
    }
}

static kin_err wait_slow(wait *w, kin_deadline deadline) {
    kin_err err = watch_objects(w);
    if (!err) err = wait_watching(w, deadline);
    if (w->doorbell) kin__doorbell_give_back(w->doorbell);
    return err;
}

static kin_err wait_for(wait *w, kin_deadline deadline) {
    kin_err err = check_items(w);
    if (err) return err;
    bool has_objects = w->reader_count < w->count;
    if (!has_objects) return poll_and_mark(w, deadline);
    err = poll_and_mark(w, KIN_NOW);
    if (err != -ETIMEDOUT || deadline == KIN_NOW) return err;
    if (kin__spin(w->family, any_object_ready, w)) {
        err = poll_and_mark(w, KIN_NOW);
        if (err != -ETIMEDOUT) return err;
    }
    return wait_slow(w, deadline);
}

kin_err kin_wait(kin_family *family, kin_wait_item *items, size_t count, kin_deadline deadline) {
    struct kin__os_reader few[FEW], *readers = few;
    if (count >= FEW) readers = malloc((count + 1) * sizeof *readers);
    if (!readers) return -ENOMEM;
    wait w = {.family = family, .items = items, .count = count, .readers = readers};
    for (size_t i = 0; i < count; i++) {
        if (!items[i].object) readers[w.reader_count++].fd = items[i].fd;
        else if (!family) w.family = items[i].object->family;
    }
    kin_err err = wait_for(&w, deadline);
    if (readers != few) free(readers);
    return err;
}
