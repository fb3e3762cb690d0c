/* The locker: descriptors that wait in the family's socket.
 *
 * The socket is a queue of parcels, each of a few descriptors and their names: offset and serial of
 * the objects that stand for them.  An object knows its parcel's number (the bytes of names sent
 * before it: what to skip to look at it) and its place in the parcel.  A name whose object is gone,
 * or knows another parcel, is dead.
 *
 * To fetch is to look, which leaves the parcel where it is.  The first parcel can be taken out, and
 * no other: so to take out a dead one, those before it are swept: what lives in them is sent once
 * more, behind all others and several to a parcel, and then they are taken out.
 *
 * All of it happens under one robust mutex.  Each step leaves the socket so that nothing can be
 * lost: what is sent twice is dead in one of the two places, and what was sent before its object
 * was shared is dead.  Only the numbers may be wrong after a death; they are made anew then, by a
 * look at all parcels.  docs/locker.md has the deaths one by one. */
#include "locker.h"

#include "arena.h"
#include "fault.h"
#include "members.h"
#include "mutex.h"
#include "os/os.h"
#include "os/os_locker.h"
#include "os/os_process.h"
#include "refs.h"

#define PACK KIN__OS_LOCKER_FDS
/* Memory of the socket that is left for sweeps when it is full: more than one parcel takes. */
#define SPARE 8192

typedef struct kin_descriptor_shm {
    _Atomic uint64_t parcel; /* its number; guarded by the locker's mutex, as is… */
    _Atomic uint64_t place;  /* …in it */
    _Atomic uint64_t fetched;
} kin_descriptor_shm;

typedef struct kin_label {
    uint64_t off, serial;
} kin_label;

/* Some names and, if they were asked for, their descriptors, which are then this process's. */
typedef struct kin_parcel {
    uint64_t number;
    uint32_t count;
    size_t fd_count;
    kin_label names[PACK];
    int fds[PACK];
} kin_parcel;

static kin_locker_shm *shm_of(const kin_family *family) {
    return &family->arena->locker;
}

static uint64_t get(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed); /* the mutex orders all of them */
}

