/* Blobs as the queue sees them. */
#ifndef KIN_FAMILY_BLOB_H
#define KIN_FAMILY_BLOB_H

#include "family_internal.h"

/* Let a blob go from this member's hands into a queue, or back after all. */
void kin__blob_link(kin_blob *blob);
void kin__blob_unlink(kin_blob *blob);
/* Take a blob that a queue held; false if it is not there any more. */
bool kin__blob_take(kin_family *family, uint64_t off, uint64_t serial, kin_blob *out);

/* End of a blob: its references go back. */
void kin__blob_end(kin_family *family, uint64_t off);

#endif
