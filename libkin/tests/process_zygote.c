/* The zygote: starts from many sides, ends reported, deaths on every side, and
 * requests that nobody should send.
 *
 * A child of the zygote acts on its payload: a letter, then what belongs to it. */
#include <pthread.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "process/zygote_wire.h"
#include "process_help.h"

/* -- The zygote's side ------------------------------------------------------------- */

static int serving_sock, hook_calls;
static ino_t serving_inode;
static bool dies_after_fork;
static int interruptions[2] = {-1, -1}; /* a pipe: a byte for each */

static void before_fork(void *arg) {
    hook_calls++;
}

static void after_in_parent(void *arg) {
    hook_calls++;
    if (dies_after_fork) kill(getpid(), SIGKILL);
}

static void after_in_child(void *arg) {
    struct stat status;
    hook_calls = 100;
    /* closed by now; the number may be in use again */
    CHECK(fstat(serving_sock, &status) != 0 || status.st_ino != serving_inode);
}

static const kin_zygote_hooks hooks = {before_fork, after_in_parent, after_in_child, NULL, NULL};

/* What the child says into its first descriptor. */
static void describe_self(const kin_zygote_order *order) {
    struct rlimit limit;
    struct sigaction action;
    char text[9000];
    getrlimit(RLIMIT_NOFILE, &limit);
    sigaction(SIGCHLD, NULL, &action);
    snprintf(text, sizeof text, "%s; limit %d; %s; %d descriptors: %d %d", open_fds(getpid()),
             (int)limit.rlim_cur, action.sa_handler == SIG_IGN ? "ignores" : "sees",
             (int)order->fd_count, order->fds[0], order->fd_count > 1 ? order->fds[1] : -1);
    say(order->fds[0], text);
}

static int act(const kin_zygote_order *order) {
    const char *payload = order->payload;
    CHECK_EQ(hook_calls, 100);
    switch (order->len ? payload[0] : 0) {
    case 'e': return (unsigned char)payload[1];
    case 'k': return raise(payload[1]);
    case 'd': describe_self(order); return 0;
    case 'p': pause_for_ever();
    case 'l': return order->len == KIN_ZYGOTE_PAYLOAD_MAX && payload[order->len - 1] == 'l';
    case 'w': hear(order->fds[0]); return 0;
    case 's': { /* start another by the same zygote: its socket came along */
        kin_process process;
        CHECK_EQ(kin_zygote_start(order->fds[0], "e\x2a", 2, NULL, 0, &process), 0);
        return ended_with(&process);
    }
    }
    return 99;
}

struct zygote {
    pid_t pid;
    int sock; /* the clients' end */
};

static void ignore_signal(int signo) {}

static _Noreturn void run_zygote(int sock) {
    kin_zygote *zygote;
    kin_zygote_order order;
    kin_err err;
    struct sigaction action = {.sa_handler = ignore_signal};
    sigaction(SIGUSR1, &action, NULL);
    struct stat status;
    CHECK_EQ(fstat(sock, &status), 0);
    serving_inode = status.st_ino;
    serving_sock = sock;
    CHECK_EQ(kin_zygote_new(sock, &zygote), 0);
    while ((err = kin_zygote_serve(zygote, &hooks, &order)) == -EINTR) {
        if (interruptions[1] >= 0) say(interruptions[1], "!");
    }
    kin_zygote_free(zygote);
    if (err == KIN_ZYGOTE_CHILD) {
        int code = act(&order);
        kin_zygote_order_fini(&order);
        _exit(code);
    }
    CHECK(err == 0 || err == KIN_ZYGOTE_UNUSED);
    _exit(0);
}

static struct zygote zygote_new(void (*prepare)(void)) {
    int ends[2];
    CHECK_EQ(kin_zygote_channel(ends), 0);
    struct zygote zygote = {.sock = ends[0]};
    fflush(NULL);
    zygote.pid = fork();
    if (zygote.pid == 0) {
        close(ends[0]);
        if (prepare) prepare();
        run_zygote(ends[1]);
    }
    close(ends[1]);
    return zygote;
}

