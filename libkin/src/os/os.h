/* The system, as libkin needs it: memory, waiting, time, who is alive.
 *
 * This header is the contract; os_linux.c keeps it for Linux, and another
 * system is another file of that kind.  Nothing outside this room names the
 * system.  Starting and waiting for processes is in os_process.h.
 *
 * All functions are safe from any thread; those marked (fork) may be called in
 * the child between fork() and exec(). */
#ifndef KIN_OS_H
#define KIN_OS_H

#include <stdatomic.h>
#include <stdbool.h>

#include "kin/base.h"

/* For a variable of each thread, of a few bytes, that is asked for all the time: it is found without a
 * call.  glibc keeps room for such variables of libraries that are loaded late; others refuse to load
 * them. */
#if defined(__linux__) && defined(__GLIBC__)
#define KIN__OS_NEAR __attribute__((tls_model("initial-exec")))
#else
#define KIN__OS_NEAR
#endif

/* -- Memory ---------------------------------------------------------------- */

/* Anonymous shared memory of `len` bytes, all holes, close-on-exec.
 * Returns the descriptor or -errno. */
int kin__os_memory_new(uint64_t len);
/* Length of what `fd` is open on, 0 if it cannot be told. */
uint64_t kin__os_memory_len(int fd);
/* Memory that the kernel has given to it, in bytes: the holes are not counted. */
uint64_t kin__os_memory_given(int fd);
/* Map the whole of it, shared, readable and writable, left out of core dumps.
 * NULL if there is not the address space. */
void *kin__os_memory_map(int fd, uint64_t len);
void kin__os_memory_unmap(void *base, uint64_t len);
/* Map a part of it anew, in place: own, so that what is written from now on is
 * seen by this process only, or shared again, as it is by then.  Page-aligned. */
kin_err kin__os_memory_remap(void *start, uint64_t len, int fd, uint64_t off, bool own);
/* Give the pages of a range back; it reads as zeros afterwards.  Page-aligned. */
kin_err kin__os_memory_punch(void *start, uint64_t len);
/* Ask for large pages in a range of private memory that is about to be filled. */
void kin__os_memory_expect(void *start, uint64_t len);
/* What this machine, or the cgroup that this process is in, has: bytes. */
uint64_t kin__os_memory_total(void);
uint64_t kin__os_page(void);
int kin__os_close_on_exec(int fd);

/* -- Waiting --------------------------------------------------------------- */

/* Park while *word is `expected`, until a wake or the deadline.
 * 0 (woken, or perhaps not: look again), -EAGAIN (*word differs), -ETIMEDOUT,
 * -EINTR.  Works across processes. */
kin_err kin__os_park(_Atomic uint32_t *word, uint32_t expected, kin_deadline deadline);
/* Wake up to `count` that are parked on the word. */
void kin__os_wake(_Atomic uint32_t *word, int count);
/* CPUs that this process may run on; 1 means that spinning is useless. */
int kin__os_cpus(void);
kin_deadline kin__os_clock(void);
void kin__os_yield(void);

static inline void kin__os_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* -- Processes and threads -------------------------------------------------- */

int kin__os_pid(void);      /* (fork) */
uint32_t kin__os_tid(void); /* (fork) */
int kin__os_threads(void);  /* of this process; 0: not known */
/* Is the calling thread the one that lives as long as its process? (fork) */
bool kin__os_is_main_thread(void);
/* When the process was started, in the system's own ticks; 0 if there is none
 * or it is a zombie. (fork) */
uint64_t kin__os_process_started(int pid);
/* Is there a process with this id at all, a zombie included? */
bool kin__os_process_exists(int pid);

int kin__os_random(void *out, size_t len);

#endif
