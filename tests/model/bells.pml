/* The bells of a queue: is a wake-up ever lost?
 *
 * Producers and consumers put and take, park when the queue is full or empty, give up
 * after a time-out or a signal, and are killed at any step.  Parks have no time-out
 * here (the code's end after a second, to look again): so whoever is still parked when nothing
 * moves any more would have slept for ever.  That must be somebody who has nothing to wake for:
 * a consumer of an empty queue, a producer of a full one.
 *
 * What is atomic here: a put or a take under the lock of its side (records.pml is about what
 * happens inside), a load, a store, an exchange, the kernel's look at a futex word.
 * Everything is sequentially consistent, as all accesses to counts, flags and rings are in the code
 * (libkin/src/queue/queue.c, libkin/src/sync/park.c).
 *
 * Configurations: PRODUCERS, CONSUMERS, ROUNDS (operations of a producer), BOUND (0: none), VAIN (how often
 * somebody gives up), DEATHS, SHUT (somebody shuts the queue).  MUTATION_…: the protocol, broken. */

#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef BOUND
#define BOUND 0
#endif
#ifndef VAIN
#define VAIN 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif

#define MEMBERS (PRODUCERS + CONSUMERS)

/* The two bells.  Who pushed rings GROWN, who popped rings ROOM. */
#define GROWN 0
#define ROOM 1

byte pushed, popped;
bit shut;
bit flag[2];   /* bell.waiting: somebody may be parked */
byte rings[2]; /* bell.rings: the futex word */
byte parked[MEMBERS]; /* 0; the bell it is parked on, + 1 */

bit kill[MEMBERS]; /* SIGKILL was sent */
byte deaths, unburied, vain;

/* -- Parts: each atomic is one access to shared memory, and what follows of it ----------- */

/* FUTEX_WAKE: one of those parked on the bell, the kernel says which. */
inline wake_one(bell) {
    atomic {
        if
        :: parked[0] == bell + 1 -> parked[0] = 0
        :: parked[1] == bell + 1 -> parked[1] = 0
#if MEMBERS > 2
        :: parked[2] == bell + 1 -> parked[2] = 0
#endif
#if MEMBERS > 3
        :: parked[3] == bell + 1 -> parked[3] = 0
#endif
#if MEMBERS > 4
        :: parked[4] == bell + 1 -> parked[4] = 0
#endif
        :: else
        fi
    }
}

inline wake_all(bell) {
    d_step {
        byte each;
        for (each : 0 .. MEMBERS - 1) {
            if
            :: parked[each] == bell + 1 -> parked[each] = 0
            :: else
            fi
        }
        each = 0
    }
}

/* kin__bell_ring(…, 1) */
inline ring(bell) {
    if
    :: flag[bell] ->
        d_step { was = flag[bell]; flag[bell] = 0 }
        if
        :: d_step { was -> was = 0; rings[bell]++ }
            wake_one(bell)
        :: else
        fi
    :: else
    fi
}

/* Is it worth waiting for this bell?  Two loads, as in the code. */
inline look(bell) {
    d_step {
        if
        :: bell == GROWN -> seen = pushed
        :: else -> seen = popped
        fi
    }
    d_step {
        if
        :: bell == GROWN -> ready = (seen != popped || shut)
        :: else -> ready = (pushed - seen < BOUND || shut)
        fi;
        seen = 0
    }
}

/* kin__bell_listen, and the look after it. */
inline listen(bell) {
#ifdef MUTATION_LISTEN_AFTER_LOOK
    heard = rings[bell];
    look(bell);
    flag[bell] = 1;
#else
#ifdef MUTATION_HEAR_AFTER_FLAG
    flag[bell] = 1;
    heard = rings[bell];
#else
    heard = rings[bell];
    flag[bell] = 1;
#endif
    look(bell);
#endif
}

/* One that has listened goes: it may have had a ring that was meant for another. */
inline stand_in(bell) {
#ifdef MUTATION_LOOK_BEFORE_PASS_ON
    look(bell);
    flag[bell] = 1;
#else
#ifndef MUTATION_NO_PASS_ON
    flag[bell] = 1;
#endif
    look(bell);
#endif
    if
    :: ready -> ring(bell)
    :: else
    fi;
    ready = 0
}

/* -- A member ------------------------------------------------------------------------- */

#define IS_EMPTY (pushed == popped)
#if BOUND
#define IS_FULL (pushed - popped >= BOUND)
#else
#define IS_FULL false
#endif
#define MUST_WAIT (!shut && ((mine == GROWN && IS_EMPTY) || (mine == ROOM && IS_FULL)))
#define GIVE_UP (listened && vain < VAIN)
#define FOR_EVER 255

