/* The member table: who is in the family, and who of them is alive. */
#ifndef KIN_FAMILY_MEMBERS_H
#define KIN_FAMILY_MEMBERS_H

#include "family_internal.h"

/* Take a row for this process and be alive in it.  KIN_EMEMBERS. */
KIN_NODISCARD kin_err kin__member_enter(kin_family *family);
/* Make a row ready for a child that is about to be forked.  0: the table is full. */
uint32_t kin__member_prepare(kin_family *family);
/* In the child: be alive in the row that the parent made ready. (fork) */
bool kin__member_adopt(kin_family *family, uint32_t token);
/* The row goes back: nothing of the member is left anywhere. */
void kin__member_remove(kin_family *family, uint32_t token);

/* False once the kernel says that the process has ended, or its row is gone. */
bool kin__member_alive(kin_family *family, uint32_t token);
/* Of one that is not alive: has it left normally, or is it buried already?  False: it was killed, and
 * its burial is to come, or under way. */
bool kin__member_is_settled(kin_family *family, uint32_t token);
kin_member_shm *kin__member_row(const kin_family *family, uint32_t token);

/* Find a member that has died and become the one who clears it away: its
 * token, or 0.  *slot: where to go on looking, 0 at first. */
uint32_t kin__member_next_dead(kin_family *family, uint32_t *slot);

#endif