static void zygote_ends_with(struct zygote *zygote, int expected) {
    kin_process process;
    close(zygote->sock);
    CHECK_EQ(kin_process_open(zygote->pid, &process), 0);
    CHECK_EQ(ended_with(&process), expected);
}

/* -- The client's side ---------------------------------------------------------------- */

static kin_process started(const struct zygote *zygote, const char *payload, size_t len) {
    kin_process process;
    CHECK_EQ(kin_zygote_start(zygote->sock, payload, len, NULL, 0, &process), 0);
    CHECK(process.pid > 0 && process.status_fd >= 0);
    return process;
}

/* The child that it has made ahead, when no other is there any more.  It makes one after each start. */
static pid_t spare_of(const struct zygote *zygote) {
    char path[64];
    int count = 0, first = 0, second;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", zygote->pid, zygote->pid);
    while (count != 1) {
        FILE *children = fopen(path, "r");
        CHECK(children);
        count = fscanf(children, "%d %d", &first, &second);
        fclose(children);
        sched_yield();
    }
    return first;
}

/* How many descriptors the zygote has when it has nothing to do. */
static int fds_at_rest(const struct zygote *zygote) {
    kin_process process = started(zygote, "e", 1);
    ended_with(&process); /* so it serves; the record goes right after the report */
    spare_of(zygote);
    for (int last = count_fds(zygote->pid), now;; last = now) {
        sched_yield();
        if ((now = count_fds(zygote->pid)) == last) return now;
    }
}

static void comes_to_rest(const struct zygote *zygote, int fds) {
    while (count_fds(zygote->pid) > fds) {
        kin_process process = started(zygote, "e\x01", 2);
        CHECK_EQ(ended_with(&process), 1);
    }
}

static void starts_and_reports(void) {
    struct zygote zygote = zygote_new(NULL);
    kin_process process = started(&zygote, "e\x07", 2);
    CHECK_EQ(ended_with(&process), 7);
    process = started(&zygote, "k\x0f", 2);
    CHECK_EQ(ended_with(&process), -15);
    process = started(&zygote, NULL, 0);
    CHECK_EQ(ended_with(&process), 99);

    static char large[KIN_ZYGOTE_PAYLOAD_MAX + 1];
    memset(large, 'l', sizeof large);
    process = started(&zygote, large, KIN_ZYGOTE_PAYLOAD_MAX);
    CHECK_EQ(ended_with(&process), 1);
    CHECK_EQ(kin_zygote_start(zygote.sock, large, sizeof large, NULL, 0, &process), -EMSGSIZE);
    CHECK_EQ(kin_zygote_start(zygote.sock, "", 0, NULL, KIN_ZYGOTE_FDS_MAX + 1, &process), -E2BIG);

    process = started(&zygote, "p", 1);
    int status;
    CHECK_EQ(kin_process_wait(&process, kin_deadline_after(5 * MS), &status), -ETIMEDOUT);
    CHECK_EQ(kin_process_signal(&process, SIGTERM), 0);
    CHECK_EQ(kin_process_wait(&process, LONG_ENOUGH, &status), 0);
    CHECK_EQ(status, -SIGTERM);
    CHECK_EQ(kin_process_signal(&process, SIGTERM), -ESRCH);
    kin_process_close(&process);

    /* from a child of the zygote, over the socket that it was given */
    CHECK_EQ(kin_zygote_start(zygote.sock, "s", 1, &zygote.sock, 1, &process), 0);
    CHECK_EQ(ended_with(&process), 42);
    zygote_ends_with(&zygote, 0);
}

static void lower_limit(void) {
    struct rlimit limit = {24, 400};
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    signal(SIGCHLD, SIG_IGN);
}

/* Children see nothing of the zygote's, however many it has; and the zygote may have
 * more children than the limit that it was started with. */