/* mine: the bell that it waits for, GROWN for a consumer, ROOM for a producer. */
proctype member(byte me; byte mine; byte rounds) {
    byte heard, seen;
    bit ready, listened, was, done;
    {
        do
        :: rounds == 0 -> break
        :: atomic { else -> if :: rounds < FOR_EVER -> rounds-- :: else fi }
            do
            /* Under the lock of its side: the deed, or the news that it must wait. */
            :: d_step { mine == GROWN && !IS_EMPTY -> popped++; done = 1 } break
#ifdef MUTATION_FLAG_BEFORE_COUNT
            :: d_step { mine == ROOM && !IS_FULL && !shut -> was = flag[GROWN] }
                d_step { pushed++; done = 1 }
                break
#else
            :: d_step { mine == ROOM && !IS_FULL && !shut -> pushed++; done = 1 } break
#endif
            :: d_step { shut && (mine == ROOM || IS_EMPTY) -> rounds = 0 } break
            :: d_step { GIVE_UP -> vain++; rounds = 0 } break /* while it waited for the lock */
            :: atomic { MUST_WAIT -> listened = 1 }
                listen(mine);
                if
                :: d_step { ready -> ready = 0 }
                :: else ->
                    d_step { /* FUTEX_WAIT: the kernel compares and queues */
                        if
                        :: rings[mine] == heard -> parked[me] = mine + 1
                        :: else
                        fi;
                        heard = 0
                    }
                    if
                    :: parked[me] == 0
                    :: d_step { parked[me] && GIVE_UP -> vain++; rounds = 0; parked[me] = 0 } break
                    fi
                fi
            od;
#ifdef MUTATION_NO_STAND_IN_VAIN
            if
            :: atomic { listened && done -> listened = 0 } stand_in(mine)
            :: atomic { else -> listened = 0 }
            fi;
#else
            if
            :: atomic { listened -> listened = 0 } stand_in(mine)
            :: else
            fi;
#endif
            if
#ifdef MUTATION_FLAG_BEFORE_COUNT
            :: atomic { done && mine == ROOM -> done = 0 }
                if
                :: d_step { was -> was = 0; flag[GROWN] = 0; rings[GROWN]++ }
                    wake_one(GROWN)
                :: else
                fi
#else
            :: atomic { done && mine == ROOM -> done = 0 } ring(GROWN)
#endif
#if BOUND
            :: atomic { done && mine == GROWN -> done = 0 } ring(ROOM)
#endif
            :: atomic { else -> done = 0 }
            fi
        od
    } unless {
        d_step {
            kill[me] -> kill[me] = 0; parked[me] = 0; unburied++;
            rounds = 0; heard = 0; seen = 0; ready = 0; listened = 0; was = 0; done = 0
        }
    }
}

/* -- The rest --------------------------------------------------------------------------- */

/* SIGKILLs, at any moment. */
proctype killer() {
    byte who;
end:
    do
    :: atomic { deaths < DEATHS ->
            deaths++;
            select(who : 0 .. MEMBERS - 1);
            kill[who] = 1;
            who = 0 }
    od
}

/* kin__queue_bury, by a member that lives; one that dies in it is another's to begin again. */
proctype undertaker() {
end:
    do
    :: atomic { unburied -> unburied-- }
#ifdef MUTATION_BURIAL_LOOKS_AT_FLAG
        if
        :: flag[GROWN] -> flag[GROWN] = 0; rings[GROWN]++; wake_all(GROWN)
        :: else
        fi;
        if
        :: flag[ROOM] -> flag[ROOM] = 0; rings[ROOM]++; wake_all(ROOM)
        :: else
        fi
#else
        rings[GROWN]++;
        wake_all(GROWN);
        rings[ROOM]++;
        wake_all(ROOM)
#endif
    od
}

#ifdef SHUT
/* kin_queue_shut */
proctype shutter() {
    bit was;
    shut = 1;
    atomic { was = flag[GROWN]; flag[GROWN] = 0 }
    if
    :: was -> rings[GROWN]++; wake_all(GROWN)
    :: else
    fi;
    atomic { was = flag[ROOM]; flag[ROOM] = 0 }
    if
    :: was -> rings[ROOM]++; wake_all(ROOM)
    :: else
    fi
}
#endif

/* Nothing moves any more. */
proctype monitor() {
    byte who;
    timeout;
    d_step {
        for (who : 0 .. MEMBERS - 1) {
            assert(parked[who] == 0 || !shut);
            assert(parked[who] != GROWN + 1 || pushed == popped);
            assert(parked[who] != ROOM + 1 || pushed - popped == BOUND)
        }
    }
}

init {
    byte who;
    atomic {
        run member(0, GROWN, 1); /* takes one, and is gone */
        for (who : 1 .. CONSUMERS - 1) {
            run member(who, GROWN, FOR_EVER)
        }
        for (who : CONSUMERS .. MEMBERS - 1) {
            run member(who, ROOM, ROUNDS)
        }
        who = 0;
        run killer();
        run undertaker();
#ifdef SHUT
        run shutter();
#endif
        run monitor()
    }
}
