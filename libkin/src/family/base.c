#include "kin/base.h"

#include <string.h>

#include "fault.h"
#include "os/os.h"

#define TEXT(name, code, text) \
    case name: return text;
#define NAME(name, code, text) \
    case name: return #name;

const char *kin_strerror(kin_err err) {
    switch (err) {
    case KIN_OK: return "success";
    case KIN_OWNER_DIED: return "acquired from a holder that died"; KIN_ERRORS(TEXT)
    default: break;
    }
    const char *text = err < 0 ? strerrordesc_np(-err) : NULL;
    return text ? text : "unknown error";
}

const char *kin_errname(kin_err err) {
    switch (err) {
    case KIN_OWNER_DIED: return "KIN_OWNER_DIED"; KIN_ERRORS(NAME)
    default: return NULL;
    }
}

kin_deadline kin_clock(void) {
    return kin__os_clock();
}

kin_deadline kin_deadline_after(int64_t ns) {
    if (ns <= 0) return KIN_NOW;
    kin_deadline now = kin__os_clock();
    return ns > INT64_MAX - now ? KIN_FOREVER : now + ns;
}

void kin_pages_expect(void *start, size_t len) {
    kin__os_memory_expect(start, len);
}

#ifdef KIN_FAULT_POINTS
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

const char *volatile kin__fault_name;
volatile long kin__fault_after;

void kin__fault(const char *name) {
    static atomic_long passed;
    if (!kin__fault_name || strcmp(name, kin__fault_name) != 0) return;
    if (atomic_fetch_add_explicit(&passed, 1, memory_order_relaxed) + 1 < kin__fault_after) return;
    kill(getpid(), SIGKILL);
    for (;;) pause();
}
#endif