static void children_are_clean(void) {
    enum { COUNT = 40 };
    int before = count_fds(getpid());
    struct zygote zygote = zygote_new(lower_limit);
    kin_process waiting[COUNT], process;
    int go[2], said[2];
    make_pipe(go);
    int at_rest = fds_at_rest(&zygote);
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(kin_zygote_start(zygote.sock, "w", 1, &go[0], 1, &waiting[i]), 0);
    }
    make_pipe(said);
    int fds[] = {said[1], go[0]};
    CHECK_EQ(kin_zygote_start(zygote.sock, "d", 1, fds, 2, &process), 0);
    close(said[1]);
    char wanted[256];
    /* 0 to 2, then what the test's parent left open, then the two */
    const char *text = hear_all(said[0]);
    snprintf(wanted, sizeof wanted, "limit 24; ignores; 2 descriptors:");
    CHECK(strstr(text, wanted) != NULL);
    int first = atoi(strstr(text, "descriptors:") + 12), listed = 1;
    CHECK(first >= 3 && first < 24);
    for (const char *at = text; *at != ';'; at++) listed += *at == ' ';
    CHECK_EQ(listed, before + 2);
    close(said[0]);
    CHECK_EQ(ended_with(&process), 0);

    close(go[0]);
    close(go[1]);
    for (int i = 0; i < COUNT; i++) CHECK_EQ(ended_with(&waiting[i]), 0);
    comes_to_rest(&zygote, at_rest);
    zygote_ends_with(&zygote, 0);
    CHECK_EQ(count_fds(getpid()), before);
}

static void *start_fifty(void *sock) {
    enum { BATCH = 10 };
    kin_process batch[BATCH];
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < BATCH; i++) {
            char payload[2] = {'e', (char)(round * BATCH + i)};
            CHECK_EQ(kin_zygote_start(*(int *)sock, payload, 2, NULL, 0, &batch[i]), 0);
        }
        for (int i = 0; i < BATCH; i++) CHECK_EQ(ended_with(&batch[i]), round * BATCH + i);
    }
    return NULL;
}

static int start_fifty_alone(void *sock) {
    start_fifty(sock);
    return 0;
}

/* 200 starts by two threads here and two processes, over one socket. */
static void starts_in_batches(void) {
    int before = count_fds(getpid());
    struct zygote zygote = zygote_new(NULL);
    kin_process clients[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(kin_process_start_fork(start_fifty_alone, &zygote.sock, &clients[i]), 0);
    }
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, start_fifty, &zygote.sock);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) CHECK_EQ(ended_with(&clients[i]), 0);
    zygote_ends_with(&zygote, 0);
    CHECK_EQ(count_fds(getpid()), before);
}

/* -- Deaths -------------------------------------------------------------------------------- */

static void zygote_dies(void) {
    int status = -1000;
    struct zygote zygote = zygote_new(NULL);
    int talk[2];
    make_pipe(talk);
    kin_process orphan, process;
    CHECK_EQ(kin_zygote_start(zygote.sock, "p", 1, &talk[1], 1, &orphan), 0);
    close(talk[1]);

    /* one request that it has not read, one process that waits for the answer */
    int answer;
    CHECK_EQ(kill(zygote.pid, SIGSTOP), 0);
    CHECK_EQ(kin_zygote_ask(zygote.sock, "p", 1, NULL, 0, &answer), 0);
    CHECK_EQ(kin_zygote_answer(answer, KIN_NOW, &process), -ETIMEDOUT);
    CHECK_EQ(kill(zygote.pid, SIGKILL), 0);
    CHECK_EQ(kin_zygote_answer(answer, LONG_ENOUGH, &process), -EPIPE);
    close(answer);
    CHECK_EQ(kin_zygote_start(zygote.sock, "p", 1, NULL, 0, &process), -EPIPE);

    /* the orphan runs on, can be signalled, and its end can be waited for */
    if (orphan.pidfd >= 0) {
        CHECK_EQ(kin_process_wait(&orphan, kin_deadline_after(MS), &status), -ETIMEDOUT);
        CHECK_EQ(kin_process_signal(&orphan, SIGKILL), 0);
    } else {
        CHECK_EQ(kill(orphan.pid, SIGKILL), 0);
    }
    CHECK_EQ(hear(talk[0]), 0);
    CHECK_EQ(kin_process_wait(&orphan, LONG_ENOUGH, &status), -ECHILD);
    kin_process_close(&orphan);
    close(talk[0]);
    zygote_ends_with(&zygote, -SIGKILL);
}

