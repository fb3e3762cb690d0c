/* Founding a family, joining it, and fork.
 *
 * The process's own end (struct kin_family) is one static object that is never
 * freed: handles point to it, and it is valid in forked children, where the
 * at-fork handlers below give it the child's own row and copies of the parent's
 * holds.  The copies are taken before the fork, by the parent, so that nothing
 * the child inherits can be freed before the child runs. */
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "doorbell.h"
#include "fault.h"
#include "locker.h"
#include "members.h"
#include "os/os.h"
#include "os/os_process.h"
#include "refs.h"

static kin_family self = {.fd = -1,
                          .locker = -1,
                          .local = PTHREAD_MUTEX_INITIALIZER,
                          .bells = {.lock = PTHREAD_MUTEX_INITIALIZER, .ringer = -1}};
static pthread_mutex_t entering = PTHREAD_MUTEX_INITIALIZER;
/* release: who sees the pointer sees the family whole */
static kin_family *_Atomic present;

/* -- The plan of a new arena -------------------------------------------------- */

#define RESERVE_MIN (64ull << 20)
#define WARM_MAX (1ull << 30)

static uint64_t align_up(uint64_t value, uint64_t to) {
    return (value + to - 1) / to * to;
}

/* "64M", "1.5G" is not understood: a whole number with K, M, G or T. */
static kin_err parse_size(const char *text, uint64_t *out) {
    char *end;
    if (*text < '0' || *text > '9') return -EINVAL;
    unsigned long long value = strtoull(text, &end, 10);
    static const char units[] = "KMGT";
    const char *unit = *end ? strchr(units, *end >= 'a' ? *end - 32 : *end) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (unit) end++;
    if (*end || value == 0 || value > UINT64_MAX >> shift) return -EINVAL;
    *out = (uint64_t)value << shift;
    return 0;
}

static kin_err default_limit(uint64_t *out) {
    const char *text = getenv("KINFOLK_ARENA_LIMIT");
    if (text && *text) return parse_size(text, out) ? KIN_EBADLIMIT : 0;
    *out = kin__os_memory_total() / 4 * 3;
    return 0;
}

static void lay_out(kin_arena_shm *arena, uint64_t reserve) {
    uint64_t units = reserve / KIN_UNIT;
    arena->magic = KIN_MAGIC;
    arena->format = KIN_FORMAT;
    arena->members_len = KIN_MEMBERS;
    arena->reserved = reserve;
    arena->members_off = 4096;
    arena->units_off = align_up(4096 + sizeof(kin_member_shm) * KIN_MEMBERS, 4096);
    arena->first_unit =
        align_up(arena->units_off + sizeof(kin_unit_shm) * units, KIN_UNIT) / KIN_UNIT;
    arena->end_unit = units;
}

static void take_view(kin_family *family, uint8_t *base, int fd, int locker) {
    family->base = base;
    family->arena = (kin_arena_shm *)base;
    family->members = (kin_member_shm *)(base + family->arena->members_off);
    family->units = (kin_unit_shm *)(base + family->arena->units_off);
    family->fd = fd;
    family->locker = locker;
    family->cpus = kin__os_cpus();
}

/* A mapping of `reserve` bytes or, where it was not asked for, of what is to be had. */
static kin_err map_new(uint64_t reserve, int *fd_out, uint8_t **base_out, uint64_t *len_out) {
    uint64_t len = reserve ? align_up(reserve, KIN_UNIT) : KIN_ARENA_MAX;
    if (len < RESERVE_MIN || len > KIN_ARENA_MAX) return -EINVAL;
    for (; len >= RESERVE_MIN; len /= 4) {
        int fd = kin__os_memory_new(len);
        if (fd == -EMFILE || fd == -ENFILE) return fd;
        void *base = fd < 0 ? NULL : kin__os_memory_map(fd, len);
        if (base) {
            *fd_out = fd, *base_out = base, *len_out = len;
            return 0;
        }
        if (fd >= 0) kin__os_close(fd);
        if (reserve) break;
    }
    return KIN_EARENAMAP;
}

