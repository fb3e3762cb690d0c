/* The records of a queue: is one ever torn, lost or given out twice, or a block?
 *
 * Producers write records into segments that they link, consumers read them and free what they
 * leave behind; small records lie in the segment, others are blobs, of which it holds the name. Members are
 * killed at any step; the next to lock the side settles, an undertaker frees what was in
 * dead hands. Each statement below is a step at which one may die.
 *
 * A segment has room for one record and a jump, so that every second record needs a new one.
 *
 * Checked: the n-th pop yields what the n-th push published, whole; whoever writes or reads a segment finds it
 * still part of the queue; a blob that a record names can be taken; once all is over, every block is free.
 *
 * libkin/src/queue/records.c, sides.c.  Configurations: PRODUCERS, CONSUMERS, ROUNDS (of each producer), DEATHS. */

#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef CONSUMERS
#define CONSUMERS 1
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef BLOCKS
#define BLOCKS 4
#endif

#define MEMBERS (PRODUCERS + CONSUMERS)
#define UNDERTAKER MEMBERS
#define ITEMS (PRODUCERS * ROUNDS)
#define NONE 255

/* -- The arena: blocks, whose they are, what is in them ---------------------------------- */

#define FREE 0
#define HAND 1
#define LINKED 2
byte state[BLOCKS], owner[BLOCKS], serial[BLOCKS];
byte last_serial;

#define SMALL 1
#define BLOB 2
#define JUMP 3
byte head_of[BLOCKS * 2]; /* a record's header; slot 1 has room for a jump only */
byte body_of[BLOCKS * 2]; /* the item; of a BLOB or a JUMP the block, */
byte name_of[BLOCKS * 2]; /* and its serial */

/* -- The queue ------------------------------------------------------------------------------ */

#define TAIL 0
#define HEAD 1
byte mutex[2]; /* 0, or the holder + 1 */
byte count[2]; /* pushed, popped */
typedef Cursor { byte segment[2]; byte serial[2]; byte at[2] };
Cursor cursor[2]; /* [side].…[count & 1] holds */
byte first_segment = NONE, first_serial;
typedef Transfer { bit armed; byte when; byte segment; byte segment_serial; byte blob; byte blob_serial };
Transfer transfer[2];

/* -- Ghosts ---------------------------------------------------------------------------------- */

byte published[ITEMS]; /* what the n-th push published */
bit kill[MEMBERS];
bit dead[MEMBERS + 1];
bit unburied[MEMBERS];
byte deaths, living = MEMBERS;

/* -- Blocks ------------------------------------------------------------------------------------ */

/* kin__block_new; NONE if the arena is full. */
inline new_block(who, out) {
    atomic {
        if
        :: state[0] == FREE -> out = 0
        :: state[0] != FREE && state[1] == FREE -> out = 1
#if BLOCKS > 2
        :: state[0] != FREE && state[1] != FREE && state[2] == FREE -> out = 2
#endif
#if BLOCKS > 3
        :: state[0] != FREE && state[1] != FREE && state[2] != FREE && state[3] == FREE -> out = 3
#endif
#if BLOCKS > 4
        :: state[0] != FREE && state[1] != FREE && state[2] != FREE && state[3] != FREE && state[4] == FREE -> out = 4
#endif
        :: else -> out = NONE
        fi;
        if
        :: out != NONE -> state[out] = HAND; owner[out] = who
        :: else
        fi
    }
    if
    :: out != NONE -> d_step { last_serial++; serial[out] = last_serial }
    :: else
    fi
}

inline free_block(block) {
    serial[block] = 0;
    d_step { state[block] = FREE; owner[block] = 0 }
}

/* kin__segment_free, kin__blob_take and kin_blob_free: only if it is what it was. */
inline free_linked(who, block, its_serial) {
    if
#ifdef MUTATION_TAKE_BY_SERIAL_ALONE
    :: block != NONE && serial[block] == its_serial ->
#else
    :: block != NONE && state[block] == LINKED ->
        if
        :: serial[block] == its_serial ->
#endif
        atomic {
            if
            :: state[block] == LINKED -> state[block] = HAND; owner[block] = who; took = 1
            :: else
            fi
        }
        if
        :: took -> took = 0; free_block(block)
        :: else
        fi
#ifndef MUTATION_TAKE_BY_SERIAL_ALONE
        :: else
        fi
#endif
    :: else
    fi
}