static void set_dies_after_fork(void) {
    dies_after_fork = true;
}

/* It is the child that answers, so this is no different to the client. */
static void zygote_dies_right_after_fork(void) {
    struct zygote zygote = zygote_new(set_dies_after_fork);
    kin_process process;
    int talk[2], status;
    make_pipe(talk);
    CHECK_EQ(kin_zygote_start(zygote.sock, "w", 1, &talk[0], 1, &process), 0);
    zygote_ends_with(&zygote, -SIGKILL);
    CHECK_EQ(kill(process.pid, 0), 0);
    CHECK_EQ(kin_process_wait(&process, KIN_NOW, &status), -ETIMEDOUT);
    close(talk[0]);
    close(talk[1]);
    CHECK_EQ(kin_process_wait(&process, LONG_ENOUGH, &status), -ECHILD);
    kin_process_close(&process);
}

/* A client that has gone before it was answered: its child is not left running. */
static void client_dies_before_the_answer(void) {
    struct zygote zygote = zygote_new(NULL);
    int talk[2], answer;
    make_pipe(talk);
    CHECK_EQ(kill(zygote.pid, SIGSTOP), 0);
    CHECK_EQ(kin_zygote_ask(zygote.sock, "p", 1, &talk[1], 1, &answer), 0);
    close(answer);
    close(talk[1]);
    CHECK_EQ(kill(zygote.pid, SIGCONT), 0);
    CHECK_EQ(hear(talk[0]), 0); /* only its end can close what it holds */
    close(talk[0]);
    zygote_ends_with(&zygote, 0);
}

struct client {
    int sock, word;
};

static int start_and_die(void *arg) {
    struct client *client = arg;
    kin_process process;
    CHECK_EQ(kin_zygote_start(client->sock, "w", 1, &client->word, 1, &process), 0);
    return raise(SIGKILL);
}

/* A client that dies afterwards: the zygote goes on, and reaps the child. */
static void client_dies_later(void) {
    struct zygote zygote = zygote_new(NULL);
    int word[2];
    make_pipe(word);
    struct client client = {zygote.sock, word[0]};
    int at_rest = fds_at_rest(&zygote);
    kin_process process;
    CHECK_EQ(kin_process_start_fork(start_and_die, &client, &process), 0);
    CHECK_EQ(ended_with(&process), -SIGKILL);
    close(word[1]);
    close(word[0]);
    comes_to_rest(&zygote, at_rest);
    zygote_ends_with(&zygote, 0);
}

/* When the last client has gone the zygote ends, and its children do not. */
static void children_outlive_the_zygote(void) {
    struct zygote zygote = zygote_new(NULL);
    int word[2], alive[2], status;
    make_pipe(word);
    make_pipe(alive);
    int fds[] = {word[0], alive[1]};
    kin_process process;
    CHECK_EQ(kin_zygote_start(zygote.sock, "w", 1, fds, 2, &process), 0);
    close(word[0]);
    close(alive[1]);
    zygote_ends_with(&zygote, 0);
    CHECK_EQ(kill(process.pid, 0), 0);
    close(word[1]);
    CHECK_EQ(hear(alive[0]), 0);
    CHECK_EQ(kin_process_wait(&process, LONG_ENOUGH, &status), -ECHILD);
    kin_process_close(&process);
    close(alive[0]);
}

static int pester(void *zygote) {
    struct timespec pause = {0, 1 * MS};
    while (kill(*(pid_t *)zygote, SIGUSR1) == 0) nanosleep(&pause, NULL);
    return 0;
}

