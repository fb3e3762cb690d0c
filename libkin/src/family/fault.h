/* Named points at which a test may kill this very process.
 *
 * Compiled in with -DKIN_FAULT_POINTS only (meson -Dfault_points=true); else KIN_FAULT is
 * nothing.  A test sets kin__fault_name and kin__fault_after: the process gets
 * SIGKILL the kin__fault_after-th time that it comes by. */
#ifndef KIN_FAULT_H
#define KIN_FAULT_H

#ifdef KIN_FAULT_POINTS
extern const char *volatile kin__fault_name;
extern volatile long kin__fault_after;
void kin__fault(const char *name);
#define KIN_FAULT(name) kin__fault(name)
#else
#define KIN_FAULT(name) ((void)0)
#endif

#endif