/* -- Fork ------------------------------------------------------------------------ */

static void prepare_child(kin_family *family) {
    family->child_token = 0;
    family->child_block = NULL;
    if (kin__may(family)) return;
    uint32_t child = kin__member_prepare(family);
    if (!child) return;
    if (kin__holds_copy(family, child)) family->child_token = child;
    KIN_FAULT("fork-prepared");
}

static void before_fork(void) {
    kin_family *family = atomic_load_explicit(&present, memory_order_acquire);
    if (!family) return;
    pthread_mutex_lock(&family->local);
    prepare_child(family);
    kin__doorbells_before_fork(family);
}

static void after_fork_in_parent(void) {
    kin_family *family = atomic_load_explicit(&present, memory_order_acquire);
    if (!family) return;
    kin__doorbells_after_fork(family, false);
    free(family->child_block);
    family->child_block = NULL;
    pthread_mutex_unlock(&family->local);
}

static void after_fork_in_child(void) {
    kin_family *family = atomic_load_explicit(&present, memory_order_acquire);
    if (!family) return;
    kin__doorbells_after_fork(family, true);
    uint32_t token = family->child_token;
    if (token && !kin__member_adopt(family, token)) token = 0;
    atomic_store_explicit(&family->token, token, memory_order_relaxed);
    atomic_store_explicit(&family->hands, 0, memory_order_relaxed);
    atomic_store_explicit(&family->left, false, memory_order_relaxed);
    free(family->holds.block);
    family->holds.block = family->child_block;
    if (!family->child_block)
        family->holds.block_count = family->holds.used = family->holds.spare_count = 0;
    family->child_block = NULL;
    pthread_mutex_unlock(&family->local);
}

/* -- Coming in --------------------------------------------------------------------- */

static kin_err enter(kin_family **out) {
    static bool prepared_for_fork;
    kin_err err = kin__member_enter(&self);
    if (err) return err;
    if (!prepared_for_fork &&
        pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child))
        return -ENOMEM;
    prepared_for_fork = true;
    kin__doorbells_enter(&self);
    atomic_store_explicit(&present, &self, memory_order_release);
    *out = &self;
    return 0;
}

/* A forked child that got no row keeps its parent's handles, useless as they are,
 * and so can't have another family. */
static kin_err may_enter(void) {
    if (!atomic_load_explicit(&present, memory_order_acquire)) return 0;
    return kin_family_self() ? KIN_EINFAMILY : KIN_ENOFAMILY;
}

static void give_view_up(uint8_t *base, uint64_t len) {
    kin__os_memory_unmap(base, len);
    self.base = NULL;
    self.fd = self.locker = -1;
}

static void write_header(kin_arena_shm *arena, uint64_t reserve, const kin_family_options *want) {
    lay_out(arena, reserve);
    arena->limit = want->limit < reserve ? want->limit : reserve;
    arena->warm_budget = want->warm ? want->warm : arena->limit / 16;
    if (!want->warm && arena->warm_budget > WARM_MAX) arena->warm_budget = WARM_MAX;
    atomic_init(&arena->rows_used, 256);
    kin__arena_format(arena);
}

static kin_err found_in(uint8_t *base, int fd, kin_family **out) {
    kin_arena_shm *arena = (kin_arena_shm *)base;
    int locker = kin__locker_found(&arena->locker);
    if (locker < 0) return locker;
    take_view(&self, base, fd, locker);
    kin_err err = kin__os_random(arena->id, sizeof arena->id);
    if (!err) err = enter(out);
    if (err) kin__os_close(locker);
    return err;
}

static kin_err found(const kin_family_options *options, kin_family **out) {
    kin_family_options want = options ? *options : (kin_family_options){0};
    kin_err err = want.limit ? 0 : default_limit(&want.limit);
    if (err) return err;
    int fd = -1;
    uint8_t *base = NULL;
    uint64_t reserve = 0;
    err = map_new(want.reserve, &fd, &base, &reserve);
    if (err) return err;
    write_header((kin_arena_shm *)base, reserve, &want);
    err = found_in(base, fd, out);
    if (!err) return 0;
    give_view_up(base, reserve);
    kin__os_close(fd);
    return err;
}