/* -- Sides --------------------------------------------------------------------------------------- */

inline disarm(side) {
    transfer[side].armed = 0;
    transfer[side].segment = NONE;
    transfer[side].blob = NONE
}

#ifdef MUTATION_SETTLE_ALWAYS_FREES
#define CONCERNS(side) true
#else
#define CONCERNS(side) ((side == TAIL) == (count[side] == transfer[side].when))
#endif

inline settle(who, side) {
#ifdef MUTATION_UNARMED_NAMES_STAY
    if
    :: transfer[side].armed ->
        if
        :: CONCERNS(side) ->
            free_linked(who, transfer[side].segment, transfer[side].segment_serial);
            free_linked(who, transfer[side].blob, transfer[side].blob_serial)
        :: else
        fi;
        disarm(side)
    :: else
    fi
#else
    if
    :: transfer[side].armed && CONCERNS(side) ->
        free_linked(who, transfer[side].segment, transfer[side].segment_serial);
        free_linked(who, transfer[side].blob, transfer[side].blob_serial)
    :: else
    fi;
    disarm(side)
#endif
}

inline lock(who, side) {
    if
    :: d_step { mutex[side] == 0 -> mutex[side] = who + 1 }
    :: d_step { mutex[side] != 0 && dead[mutex[side] - 1] -> mutex[side] = who + 1 }
#ifndef MUTATION_NO_SETTLE
        settle(who, side)
#endif
    fi
}

inline unlock(side) {
    mutex[side] = 0
}

/* -- Push ------------------------------------------------------------------------------------------- */

inline link_segment() {
    new_block(me, fresh);
    if
    :: fresh == NONE -> unlock(TAIL); goto no_room
    :: else
    fi;
#ifdef MUTATION_LINK_BEFORE_ARM
    state[fresh] = LINKED;
#endif
    transfer[TAIL].segment = fresh;
    transfer[TAIL].segment_serial = serial[fresh];
    transfer[TAIL].when = count[TAIL];
    transfer[TAIL].armed = 1;
#ifndef MUTATION_LINK_BEFORE_ARM
    d_step { state[fresh] = LINKED; owner[fresh] = 0 }
#endif
    if
    :: segment != NONE ->
        head_of[segment * 2 + at] = JUMP;
        d_step { body_of[segment * 2 + at] = fresh; name_of[segment * 2 + at] = serial[fresh] }
    :: else ->
        d_step { first_segment = fresh; first_serial = serial[fresh] }
    fi;
    d_step { segment = fresh; its_serial = serial[fresh]; at = 0; fresh = NONE }
}

inline store_cursor(side, copy) {
    cursor[side].segment[copy] = segment;
    cursor[side].serial[copy] = its_serial;
    cursor[side].at[copy] = at
}

inline load_cursor(side) {
    d_step {
        segment = cursor[side].segment[count[side] & 1];
        its_serial = cursor[side].serial[count[side] & 1];
        at = cursor[side].at[count[side] & 1]
    }
}

#ifdef MUTATION_ONE_CURSOR
#define OTHER_COPY(side) (count[side] & 1)
#else
#define OTHER_COPY(side) ((count[side] + 1) & 1)
#endif

inline publish() {
    d_step { published[count[TAIL]] = item; count[TAIL] = count[TAIL] + 1 }
}

