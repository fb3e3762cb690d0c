/* The turn: who has waited for long is the next.  Is a wake-up lost by it?
 *
 * Consumers of one queue park on its bell, or, whenever they like, claim the turn and park on the other word,
 * `calls`.  While it is somebody's turn the others leave what is there, until they lose patience, which
 * they may at any time, and cancel it.  Members are killed at any step.  As in bells.pml no park has a
 * time-out (but the one of those who leave a record to another): when nothing moves any more, nobody
 * may be parked while there is something to take.
 *
 * docs/queue.md, "The turn"; libkin/src/queue/turns.c.  Configurations: CONSUMERS (2 or 3), PRODUCERS, ROUNDS (of each
 * producer), CLAIMS (in all), DEATHS. */

#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef PRODUCERS
#define PRODUCERS 1
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef CLAIMS
#define CLAIMS 2
#endif
#ifndef DEATHS
#define DEATHS 0
#endif

#define MEMBERS (CONSUMERS + PRODUCERS)
#define BELL 1
#define CALLS 2

byte items;
bit flag;
byte rings, calls;
byte turn;  /* 0, or the waiter + 1 */
bit called; /* in the same word */
byte parked[CONSUMERS]; /* 0, BELL or CALLS */
bit kill[MEMBERS];
byte deaths, claims;
bit unburied[MEMBERS];

inline wake_one() {
    atomic {
        if
        :: parked[0] == BELL -> parked[0] = 0
        :: parked[1] == BELL -> parked[1] = 0
#if CONSUMERS > 2
        :: parked[2] == BELL -> parked[2] = 0
#endif
        :: else
        fi
    }
}

inline wake_all(word) {
    d_step {
        if :: parked[0] == word -> parked[0] = 0 :: else fi;
        if :: parked[1] == word -> parked[1] = 0 :: else fi;
#if CONSUMERS > 2
        if :: parked[2] == word -> parked[2] = 0 :: else fi;
#endif
        skip
    }
}

inline ring() {
    if
    :: flag ->
        d_step { was = flag; flag = 0 }
        if
        :: d_step { was -> was = 0; rings++ } wake_one()
        :: else
        fi
    :: else
    fi
}

/* kin__call(…, 1), by who has put something */
inline call() {
    seen = turn;
    if
#ifndef MUTATION_TURN_IS_NOT_CALLED
    :: d_step { seen && turn == seen && !called -> called = 1; seen = 0 } /* compare and swap */
        calls++;
        wake_all(CALLS)
#endif
    :: d_step { !seen || turn != seen || called -> seen = 0 }
        ring()
#ifdef MUTATION_TURN_IS_NOT_CALLED
    :: d_step { seen && turn == seen && !called -> seen = 0 }
        ring()
#endif
    fi
}

proctype producer(byte me; byte rounds) {
    byte seen;
    bit was;
    {
        do
        :: d_step { rounds -> rounds--; items++ } call()
        :: rounds == 0 -> break
        od
    } unless {
        d_step { kill[me] -> kill[me] = 0; unburied[me] = 1; rounds = 0; seen = 0; was = 0 }
    }
}

#define MINE (turn == me + 1)
#define RESERVED (turn && !MINE)

/* Something is there, for another. */
inline await_the_other() {
    heard = rings;
    flag = 1;
    seen = turn;
    if
    :: seen == 0 || items == 0 || !RESERVED
    :: else ->
        d_step {
            if
            :: rings == heard -> parked[me] = BELL
            :: else
            fi
        }
        if
        :: parked[me] == 0
        :: d_step { parked[me] -> parked[me] = 0 } /* its patience is at its end */
            if
            :: d_step { turn == seen -> turn = 0; called = 0 }
                calls++;
                wake_all(CALLS)
            :: d_step { turn != seen -> skip }
            fi
        fi
    fi;
    d_step { heard = 0; seen = 0 }
}

/* It has the turn; `heard` is what it read of `calls` before. */
inline await_a_call() {
    if
    :: items
    :: else ->
        d_step {
            if
            :: calls == heard -> parked[me] = CALLS
            :: else
            fi
        }
        parked[me] == 0
    fi
}

inline await_a_ring() {
    heard = rings;
    flag = 1;
    if
    :: items
    :: else ->
        d_step {
            if
            :: rings == heard -> parked[me] = BELL
            :: else
            fi
        }
        parked[me] == 0
    fi
}

/* Nothing is there. */
inline await() {
#ifndef MUTATION_HEAR_AFTER_CLAIM
    heard = calls;
#endif
    if
    :: d_step { has && MINE -> called = 0 } /* called, and looked in vain */
#ifdef MUTATION_HEAR_AFTER_CLAIM
        heard = calls;
#endif
        await_a_call()
    :: d_step { !(has && MINE) && claims < CLAIMS && turn == 0 -> turn = me + 1; called = 0; has = 1; claims++ }
#ifdef MUTATION_HEAR_AFTER_CLAIM
        if
        :: items -> goto again
        :: else
        fi;
        heard = calls;
        d_step {
            if
            :: calls == heard -> parked[me] = CALLS
            :: else
            fi
        }
        parked[me] == 0
#else
        await_a_call()
#endif
    :: atomic { !(has && MINE) -> has = 0; listened = 1 }
        await_a_ring()
    fi;
    heard = 0
}

/* It takes until it is killed; the first takes one, and goes. */
proctype consumer(byte me) {
    byte heard, seen;
    bit was, has, listened;
    {
again:  do
        :: d_step { items && !RESERVED -> items-- }
            if
            :: d_step { has && MINE -> turn = 0; called = 0 } /* give back */
            :: else
            fi;
            if
            :: has || listened ->
                d_step { has = 0; listened = 0 }
                flag = 1;
                if
                :: items -> ring()
                :: else
                fi
            :: else
            fi;
            if
            :: me == 0 -> break
            :: else
            fi
        :: atomic { items && RESERVED -> listened = 1 } await_the_other()
        :: items == 0 -> await()
        od
    } unless {
        d_step { kill[me] -> kill[me] = 0; unburied[me] = 1; parked[me] = 0;
            heard = 0; seen = 0; was = 0; has = 0; listened = 0 }
    }
}

proctype killer() {
end:
    do
    :: atomic { deaths < DEATHS ->
            deaths++;
            if
            :: kill[0] = 1
            :: kill[1] = 1
            :: kill[2] = 1
            fi }
    od
}

/* kin__turn_bury, kin__call_all */
proctype undertaker() {
    byte who;
end:
    do
    :: atomic { unburied[0] -> unburied[0] = 0; who = 1 } goto bury
    :: atomic { unburied[1] -> unburied[1] = 0; who = 2 } goto bury
    :: atomic { unburied[2] -> unburied[2] = 0; who = 3 } goto bury
    od;
bury:
#ifndef MUTATION_TURN_IS_NOT_BURIED
    atomic {
        if
        :: turn == who -> turn = 0; called = 0
        :: else
        fi
    }
#endif
    who = 0;
    calls++;
    wake_all(CALLS);
    d_step { flag = 0; rings++ }
    wake_all(BELL);
    goto end
}

proctype monitor() {
    timeout;
    assert(items == 0 || (!parked[0] && !parked[1]))
#if CONSUMERS > 2
    ; assert(items == 0 || !parked[2])
#endif
}

init {
    byte who;
    atomic {
        for (who : 0 .. CONSUMERS - 1) {
            run consumer(who)
        }
        for (who : CONSUMERS .. MEMBERS - 1) {
            run producer(who, ROUNDS)
        }
        who = 0;
        run killer();
        run undertaker();
        run monitor()
    }
}