kin_err kin_family_found(const kin_family_options *options, kin_family **out) {
    pthread_mutex_lock(&entering);
    kin_err err = may_enter();
    if (!err) err = found(options, out);
    pthread_mutex_unlock(&entering);
    return err;
}

/* Is this the header of an arena of `len` bytes that we can work in? */
static bool is_sound(const kin_arena_shm *found, uint64_t len) {
    kin_arena_shm plan = {0};
    if (len < RESERVE_MIN || len > KIN_ARENA_MAX || len % KIN_UNIT) return false;
    lay_out(&plan, len);
    return found->magic == plan.magic && found->format == plan.format &&
           found->members_len == plan.members_len && found->reserved == plan.reserved &&
           found->members_off == plan.members_off && found->units_off == plan.units_off &&
           found->first_unit == plan.first_unit && found->end_unit == plan.end_unit &&
           found->limit != 0 && found->limit <= len;
}

static kin_err join(int fd, int locker, kin_family **out) {
    uint64_t len = kin__os_memory_len(fd);
    if (len < RESERVE_MIN || len > KIN_ARENA_MAX) return KIN_EBADARENA;
    uint8_t *base = kin__os_memory_map(fd, len);
    if (!base) return KIN_EARENAMAP;
    kin_arena_shm *arena = (kin_arena_shm *)base;
    if (!is_sound(arena, len) || !kin__locker_is(&arena->locker, locker)) {
        kin__os_memory_unmap(base, len);
        return KIN_EBADARENA;
    }
    take_view(&self, base, fd, locker);
    kin_err err = enter(out);
    if (err) {
        give_view_up(base, len);
        return err;
    }
    (void)kin__os_close_on_exec(fd);
    (void)kin__os_close_on_exec(locker);
    return 0;
}

kin_err kin_family_join(int arena, int locker, kin_family **out) {
    pthread_mutex_lock(&entering);
    kin_err err = may_enter();
    if (!err) err = join(arena, locker, out);
    pthread_mutex_unlock(&entering);
    return err;
}

/* -- Questions ------------------------------------------------------------------------ */

kin_family *kin_family_self(void) {
    kin_family *family = atomic_load_explicit(&present, memory_order_acquire);
    return family && kin__token(family) ? family : NULL;
}

void kin_family_fds(const kin_family *family, int *arena, int *locker) {
    *arena = family->fd;
    *locker = family->locker;
}

const uint8_t *kin_family_id(const kin_family *family) {
    return family->arena->id;
}

uint32_t kin_family_member(const kin_family *family) {
    return kin__token(family);
}

static void count_block(kin_family *family, uint64_t off, kin_block_shm *block, uint64_t size,
                        void *context) {
    (void)family, (void)off;
    kin_family_stats *stats = context;
    unsigned state = KIN_TAG_STATE(kin__block_tag(block));
    if (state == KIN_FREE) return;
    stats->blocks++;
    stats->in_use += size;
    if (state == KIN_OBJECT) stats->objects++;
}

void kin_family_stats_read(kin_family *family, kin_family_stats *out) {
    const kin_arena_shm *arena = family->arena;
    *out = (kin_family_stats){.reserved = arena->reserved, .limit = arena->limit};
    out->committed = kin__os_memory_given(family->fd);
    uint32_t used = atomic_load_explicit(&arena->rows_used, memory_order_relaxed);
    for (uint32_t slot = 0; slot < used; slot++) {
        uint64_t word = atomic_load_explicit(&family->members[slot].word, memory_order_acquire);
        uint32_t token = KIN_TOKEN(slot, KIN_ROW_GEN(word));
        if (KIN_ROW_STATE(word) == KIN_ROW_ALIVE && kin__member_alive(family, token))
            out->members++;
    }
    out->waiting = kin__locker_count(&arena->locker);
    kin__blocks_walk(family, count_block, out);
}