static void serving_is_interrupted(void) {
    make_pipe(interruptions);
    struct zygote zygote = zygote_new(NULL);
    kin_process process = started(&zygote, "e", 1), pesterer;
    ended_with(&process); /* its handler is there by now */
    CHECK_EQ(kin_process_start_fork(pester, &zygote.pid, &pesterer), 0);
    CHECK_EQ(hear(interruptions[0]), '!');
    process = started(&zygote, "e\x05", 2);
    CHECK_EQ(ended_with(&process), 5);
    CHECK_EQ(kin_process_signal(&pesterer, SIGKILL), 0);
    CHECK_EQ(ended_with(&pesterer), -SIGKILL);
    zygote_ends_with(&zygote, 0);
    close(interruptions[0]);
    close(interruptions[1]);
    interruptions[0] = interruptions[1] = -1;
}

/* -- The spare -------------------------------------------------------------------------------- */

static void the_spare_is_used(void) {
    struct zygote zygote = zygote_new(NULL);
    kin_process process = started(&zygote, "e", 1);
    ended_with(&process);
    for (int i = 0; i < 20; i++) {
        pid_t spare = spare_of(&zygote);
        process = started(&zygote, "e\x07", 2);
        CHECK_EQ(process.pid, spare);
        CHECK_EQ(ended_with(&process), 7);
    }
    zygote_ends_with(&zygote, 0);
}

/* Before it has an order: nobody notices. */
static void the_spare_is_killed(void) {
    struct zygote zygote = zygote_new(NULL);
    int at_rest = fds_at_rest(&zygote);
    for (int i = 0; i < 20; i++) {
        pid_t spare = spare_of(&zygote);
        CHECK_EQ(kill(spare, SIGKILL), 0);
        while (kill(spare, 0) == 0) sched_yield(); /* the zygote has noticed */
        kin_process process = started(&zygote, "e\x07", 2);
        CHECK(process.pid != spare);
        CHECK_EQ(ended_with(&process), 7);
    }
    comes_to_rest(&zygote, at_rest);
    zygote_ends_with(&zygote, 0);
}

/* With an order that it has not taken: as if the zygote had died, but that it has not. */
static void the_spare_is_killed_with_an_order(void) {
    struct zygote zygote = zygote_new(NULL);
    int at_rest = fds_at_rest(&zygote);
    pid_t spare = spare_of(&zygote);
    kin_process process;
    int answer;
    CHECK_EQ(kill(spare, SIGSTOP), 0);
    CHECK_EQ(kin_zygote_ask(zygote.sock, "e", 1, NULL, 0, &answer), 0);
    CHECK_EQ(kin_zygote_answer(answer, kin_deadline_after(20 * MS), &process), -ETIMEDOUT);
    CHECK_EQ(kill(spare, SIGKILL), 0);
    CHECK_EQ(kin_zygote_answer(answer, LONG_ENOUGH, &process), -EPIPE);
    close(answer);
    comes_to_rest(&zygote, at_rest);
    zygote_ends_with(&zygote, 0);
}

/* -- Requests that nobody should send ------------------------------------------------------- */

/* Send bytes as they are, with our end of a pair or without; returns the other end. */
static int send_raw(int sock, const void *bytes, size_t len, size_t fd_count) {
    int pair[2], fds[8];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    for (size_t i = 0; i < fd_count; i++) fds[i] = pair[1];
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof fds)];
    } control;
    struct iovec part = {(void *)bytes, len};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count) {
        memset(&control, 0, sizeof control);
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
    }
    CHECK_EQ(sendmsg(sock, &header, MSG_NOSIGNAL), len);
    close(pair[1]);
    return pair[0];
}

static kin_err answer_to_raw(int sock, const void *bytes, size_t len, size_t fd_count) {
    kin_process process;
    int answer = send_raw(sock, bytes, len, fd_count);
    kin_err err = kin_zygote_answer(answer, LONG_ENOUGH, &process);
    CHECK(err < 0);
    close(answer);
    return err;
}

