/* Who holds what: counted references that no death can falsify.
 *
 * An object's count is the number of places that hold it: entries in the
 * members' tables of holds, and references in blobs.  The entry and the count
 * change together, by the journal: whoever takes the refs mutex over from a dead
 * member does the journalled stores again, which is harmless if they were done. */
#ifndef KIN_FAMILY_REFS_H
#define KIN_FAMILY_REFS_H

#include "family_internal.h"

/* A block for an object of `len` bytes, zeroed; make it whole, then share it.
 * handle->shm is the payload.  Undo with kin__object_drop. */
KIN_NODISCARD kin_err kin__object_new(kin_family *family, uint64_t len, kin_handle *out);
void kin__object_share(kin_handle *handle, unsigned kind);
/* The same for an object that no member holds but a place: `off` is a block in this member's
 * hands, `place` a word in shared memory.  False if something is in the place already; then
 * the block is still in this member's hands. */
bool kin__object_share_at(kin_family *family, uint64_t off, unsigned kind, _Atomic uint64_t *place);
void kin__object_drop(kin_handle *handle);
/* A handle for a block that is in this member's hands already; undo with
 * kin__object_abandon, which leaves the block alone. */
KIN_NODISCARD kin_err kin__object_adopt(kin_family *family, uint64_t off, uint64_t serial,
                                        kin_handle *out);
void kin__object_abandon(kin_handle *handle);
/* kin_handle_open, and KIN_EKIND if the reference is not of this kind. */
KIN_NODISCARD kin_err kin__object_open(kin_family *family, const kin_ref *ref, unsigned kind,
                                       kin_handle *out);
/* Hold the object at `off`, whatever it is now; for those who walk over blocks. */
KIN_NODISCARD kin_err kin__object_pin(kin_family *family, uint64_t off, unsigned kind,
                                      kin_handle *out);

/* A place in shared memory that names an object: take one more reference into
 * it, or give the one in it back (and end the object if it was the last). */
KIN_NODISCARD kin_err kin__ref_into(kin_family *family, const kin_ref *ref,
                                    _Atomic uint64_t *place);
void kin__ref_out_of(kin_family *family, _Atomic uint64_t *place);

/* A change of several words that happens whole or not at all, whoever dies: begin, say what is to
 * be stored, end.  In between the refs mutex is held: nothing else is to be done, and at most
 * KIN_JOURNAL_STORES words are stored. */
typedef struct kin__change {
    kin_family *family;
    uint32_t count;
} kin__change;
kin__change kin__change_begin(kin_family *family);
void kin__change_store(kin__change *change, _Atomic uint64_t *word, uint64_t value);
/* A block in this member's hands becomes an object that the place holds: three stores. */
void kin__change_share(kin__change *change, uint64_t off, unsigned kind, _Atomic uint64_t *place);
/* An object has one holder more, the place: two stores. */
void kin__change_hold(kin__change *change, uint64_t off, _Atomic uint64_t *place);
/* An object has one holder less, two stores; the caller sees to the place.  True: it was the last
 * one, and after the change the object is to be ended, by kin__object_end. */
KIN_NODISCARD bool kin__change_drop(kin__change *change, uint64_t off);
/* A block in this member's hands is of another kind from now on. */
void kin__change_kind(kin__change *change, uint64_t off, unsigned kind);
void kin__change_end(kin__change *change);
void kin__object_end(kin_family *family, uint64_t off);

/* Finish what a dead holder of the refs mutex began. */
void kin__refs_settle(kin_family *family);

/* The table of holds of a member that is dead, or of this one as it leaves. */
void kin__holds_release(kin_family *family, kin_member_shm *row);
/* Around fork: copy this member's holds for the child, in its name. */
bool kin__holds_copy(kin_family *family, uint32_t child);

#endif
