/* What this room has to do about fork(), wherever in the program it is called.
 *
 * A descriptor that must not get into a forked child, not even for a moment, is
 * made and given away between kin__fork_hold() and kin__fork_release(): no thread
 * forks meanwhile.  (Children that are executed are no concern: everything is
 * close-on-exec, and kin_process_spawn closes by number.)  Between the two only
 * what cannot block may be done. */
#ifndef KIN_PROCESS_FORK_H
#define KIN_PROCESS_FORK_H

void kin__fork_hold(void);
void kin__fork_release(void);

/* lifeline.c: drop what is the parent's, in the child, with forks held. */
void kin__lifeline_after_fork(void);

#endif