static void set(_Atomic uint64_t *word, uint64_t value) {
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static void add(_Atomic uint64_t *word, uint64_t value) {
    set(word, get(word) + value);
}

static void raise_to(_Atomic uint64_t *word, uint64_t value) {
    if (get(word) < value) set(word, value);
}

/* -- Names ---------------------------------------------------------------------- */

/* The object that has this name, alive or being ended (by somebody who waits for the mutex),
 * NULL if there is none any more. */
static kin_descriptor_shm *find(kin_family *family, const kin_label *name, bool *alive) {
    kin_block_shm *block = kin__block_find(family, name->off);
    if (!block || name->serial == 0) return NULL;
    if (atomic_load_explicit(&block->serial, memory_order_acquire) != name->serial) return NULL;
    uint64_t tag = kin__block_tag(block);
    if (KIN_TAG_KIND(tag) != KIN_KIND_DESCRIPTOR) return NULL;
    *alive = KIN_TAG_STATE(tag) == KIN_OBJECT;
    if (!*alive && KIN_TAG_STATE(tag) != KIN_HAND) return NULL;
    return kin__payload(family, name->off);
}

/* Is the descriptor at this place of the parcel the one that the object of its name means? */
static bool is_alive(kin_family *family, const kin_parcel *parcel, uint32_t place) {
    bool alive;
    const kin_descriptor_shm *shm = find(family, &parcel->names[place], &alive);
    return shm && alive && get(&shm->parcel) == parcel->number && get(&shm->place) == place;
}

static uint64_t len_of(const kin_parcel *parcel) {
    return parcel->count * sizeof(kin_label);
}

/* -- The socket ------------------------------------------------------------------- */

int kin__locker_found(kin_locker_shm *shm) {
    uint64_t room = 0;
    int fd = kin__os_locker_new(&room);
    if (fd < 0) return fd;
    struct kin__os_identity identity;
    kin_err err = kin__os_identity(fd, &identity);
    if (err) {
        kin__os_close(fd);
        return err;
    }
    shm->device = identity.device;
    shm->inode = identity.inode;
    shm->room = room;
    return fd;
}

bool kin__locker_is(const kin_locker_shm *shm, int fd) {
    struct kin__os_identity identity;
    return kin__os_identity(fd, &identity) == 0 && identity.device == shm->device &&
           identity.inode == shm->inode;
}

/* A program may close all of its descriptors; what has the number by now must be left alone. */
static bool is_there(const kin_family *family) {
    return kin__locker_is(shm_of(family), family->locker);
}

/* Look at parcel `number`, and have its first `wanted` descriptors, too.
 * -EAGAIN: there is none.  KIN_ESTALE: the numbers are wrong. */
static kin_err look(kin_family *family, uint64_t number, size_t wanted, kin_parcel *out) {
    uint64_t taken = get(&shm_of(family)->taken);
    if (number < taken) return KIN_ESTALE;
    kin__os_parcel got = {.label = out->names, .room = sizeof out->names};
    got.fds = out->fds;
    got.wanted = wanted;
    kin_err err = kin__os_locker_look(family->locker, number - taken, &got);
    if (err) return err;
    out->number = number;
    out->count = (uint32_t)(got.len / sizeof(kin_label));
    out->fd_count = got.count;
    return out->count ? 0 : KIN_ESTALE;
}

static void close_all(const kin_parcel *parcel) {
    for (size_t i = 0; i < parcel->fd_count; i++) kin__os_close(parcel->fds[i]);
}

static kin_err send(kin_family *family, kin_parcel *parcel) {
    kin_locker_shm *shm = shm_of(family);
    parcel->number = get(&shm->sent);
    kin_err err = kin__os_locker_put(family->locker, parcel->names, len_of(parcel), parcel->fds,
                                     parcel->count);
    if (err) return err;
    KIN_FAULT("locker-sent");
    add(&shm->sent, len_of(parcel));
    add(&shm->parcels, 1);
    return 0;
}

static kin_err discard(kin_family *family) {
    kin_locker_shm *shm = shm_of(family);
    size_t len;
    kin_err err = kin__os_locker_discard(family->locker, &len);
    if (err) return err;
    KIN_FAULT("locker-taken");
    add(&shm->taken, len);
    add(&shm->parcels, (uint64_t)-1);
    return 0;
}

/* -- Numbers after a death ------------------------------------------------------------ */

/* Give the parcels new numbers, higher than any that may stand in an object, and tell their
 * objects.  Of one that is there twice the last counts.  What is dead is to be swept. */
static void renumber(kin_family *family) {
    kin_locker_shm *shm = shm_of(family);
    uint64_t base = get(&shm->sent) + 2 * sizeof(kin_label) * PACK, number = base, parcels = 0;
    kin_parcel found;
    set(&shm->taken, base);
    KIN_FAULT("locker-renumber");
    for (; look(family, number, 0, &found) == 0; number += len_of(&found), parcels++) {
        for (uint32_t i = 0; i < found.count; i++) {
            bool alive = false;
            kin_descriptor_shm *of = find(family, &found.names[i], &alive);
            if (!alive) raise_to(&shm->sweep_to, number + 1);
            if (!of) continue;
            if (get(&of->parcel) >= base) raise_to(&shm->sweep_to, get(&of->parcel) + 1);
            set(&of->parcel, number);
            set(&of->place, i);
        }
    }
    set(&shm->sent, number);
    set(&shm->parcels, parcels);
    atomic_store_explicit(&shm->torn, 0, memory_order_relaxed);
}

static void tear(kin_locker_shm *shm) {
    atomic_store_explicit(&shm->torn, 1, memory_order_relaxed);
}

/* Fails only in a process that has no locker, or is no member. */
static kin_err lock(kin_family *family) {
    kin_locker_shm *shm = shm_of(family);
    if (!is_there(family)) return KIN_ENOLOCKER;
    kin_err err = kin__mutex_lock(family, &shm->mutex);
    if (err < 0) return err;
    if (err == KIN_OWNER_DIED) tear(shm);
    if (atomic_load_explicit(&shm->torn, memory_order_relaxed)) renumber(family);
    return 0;
}

static void unlock(kin_family *family) {
    kin__mutex_unlock(&shm_of(family)->mutex);
}

/* -- Sweeping, with the mutex held ------------------------------------------------------ */

static uint32_t count_alive(kin_family *family, const kin_parcel *parcel) {
    uint32_t alive = 0;
    for (uint32_t i = 0; i < parcel->count; i++) alive += is_alive(family, parcel, i);
    return alive;
}

/* Is an object alive that names another parcel than this one, which has its name?  Then there are
 * two of them, or the numbers are wrong. */
static bool is_strange(kin_family *family, const kin_parcel *parcel) {
    for (uint32_t i = 0; i < parcel->count; i++) {
        bool alive = false;
        if (find(family, &parcel->names[i], &alive) && alive && !is_alive(family, parcel, i))
            return true;
    }
    return false;
}

/* Have what lives in a parcel in `keep`, too.  -EMFILE: not all of it. */
static kin_err gather(kin_family *family, uint64_t number, kin_parcel *keep) {
    kin_parcel found;
    kin_err err = look(family, number, PACK, &found);
    if (err) return err;
    bool all = found.fd_count == found.count;
    for (uint32_t i = 0; i < found.fd_count; i++) {
        if (!all || !is_alive(family, &found, i)) {
            kin__os_close(found.fds[i]);
            continue;
        }
        keep->names[keep->count++] = found.names[i];
        keep->fds[keep->fd_count++] = found.fds[i];
    }
    return all ? 0 : -EMFILE;
}

/* Gather from the first parcel on, as many as go into one; *to: the first one left.
 * sure: the numbers have just been made.  Else KIN_ESTALE if they look wrong. */
static kin_err gather_some(kin_family *family, bool sure, kin_parcel *keep, uint64_t *to) {
    while (*to < get(&shm_of(family)->sweep_to)) {
        kin_parcel found;
        kin_err err = look(family, *to, 0, &found);
        if (err) return err;
        if (!sure && is_strange(family, &found)) return KIN_ESTALE;
        uint32_t alive = count_alive(family, &found);
        if (keep->count + alive > PACK) return 0;
        if (alive) err = gather(family, *to, keep);
        if (err) return err;
        *to += len_of(&found);
    }
    return 0;
}

/* Sent again there are no more of them, but the system does not know that: so where it finds that
 * too many are under way, its limit is put aside, or nothing could be taken out any more. */
static kin_err send_beyond_limit(kin_family *family, kin_parcel *keep) {
    kin_err err = send(family, keep);
    if (err != -ETOOMANYREFS) return err;
    uint64_t before = kin__os_descriptor_limit_raise();
    err = send(family, keep);
    kin__os_descriptor_limit_set(before);
    return err;
}

static kin_err send_again(kin_family *family, kin_parcel *keep) {
    if (keep->count == 0) return 0;
    kin_err err = send_beyond_limit(family, keep);
    if (err) return err;
    for (uint32_t i = 0; i < keep->count; i++) {
        bool alive;
        kin_descriptor_shm *shm = find(family, &keep->names[i], &alive);
        if (!shm) continue;
        set(&shm->parcel, keep->number);
        KIN_FAULT("locker-moved");
        set(&shm->place, i);
    }
    return 0;
}

/* One parcel's worth: send what lives in the first ones once more, take them out. */
static kin_err sweep_some(kin_family *family, bool sure) {
    kin_locker_shm *shm = shm_of(family);
    kin_parcel keep = {0};
    uint64_t to = get(&shm->taken);
    /* No fork while there are descriptors here that are nobody's: the child would keep them. */
    pthread_mutex_lock(&family->local);
    kin_err err = gather_some(family, sure, &keep, &to);
    if (to > get(&shm->taken)) err = send_again(family, &keep);
    close_all(&keep);
    pthread_mutex_unlock(&family->local);
    while (!err && get(&shm->taken) < to) err = discard(family);
    return err;
}

static kin_err sweep(kin_family *family) {
    kin_locker_shm *shm = shm_of(family);
    bool sure = false;
    while (get(&shm->taken) < get(&shm->sweep_to)) {
        kin_err err = sweep_some(family, sure);
        if (err && (sure || (err != KIN_ESTALE && err != -EAGAIN))) return err;
        if (err) renumber(family);
        sure = err != 0;
    }
    return 0;
}

/* Pack what waits, if that frees one parcel in sixteen. */
static kin_err compact(kin_family *family) {
    kin_locker_shm *shm = shm_of(family);
    uint64_t parcels = get(&shm->parcels), packed = kin__locker_count(shm) / PACK + 1;
    if (parcels < packed + 1 + parcels / 16) return -ENOBUFS;
    set(&shm->sweep_to, get(&shm->sent));
    return sweep(family);
}

uint32_t kin__locker_count(const kin_locker_shm *shm) {
    return (uint32_t)((get(&shm->sent) - get(&shm->taken)) / sizeof(kin_label));
}

void kin__locker_tidy(kin_family *family) {
    kin_locker_shm *shm = shm_of(family);
    uint32_t holder = atomic_load_explicit(&shm->mutex.word, memory_order_relaxed) & KIN_TOKEN_MASK;
    bool owed = get(&shm->taken) < get(&shm->sweep_to) ||
                atomic_load_explicit(&shm->torn, memory_order_relaxed);
    if (!owed && (!holder || kin__member_alive(family, holder))) return;
    if (lock(family)) return;
    (void)sweep(family);
    unlock(family);
}

/* -- Descriptors ---------------------------------------------------------------------------- */

static bool has_room(const kin_family *family) {
    return kin__os_locker_used(family->locker) + SPARE <= shm_of(family)->room;
}

static kin_err deposit(kin_family *family, int fd, const kin_handle *handle) {
    kin_descriptor_shm *shm = handle->shm;
    kin_parcel one = {.count = 1, .fds = {fd}};
    one.names[0] = (kin_label){handle->ref.off, handle->ref.serial};
    if (!has_room(family)) {
        kin_err err = compact(family);
        if (err) return err;
    }
    kin_err err = send(family, &one);
    if (err == -EAGAIN) return -ENOBUFS;
    if (err) return err;
    set(&shm->parcel, one.number);
    set(&shm->place, 0);
    return 0;
}

kin_err kin_descriptor_create(kin_family *family, int fd, kin_descriptor *out) {
    kin_handle handle;
    kin_err err = kin__object_new(family, sizeof(kin_descriptor_shm), &handle);
    if (err) return err;
    err = lock(family);
    if (!err) {
        err = deposit(family, fd, &handle);
        if (!err) kin__object_share(&handle, KIN_KIND_DESCRIPTOR);
        unlock(family);
    }
    if (err) {
        kin__object_drop(&handle);
        return err;
    }
    out->handle = handle;
    return 0;
}

kin_err kin_descriptor_open(kin_family *family, const kin_ref *ref, kin_descriptor *out) {
    return kin__object_open(family, ref, KIN_KIND_DESCRIPTOR, &out->handle);
}

void kin_descriptor_close(kin_descriptor *descriptor) {
    kin_handle_close(&descriptor->handle);
}

/* The descriptor, from where the object says that it is.  KIN_ESTALE, -EAGAIN: it is not there. */
static kin_err fetch_from(const kin_handle *handle, int *fd) {
    kin_family *family = handle->family;
    const kin_descriptor_shm *shm = handle->shm;
    uint64_t place = get(&shm->place);
    if (place >= PACK) return KIN_ESTALE;
    kin_parcel found;
    kin_err err = look(family, get(&shm->parcel), place + 1, &found);
    if (err) return err;
    const kin_label *named = &found.names[place];
    bool is_it =
        place < found.count && named->off == handle->ref.off && named->serial == handle->ref.serial;
    if (!is_it || found.fd_count <= place) {
        close_all(&found);
        return is_it ? -EMFILE : KIN_ESTALE;
    }
    found.fd_count = place; /* those before it came along */
    close_all(&found);
    *fd = found.fds[place];
    return 0;
}

static kin_err fetch_locked(const kin_handle *handle, int *fd) {
    kin_family *family = handle->family;
    pthread_mutex_lock(&family->local); /* as in sweep_some */
    kin_err err = fetch_from(handle, fd);
    pthread_mutex_unlock(&family->local);
    return err;
}

kin_err kin_descriptor_fetch(const kin_descriptor *descriptor, int *fd) {
    const kin_handle *handle = &descriptor->handle;
    kin_family *family = handle->family;
    kin_descriptor_shm *shm = handle->shm;
    kin_err err = kin__may(family);
    if (!err) err = lock(family);
    if (err) return err;
    err = fetch_locked(handle, fd);
    if (err == KIN_ESTALE || err == -EAGAIN) {
        renumber(family);
        err = fetch_locked(handle, fd);
    }
    unlock(family);
    if (err == -EMFILE) {
        kin_err limit = kin__os_descriptor_limit_met(family->locker);
        return limit ? limit : err;
    }
    if (err) return KIN_ESTALE;
    atomic_fetch_add_explicit(&shm->fetched, 1, memory_order_relaxed);
    return 0;
}

uint64_t kin_descriptor_fetched(const kin_descriptor *descriptor) {
    const kin_descriptor_shm *shm = descriptor->handle.shm;
    return atomic_load_explicit(&shm->fetched, memory_order_relaxed);
}

/* Whoever can't do it notes that it is to be done. */
void kin__descriptor_end(kin_family *family, uint64_t off) {
    kin_locker_shm *shm = shm_of(family);
    const kin_descriptor_shm *ended = kin__payload(family, off);
    bool there = is_there(family);
    if (!there) {
        kin_err err = kin__mutex_lock(family, &shm->mutex);
        if (err < 0) return;
        if (err == KIN_OWNER_DIED) tear(shm);
    } else if (lock(family)) {
        return;
    }
    if (get(&ended->parcel) >= get(&shm->taken)) raise_to(&shm->sweep_to, get(&ended->parcel) + 1);
    if (there) (void)sweep(family);
    unlock(family);
}
