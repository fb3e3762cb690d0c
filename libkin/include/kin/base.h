/* Errors, deadlines and the export mark: what every room of libkin uses. */
#ifndef KIN_BASE_H
#define KIN_BASE_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#ifdef KIN_BUILD_SHARED
#define KIN_API __attribute__((visibility("default")))
#else
#define KIN_API
#endif

#define KIN_NODISCARD __attribute__((warn_unused_result))

#ifdef __cplusplus
extern "C" {
#endif

/* 0, a negative error (-errno or one of the KIN_E… below), or positive:
 * success with news. */
typedef int kin_err;

/* One table makes the codes, their names and their texts. */
#define KIN_ERRORS(X)                                                                            \
    X(KIN_ECLOSED, -2001, "the queue is closed")                                                 \
    X(KIN_ESTALE, -2002, "the object named by this reference is gone")                           \
    X(KIN_EFOREIGN, -2003, "the reference belongs to another family")                            \
    X(KIN_ENOFAMILY, -2004, "this process is a member of no family")                             \
    X(KIN_EARENAFULL, -2005, "the arena has reached its limit")                                  \
    X(KIN_EARENAMAP, -2006, "not enough address space to map the smallest arena")                \
    X(KIN_EBADARENA, -2007, "the descriptor is not an arena that this libkin can join")          \
    X(KIN_EMEMBERS, -2008, "the member table is full")                                           \
    X(KIN_EINFAMILY, -2009, "this process is a member of a family already")                      \
    X(KIN_ELEFT, -2010, "this process has left its family")                                      \
    X(KIN_EKIND, -2011, "the reference names an object of another kind")                         \
    X(KIN_EOVERRELEASE, -2012, "released more often than acquired")                              \
    X(KIN_ENOTOWNER, -2013, "released by one who does not hold it")                              \
    X(KIN_ETOOLARGE, -2014, "larger than the arena can ever hold")                               \
    X(KIN_EBADLIMIT, -2015, "KINFOLK_ARENA_LIMIT is no size: a whole number, with K, M, G or T") \
    X(KIN_EPICKLE, -2016, "the bytes are no pickle, or a damaged one")                           \
    X(KIN_EPICKLESHORT, -2017, "the pickle ends too early")                                      \
    X(KIN_EPICKLECODE, -2018, "the pickle is no plain data: loading it takes code")              \
    X(KIN_EPICKLELIMIT, -2019, "the pickle goes beyond a limit of its reader")                   \
    X(KIN_EPICKLEORDER, -2020, "these calls, in this order, make no pickle")                     \
    X(KIN_ENOLOCKER, -2021, "this process has closed the descriptor of its family's locker")     \
    X(KIN_EEND, -2022, "the stream has ended")                                                   \
    X(KIN_ECUT, -2023, "the stream ended in the middle of a message")                            \
    X(KIN_EMESSAGELEN, -2024, "a message of an impossible length")                               \
    X(KIN_EBROKEN, -2025, "the barrier is broken")

#define KIN_ERROR_CODE_(name, code, text) name = (code),
enum { KIN_OK = 0, KIN_ERRORS(KIN_ERROR_CODE_) KIN_OWNER_DIED = 1 };
#undef KIN_ERROR_CODE_

/* A static string for any kin_err.  Threads: safe. */
KIN_API const char *kin_strerror(kin_err err);
/* "KIN_ECLOSED" and the like; NULL for plain -errno codes. */
KIN_API const char *kin_errname(kin_err err);

/* Absolute CLOCK_MONOTONIC time in nanoseconds. */
typedef int64_t kin_deadline;
#define KIN_NOW ((kin_deadline)0)
#define KIN_FOREVER INT64_MAX

/* The present on the deadlines' clock. */
KIN_API kin_deadline kin_clock(void);
/* The deadline `ns` nanoseconds from now; ns <= 0 gives KIN_NOW, an overflow
 * KIN_FOREVER. */
KIN_API kin_deadline kin_deadline_after(int64_t ns);

/* Some bytes of a message, which lie where they are. */
typedef struct kin_part {
    const void *data;
    size_t len;
} kin_part;

/* Say that `len` bytes of private memory from `start` on are about to be filled: the system may
 * give large pages, which take a fraction of the time to come by.  Only a hint. */
KIN_API void kin_pages_expect(void *start, size_t len);

#ifdef __cplusplus
}
#endif

#endif
