/* For the C tests: each is a program that exits 0, or says what does not hold and
 * exits 1 (also in a child, so that its parent can tell). */
#ifndef KIN_TESTS_CHECK_H
#define KIN_TESTS_CHECK_H

#include <stdio.h>
#include <unistd.h>

#define CHECK(condition)                                                \
    do {                                                                \
        if (!(condition)) check_failed(__FILE__, __LINE__, #condition); \
    } while (0)

/* Two integers; says both when they differ. */
#define CHECK_EQ(a, b)                                               \
    do {                                                             \
        long long check_a = (a), check_b = (b);                      \
        if (check_a != check_b) {                                    \
            fprintf(stderr, "%lld is not %lld\n", check_a, check_b); \
            check_failed(__FILE__, __LINE__, #a " == " #b);          \
        }                                                            \
    } while (0)

static inline _Noreturn void check_failed(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: pid %d: does not hold: %s\n", file, line, (int)getpid(), what);
    _exit(1);
}

#endif