/* kin__record_write */
inline write_record() {
    load_cursor(TAIL);
    if
    :: segment == NONE || at == 1 -> link_segment()
    :: else
    fi;
    assert(state[segment] == LINKED && serial[segment] == its_serial);
#ifdef MUTATION_COUNT_BEFORE_RECORD
    published[count[TAIL]] = item;
    at++;
    store_cursor(TAIL, OTHER_COPY(TAIL));
    at--;
    count[TAIL]++;
#endif
    if
    :: blob == NONE ->
        head_of[segment * 2 + at] = SMALL;
        body_of[segment * 2 + at] = item
    :: else ->
        head_of[segment * 2 + at] = BLOB;
        body_of[segment * 2 + at] = blob;
        name_of[segment * 2 + at] = serial[blob]
    fi;
#ifndef MUTATION_COUNT_BEFORE_RECORD
    at++;
#ifdef MUTATION_COUNT_BEFORE_CURSOR
    fresh = OTHER_COPY(TAIL);
    publish();
    store_cursor(TAIL, fresh);
    fresh = NONE;
#else
    store_cursor(TAIL, OTHER_COPY(TAIL));
#endif
#endif
    if
    :: blob != NONE ->
        transfer[TAIL].blob = blob;
        transfer[TAIL].blob_serial = serial[blob];
        transfer[TAIL].when = count[TAIL];
        transfer[TAIL].armed = 1;
        d_step { state[blob] = LINKED; owner[blob] = 0; blob = NONE }
    :: else
    fi;
#ifndef MUTATION_COUNT_BEFORE_RECORD
#ifndef MUTATION_COUNT_BEFORE_CURSOR
    publish();
#endif
#endif
    disarm(TAIL)
}

proctype producer(byte me) {
    byte item = NONE, blob = NONE, segment, its_serial, at, fresh = NONE, round = 0;
    bit took;
    {
        do
        :: round == ROUNDS -> break
        :: else ->
            item = me * ROUNDS + round;
            round++;
            if
            :: skip
            :: new_block(me, blob);
                if
                :: blob == NONE -> goto no_room
                :: else -> body_of[blob * 2] = item
                fi
            fi;
            lock(me, TAIL);
            write_record();
            unlock(TAIL)
        od;
        goto done;
no_room:
        if
        :: blob != NONE -> free_block(blob)
        :: else
        fi;
done:   living--
    } unless {
        d_step { kill[me] -> dead[me] = 1; unburied[me] = 1; living--;
            item = 0; blob = 0; segment = 0; its_serial = 0; at = 0; fresh = 0; round = 0; took = 0 }
    }
}

/* -- Pop ------------------------------------------------------------------------------------------------ */

/* kin__record_read, with something there; out: `item`, or a blob in hand. */
inline read_record(who) {
    load_cursor(HEAD);
    if
    :: segment == NONE -> d_step { segment = first_segment; its_serial = first_serial; at = 0 }
    :: else
    fi;
    assert(state[segment] == LINKED && serial[segment] == its_serial);
    if
    :: head_of[segment * 2 + at] == JUMP ->
        d_step { left = segment; left_serial = its_serial }
        d_step {
            fresh = body_of[left * 2 + at]; its_serial = name_of[left * 2 + at];
            segment = fresh; fresh = NONE; at = 0
        }
        assert(state[segment] == LINKED && serial[segment] == its_serial)
    :: else
    fi;
    what = head_of[segment * 2 + at];
    d_step { item = body_of[segment * 2 + at]; blob_serial = name_of[segment * 2 + at] }
    assert(what == SMALL || what == BLOB);
    if
    :: what == BLOB -> d_step { blob = item; item = NONE }
    :: else
    fi;
    at++;
    if
    :: blob != NONE || left != NONE ->
        transfer[HEAD].segment = left;
        transfer[HEAD].segment_serial = left_serial;
        transfer[HEAD].blob = blob;
        transfer[HEAD].blob_serial = blob_serial;
        transfer[HEAD].when = count[HEAD];
        transfer[HEAD].armed = 1
    :: else
    fi;
    store_cursor(HEAD, OTHER_COPY(HEAD));
    d_step {
        assert(blob != NONE || published[count[HEAD]] == item);
        assert(blob == NONE || body_of[blob * 2] == published[count[HEAD]]);
        count[HEAD] = count[HEAD] + 1
    }
    if
    :: blob != NONE ->
        d_step {
            assert(state[blob] == LINKED && serial[blob] == blob_serial);
            state[blob] = HAND;
            owner[blob] = who
        }
    :: else
    fi;
    free_linked(who, left, left_serial);
    disarm(HEAD);
    d_step { left = NONE; left_serial = 0; what = 0; item = NONE; blob_serial = 0; segment = 0; its_serial = 0; at = 0 }
}