static void garbage_is_refused(void) {
    struct zygote zygote = zygote_new(NULL);
    struct {
        struct kin__zygote_request head;
        char payload[KIN_ZYGOTE_PAYLOAD_MAX + 500];
    } *request = calloc(1, sizeof *request);
    const struct kin__zygote_request good = {KIN__ZYGOTE_MAGIC, KIN__ZYGOTE_VERSION, 0, 1};
    size_t head = sizeof good;
    int sock = zygote.sock, at_rest = fds_at_rest(&zygote);

    CHECK_EQ(answer_to_raw(sock, "", 0, 0), -EPIPE); /* an empty one is no end of file */
    CHECK_EQ(answer_to_raw(sock, "", 0, 3), -EPIPE);
    CHECK_EQ(answer_to_raw(sock, "short", 5, 2), -EPIPE);
    request->head = good;
    CHECK_EQ(answer_to_raw(sock, request, head + 1, 0), -EPIPE);
    request->head.magic ^= 1;
    CHECK_EQ(answer_to_raw(sock, request, head + 1, 1), -EPIPE);
    request->head = good;
    request->head.version++;
    CHECK_EQ(answer_to_raw(sock, request, head + 1, 1), -EPROTO);
    request->head = good;
    CHECK_EQ(answer_to_raw(sock, request, head, 1), -EPROTO);
    CHECK_EQ(answer_to_raw(sock, request, head + 2, 1), -EPROTO);
    CHECK_EQ(answer_to_raw(sock, request, head + 1, 2), -EPROTO);
    request->head.len = UINT32_MAX;
    CHECK_EQ(answer_to_raw(sock, request, sizeof *request, 1), -EPROTO);
    request->head.len = KIN_ZYGOTE_PAYLOAD_MAX;
    CHECK_EQ(answer_to_raw(sock, request, sizeof *request, 1), -EPROTO);
    request->head = good;
    request->head.fd_count = UINT16_MAX;
    CHECK_EQ(answer_to_raw(sock, request, head + 1, 8), -EPROTO);

    /* an answer channel that is none: the child of it is not left running */
    request->head = good;
    request->head.fd_count = 1;
    request->payload[0] = 'p';
    int talk[2];
    make_pipe(talk);
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control = {{0}};
    struct iovec part = {request, head + 1};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof control};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    *rights = (struct cmsghdr){CMSG_LEN(sizeof talk), SOL_SOCKET, SCM_RIGHTS};
    int fds[] = {talk[0], talk[1]};
    memcpy(CMSG_DATA(rights), fds, sizeof fds);
    CHECK_EQ(sendmsg(sock, &header, MSG_NOSIGNAL), head + 1);
    close(talk[1]);
    CHECK_EQ(hear(talk[0]), 0);
    close(talk[0]);

    /* and it goes on as if nothing had been */
    kin_process process = started(&zygote, "e\x0b", 2);
    CHECK_EQ(ended_with(&process), 11);
    comes_to_rest(&zygote, at_rest);
    free(request);
    zygote_ends_with(&zygote, 0);
}

static int ask_as_nobody(void *sock) {
    kin_process process;
    CHECK_EQ(setuid(65534), 0);
    CHECK_EQ(kin_zygote_start(*(int *)sock, "p", 1, NULL, 0, &process), -EPERM);
    return 0;
}

static void other_users_are_refused(void) {
    if (getuid() != 0) return;
    struct zygote zygote = zygote_new(NULL);
    kin_process process;
    CHECK_EQ(kin_process_start_fork(ask_as_nobody, &zygote.sock, &process), 0);
    CHECK_EQ(ended_with(&process), 0);
    zygote_ends_with(&zygote, 0);
}

static void tests(void) {
    int before = count_fds(getpid());
    /* orphans of a killed zygote come to us, and not to a process that we do not know */
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    zygote_dies_right_after_fork();
    starts_and_reports();
    children_are_clean();
    starts_in_batches();
    zygote_dies();
    client_dies_before_the_answer();
    client_dies_later();
    children_outlive_the_zygote();
    serving_is_interrupted();
    the_spare_is_used();
    the_spare_is_killed();
    the_spare_is_killed_with_an_order();
    garbage_is_refused();
    other_users_are_refused();
    while (waitpid(-1, NULL, 0) > 0) continue; /* nothing that came to us runs on */
    CHECK_EQ(count_fds(getpid()), before);
}

int main(void) {
    here_and_on_old_system(tests);
    return 0;
}
