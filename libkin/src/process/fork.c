/* One lock that every fork() of the process takes; see fork.h. */
#include "process/fork.h"

#include <pthread.h>

static pthread_mutex_t forks = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t registered = PTHREAD_ONCE_INIT;

static void before_fork(void) {
    pthread_mutex_lock(&forks);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&forks);
}

static void after_fork_in_child(void) {
    kin__lifeline_after_fork();
    pthread_mutex_unlock(&forks);
}

static void register_once(void) {
    /* Failing for want of memory, it leaves a child with a descriptor too many. */
    (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void kin__fork_hold(void) {
    pthread_once(&registered, register_once);
    pthread_mutex_lock(&forks);
}

void kin__fork_release(void) {
    pthread_mutex_unlock(&forks);
}
