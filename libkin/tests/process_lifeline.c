/* Lifelines: children end when their parent process does, however it does, and not
 * before; and what must not come of them.
 *
 * The test is the parent of a parent: it adopts the orphans (PR_SET_CHILD_SUBREAPER)
 * and so sees how they ended. */
#include <pthread.h>

#include "process_help.h"

/* What the processes of a test are told: pipes from child to test and back. */
struct talk {
    int said[2];   /* a byte from each child that is bound */
    int wanted[2]; /* nothing; ends when the test wants them to end by themselves */
    int lifeline;
    int signo;
};

static struct talk talk_new(int signo) {
    struct talk talk = {.lifeline = -1, .signo = signo};
    make_pipe(talk.said);
    make_pipe(talk.wanted);
    return talk;
}

static void talk_close(struct talk *talk) {
    close(talk->said[0]);
    close(talk->said[1]);
    close(talk->wanted[0]);
    close(talk->wanted[1]);
}

static int bound_child(void *arg) {
    struct talk *talk = arg;
    close(talk->wanted[1]);
    CHECK_EQ(kin_lifeline_bind(talk->lifeline, talk->signo), 0);
    say(talk->said[1], "b");
    hear(talk->wanted[0]);
    return 0;
}

static kin_process start_bound(struct talk *talk) {
    kin_process process;
    CHECK_EQ(kin_lifeline_fd(&talk->lifeline), 0);
    CHECK_EQ(kin_process_start_fork(bound_child, talk, &process), 0);
    close(talk->lifeline);
    return process;
}

static int parent_of_three(void *arg) {
    for (int i = 0; i < 3; i++) {
        kin_process process = start_bound(arg);
        kin_process_close(&process);
    }
    pause_for_ever();
}

/* The next child of ours, by birth or adoption, to end. */
static int next_end(void) {
    int status;
    CHECK(waitpid(-1, &status, 0) > 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void no_child_is_left(void) {
    CHECK_EQ(waitpid(-1, NULL, 0), -1);
    CHECK_EQ(errno, ECHILD);
}

static void children_end_with_their_parent(int signo) {
    struct talk talk = talk_new(signo);
    kin_process parent;
    CHECK_EQ(kin_process_start_fork(parent_of_three, &talk, &parent), 0);
    for (int i = 0; i < 3; i++) CHECK_EQ(hear(talk.said[0]), 'b');
    CHECK_EQ(kin_process_signal(&parent, SIGKILL), 0);
    CHECK_EQ(ended_with(&parent), -SIGKILL);
    for (int i = 0; i < 3; i++) CHECK_EQ(next_end(), -signo);
    no_child_is_left();
    talk_close(&talk);
}

/* -- The parent's threads are not the parent ------------------------------------------ */

struct thread_start {
    struct talk talk;
    kin_process child;
    char task[64]; /* where the kernel shows the thread while it is there */
};

static void *start_in_thread(void *arg) {
    struct thread_start *start = arg;
    snprintf(start->task, sizeof start->task, "/proc/self/task/%d", (int)gettid());
    start->child = start_bound(&start->talk);
    return NULL;
}

static void the_end_of_the_starting_thread_is_nothing(void) {
    struct thread_start start = {.talk = talk_new(SIGKILL)};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, start_in_thread, &start), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(hear(start.talk.said[0]), 'b');
    while (access(start.task, F_OK) == 0) sched_yield(); /* joined is not yet gone */
    int status;
    CHECK_EQ(kin_process_wait(&start.child, KIN_NOW, &status), -ETIMEDOUT);
    talk_close(&start.talk); /* the child ends by itself */
    CHECK_EQ(ended_with(&start.child), 0);
}

/* -- Bound too late ---------------------------------------------------------------------- */

struct late {
    int lifeline;
    int parent_is_there[2];
};

static int binds_late(void *arg) {
    struct late *late = arg;
    close(late->parent_is_there[1]);
    hear(late->parent_is_there[0]);
    CHECK_EQ(kin_lifeline_bind(late->lifeline, SIGTERM), 0);
    pause_for_ever();
}

static int parent_that_goes(void *unused) {
    struct late late;
    kin_process process;
    make_pipe(late.parent_is_there);
    CHECK_EQ(kin_lifeline_fd(&late.lifeline), 0);
    CHECK_EQ(kin_process_start_fork(binds_late, &late, &process), 0);
    return 5;
}

static void a_late_child_ends_at_once(void) {
    kin_process parent;
    CHECK_EQ(kin_process_start_fork(parent_that_goes, NULL, &parent), 0);
    CHECK_EQ(ended_with(&parent), 5);
    CHECK_EQ(next_end(), -SIGTERM);
    no_child_is_left();
}

/* -- Descriptors -------------------------------------------------------------------------- */

static int counts_as(void *expected) {
    return count_fds(getpid()) == *(int *)expected ? 0 : 1;
}

static int bound_child_that_forks(void *arg) {
    struct talk *talk = arg;
    int before = count_fds(getpid()) - 1; /* `lifeline` is taken over */
    CHECK_EQ(kin_lifeline_bind(talk->lifeline, SIGKILL), 0);
    CHECK_EQ(count_fds(getpid()), before + 1);
    kin_process grandchild;
    CHECK_EQ(kin_process_start_fork(counts_as, &before, &grandchild), 0);
    return ended_with(&grandchild);
}

/* Neither end gets into a child, nor what a child is bound by into its children. */
static int inherits_nothing(void *unused) {
    int before = count_fds(getpid());
    struct talk talk;
    kin_process process;
    CHECK_EQ(kin_lifeline_fd(&talk.lifeline), 0);
    close(talk.lifeline);
    CHECK_EQ(count_fds(getpid()), before + 2);
    CHECK_EQ(kin_process_start_fork(counts_as, &before, &process), 0);
    CHECK_EQ(ended_with(&process), 0);
    CHECK_EQ(kin_lifeline_fd(&talk.lifeline), 0);
    CHECK_EQ(kin_process_start_fork(bound_child_that_forks, &talk, &process), 0);
    close(talk.lifeline);
    CHECK_EQ(ended_with(&process), 0);
    return 0;
}

static int is_open(void *fd) {
    return fcntl(*(int *)fd, F_GETFD) == FD_CLOEXEC ? 0 : 1;
}

static int spares_numbers_used_again(void *unused) {
    int lifeline, ends[2], copies[2];
    kin_process process;
    CHECK_EQ(kin_lifeline_fd(&lifeline), 0);
    for (int fd = 3; fd <= 64; fd++) close(fd);
    make_pipe(ends); /* with the very numbers, most likely */
    make_pipe(copies);
    int mine[] = {ends[0], ends[1], copies[0], copies[1]};
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(kin_process_start_fork(is_open, &mine[i], &process), 0);
        CHECK_EQ(ended_with(&process), 0);
    }
    CHECK_EQ(kin_lifeline_fd(&lifeline), 0); /* a new one, and it works */
    struct talk talk = talk_new(SIGKILL);
    process = start_bound(&talk);
    CHECK_EQ(hear(talk.said[0]), 'b');
    close(talk.wanted[1]);
    CHECK_EQ(ended_with(&process), 0);
    return 0;
}