proctype consumer(byte me) {
    byte item = NONE, blob = NONE, blob_serial, left = NONE, left_serial, segment, its_serial, at, what, fresh = NONE;
    bit took;
    {
        do
        :: count[TAIL] != count[HEAD] ->
            lock(me, HEAD);
            if
            :: count[TAIL] != count[HEAD] -> read_record(me)
            :: else
            fi;
            unlock(HEAD);
            if
            :: blob != NONE -> free_block(blob); blob = NONE
            :: else
            fi
        :: break
        od;
        living--
    } unless {
        d_step { kill[me] -> dead[me] = 1; unburied[me] = 1; living--;
            item = 0; blob = 0; blob_serial = 0; left = 0; left_serial = 0; segment = 0; its_serial = 0; at = 0;
            what = 0; fresh = 0; took = 0 }
    }
}

/* -- The rest --------------------------------------------------------------------------------------------- */

#if MEMBERS > 3
#define ALL_BURIED (!unburied[0] && !unburied[1] && !unburied[2] && !unburied[3])
#elif MEMBERS > 2
#define ALL_BURIED (!unburied[0] && !unburied[1] && !unburied[2])
#else
#define ALL_BURIED (!unburied[0] && !unburied[1])
#endif

proctype killer() {
    do
    :: deaths < DEATHS ->
        atomic {
            deaths++;
            if
            :: kill[0] = 1
            :: kill[1] = 1
#if MEMBERS > 2
            :: kill[2] = 1
#endif
#if MEMBERS > 3
            :: kill[3] = 1
#endif
            fi
        }
    :: break
    od
}

/* The burials; and when nobody else is left, the end of the queue. */
proctype undertaker() {
    byte item = NONE, blob = NONE, blob_serial, left = NONE, left_serial, segment, its_serial, at, what, fresh = NONE;
    byte each;
    bit took;
again:
    do
    :: d_step { unburied[0] -> unburied[0] = 0; fresh = 0 } goto bury
    :: d_step { unburied[1] -> unburied[1] = 0; fresh = 1 } goto bury
#if MEMBERS > 2
    :: d_step { unburied[2] -> unburied[2] = 0; fresh = 2 } goto bury
#endif
#if MEMBERS > 3
    :: d_step { unburied[3] -> unburied[3] = 0; fresh = 3 } goto bury
#endif
    :: living == 0 && ALL_BURIED -> break
    od;
    goto end_of_queue;

bury: /* the sweep: blocks, and the queue among them, in any order */
    each = 0;
    do
    :: each == BLOCKS -> break
    :: each < BLOCKS ->
        atomic {
            if
            :: state[each] == HAND && owner[each] == fresh -> owner[each] = UNDERTAKER; took = 1
            :: else
            fi
        }
        if
        :: took -> took = 0; free_block(each)
        :: else
        fi;
        each++
    od;
    each = 0;
    if
    :: mutex[TAIL] == fresh + 1 -> lock(UNDERTAKER, TAIL); unlock(TAIL)
    :: else
    fi;
    if
    :: mutex[HEAD] == fresh + 1 -> lock(UNDERTAKER, HEAD); unlock(HEAD)
    :: else
    fi;
    fresh = NONE;
    goto again;

end_of_queue: /* kin__queue_end */
    atomic {
        settle(UNDERTAKER, TAIL);
        settle(UNDERTAKER, HEAD);
        do
        :: count[TAIL] != count[HEAD] ->
            read_record(UNDERTAKER);
            if
            :: blob != NONE -> free_block(blob); blob = NONE
            :: else
            fi
        :: else -> break
        od;
        load_cursor(HEAD);
        if
        :: segment == NONE -> segment = first_segment; its_serial = first_serial
        :: else
        fi;
        free_linked(UNDERTAKER, segment, its_serial);
        each = 0;
        do
        :: each < BLOCKS -> assert(state[each] == FREE); each++
        :: else -> break
        od
    }
}

init {
    byte who;
    d_step {
        for (who : 0 .. 1) {
            cursor[who].segment[0] = NONE;
            cursor[who].segment[1] = NONE;
            transfer[who].segment = NONE;
            transfer[who].blob = NONE
        }
        who = 0
    }
    atomic {
        for (who : 0 .. PRODUCERS - 1) {
            run producer(who)
        }
        for (who : PRODUCERS .. MEMBERS - 1) {
            run consumer(who)
        }
        who = 0;
        run killer();
        run undertaker()
    }
}
