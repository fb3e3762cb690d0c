/* What the tests of the process room share: looking at descriptors, saying a word
 * from a child to its parent, and a process on an older system. */
#ifndef KIN_TESTS_PROCESS_HELP_H
#define KIN_TESTS_PROCESS_HELP_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "check.h"
#include "kin/process.h"

#ifdef __SANITIZE_THREAD__
/* These tests fork with threads about, and go on in the child: that is their point. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "die_after_fork=0";
}
#endif

#define MS 1000000ll
#define LONG_ENOUGH kin_deadline_after(30000 * MS) /* for what must not hang */

/* "0 1 2 17": the open descriptors of a process, in order. */
static inline char *open_fds(int pid) {
    static _Thread_local char text[8192];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *directory = opendir(path);
    CHECK(directory != NULL);
    int own = pid == getpid() ? dirfd(directory) : -1;
    static _Thread_local int fds[2048];
    int count = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == own) continue;
        int at = count++;
        for (; at > 0 && fds[at - 1] > fd; at--) fds[at] = fds[at - 1];
        fds[at] = fd;
    }
    closedir(directory);
    size_t len = 0;
    text[0] = 0;
    for (int i = 0; i < count; i++) {
        len += (size_t)snprintf(text + len, sizeof text - len, i ? " %d" : "%d", fds[i]);
    }
    return text;
}

static inline int count_fds(int pid) {
    int count = 0;
    for (char *at = open_fds(pid); *at; at++) count += *at == ' ';
    return count + 1;
}

static inline void say(int fd, const char *text) {
    CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
}

/* All that is said until the last who could has ended. */
static inline char *hear_all(int fd) {
    static _Thread_local char text[16384];
    size_t len = 0;
    for (;;) {
        ssize_t got = read(fd, text + len, sizeof text - 1 - len);
        if (got < 0 && errno == EINTR) continue;
        CHECK(got >= 0);
        if (got == 0) break;
        len += (size_t)got;
    }
    text[len] = 0;
    return text;
}

/* One word (a byte), or 0 if none will come. */
static inline int hear(int fd) {
    char word;
    ssize_t got;
    do {
        got = read(fd, &word, 1);
    } while (got < 0 && errno == EINTR);
    return got == 1 ? word : 0;
}

static inline void make_pipe(int ends[2]) {
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
}

static inline int ended_with(kin_process *process) {
    int status = -1000;
    CHECK_EQ(kin_process_wait(process, LONG_ENOUGH, &status), 0);
    kin_process_close(process);
    return status;
}

static inline _Noreturn void pause_for_ever(void) {
    for (;;) pause();
}

/* From here on this process is on a system without pidfds, close_range and signals
 * from descriptors: the kernel answers as one that does not know them. */
static inline void on_old_system(void) {
#define LOAD(field) \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define REFUSE(number)                                   \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS)
    struct sock_filter program[] = {
        LOAD(nr),
        REFUSE(434), /* pidfd_open */
        REFUSE(424), /* pidfd_send_signal */
        REFUSE(436), /* close_range */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3),
        LOAD(args[1]),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_SETSIG, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
#undef LOAD
#undef REFUSE
}

/* Run the tests here, and in a child that is on such a system. */
static inline void here_and_on_old_system(void (*tests)(void)) {
    tests();
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        on_old_system();
        tests();
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

#endif