/* In a process that has no lifeline yet. */
static void in_a_fresh_process(int (*test)(void *)) {
    kin_process process;
    CHECK_EQ(kin_process_start_fork(test, NULL, &process), 0);
    CHECK_EQ(ended_with(&process), 0);
}

static void only_lifelines_are_bound(void) {
    int ends[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    make_pipe(ends);
    CHECK_EQ(kin_lifeline_bind(null, SIGKILL), -EINVAL);
    CHECK_EQ(kin_lifeline_bind(ends[1], SIGKILL), -EINVAL);
    CHECK_EQ(kin_lifeline_bind(ends[0], 0), -EINVAL);
    CHECK_EQ(kin_lifeline_bind(999, SIGKILL), -EBADF);
    close(null);
    close(ends[0]);
    close(ends[1]);
}

/* -- By exec ---------------------------------------------------------------------------------- */

static int parent_by_exec(void *arg) {
    struct talk *talk = arg;
    int lifeline;
    char numbers[2][16], self[] = "/proc/self/exe";
    CHECK_EQ(kin_lifeline_fd(&lifeline), 0);
    snprintf(numbers[0], sizeof *numbers, "%d", lifeline);
    snprintf(numbers[1], sizeof *numbers, "%d", talk->said[1]);
    char *argv[] = {self, numbers[0], numbers[1], NULL};
    int keep[] = {lifeline, talk->said[1]};
    kin_spawn what = {self, argv, NULL, keep, 2};
    kin_process process;
    CHECK_EQ(kin_process_spawn(&what, &process), 0);
    pause_for_ever();
}

static void executed_children_are_bound(void) {
    struct talk talk = talk_new(SIGKILL);
    kin_process parent;
    CHECK_EQ(kin_process_start_fork(parent_by_exec, &talk, &parent), 0);
    CHECK_EQ(hear(talk.said[0]), 'b');
    CHECK_EQ(kin_process_signal(&parent, SIGKILL), 0);
    CHECK_EQ(ended_with(&parent), -SIGKILL);
    CHECK_EQ(next_end(), -SIGKILL);
    no_child_is_left();
    talk_close(&talk);
}

static void tests(void) {
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    children_end_with_their_parent(SIGKILL);
    children_end_with_their_parent(SIGTERM);
    the_end_of_the_starting_thread_is_nothing();
    a_late_child_ends_at_once();
    in_a_fresh_process(inherits_nothing);
    in_a_fresh_process(spares_numbers_used_again);
    only_lifelines_are_bound();
    executed_children_are_bound();
}

int main(int argc, char **argv) {
    if (argc > 2) {
        CHECK_EQ(kin_lifeline_bind(atoi(argv[1]), SIGKILL), 0);
        say(atoi(argv[2]), "b");
        pause_for_ever();
    }
    here_and_on_old_system(tests);
    return 0;
}
