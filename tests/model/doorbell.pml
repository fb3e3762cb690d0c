/* The doorbell: is a ring ever lost?
 *
 * Ringers change an object (put items into a queue) and ring the doorbells of those who watch it; each watcher sits
 * in an event loop, polls its descriptor, takes an item if there is one, and settles when it finds none.  Others
 * take items, too.  Members are killed at any step; a burial rings all entries.  Nobody looks again
 * after a second here.  So when nothing moves any more, a watcher that polls in vain must have nothing to
 * take.
 *
 * docs/doorbell.md, "Steps"; libkin/src/family/watch.c, doorbell.c.
 * Configurations: RINGERS, WATCHERS, TAKERS, ROUNDS (items of each ringer), DEATHS. */

#ifndef RINGERS
#define RINGERS 2
#endif
#ifndef WATCHERS
#define WATCHERS 1
#endif
#ifndef TAKERS
#define TAKERS 0
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef DEATHS
#define DEATHS 0
#endif

#define MEMBERS (RINGERS + WATCHERS)

byte items;
bit flag;               /* WATCHED: an entry may be armed */
bit armed[WATCHERS];    /* the entries */
bit readable[WATCHERS]; /* the doorbells' sockets; a second datagram changes nothing */
bit polling[WATCHERS];
bit kill[MEMBERS];
byte deaths, unburied;

/* -- Ring ------------------------------------------------------------------------------ */

inline ring_one(who, all) {
    d_step {
        was = armed[who] || all;
        armed[who] = 0
    }
    if
    :: d_step { was -> was = 0; readable[who] = 1 } /* send */
    :: else
    fi
}

inline walk(all) {
    ring_one(0, all)
#if WATCHERS > 1
    ; ring_one(1, all)
#endif
}

proctype ringer(byte me) {
    byte round;
    bit was;
    {
        do
        :: round < ROUNDS ->
#ifdef MUTATION_CHECK_BEFORE_CHANGE
            if
            :: d_step { flag -> round++ } items++; flag = 0; walk(0)
            :: d_step { else -> round++ } items++
            fi
#else
            d_step { round++; items++ } /* change */
            if
            :: flag -> /* check */
#ifdef MUTATION_CLEAR_AFTER_WALK
                walk(0);
                flag = 0
#else
                d_step { was = flag; flag = 0 } /* clear; of several one finds it set */
                if
                :: was -> was = 0; walk(0)
                :: else
                fi
#endif
            :: else
            fi
#endif
        :: else -> break
        od
    } unless {
        d_step { kill[me] -> unburied++; kill[me] = 0; round = 0; was = 0 }
    }
}

/* -- Watch ------------------------------------------------------------------------------- */

/* arm, flag, look: in this order. */
inline arm_and_look() {
    if
    :: items -> readable[mine] = 1 /* by its own process */
    :: else ->
#ifdef MUTATION_LOOK_BEFORE_ARM
        armed[mine] = 1;
        flag = 1
#else
#ifdef MUTATION_FLAG_BEFORE_ARM
        flag = 1;
        armed[mine] = 1;
#else
        armed[mine] = 1;
        flag = 1;
#endif
        if
        :: items -> readable[mine] = 1
        :: else
        fi
#endif
    fi
}

inline settle() {
#ifdef MUTATION_DRAIN_AFTER_LOOK
    arm_and_look();
    readable[mine] = 0
#else
    readable[mine] = 0; /* drain */
    arm_and_look()
#endif
}

proctype watcher(byte me; byte mine) {
    {
        arm_and_look();
        do
        :: d_step { readable[mine] -> polling[mine] = 0 }
            if
            :: d_step { items -> items-- }
            :: items == 0 -> settle()
            fi;
            polling[mine] = 1
        od
    } unless {
        d_step { kill[me] -> unburied++; kill[me] = 0; polling[mine] = 0 }
    }
}

/* -- The rest ------------------------------------------------------------------------------ */

/* Another consumer: takes what is meant for the watchers, and settles nothing of theirs. */
proctype taker() {
    do
    :: d_step { items -> items-- }
    :: break
    od
}

proctype killer() {
end:
    do
    :: atomic { deaths < DEATHS ->
            deaths++;
            if
            :: kill[0] = 1
#if MEMBERS > 1
            :: kill[1] = 1
#endif
#if MEMBERS > 2
            :: kill[2] = 1
#endif
#if MEMBERS > 3
            :: kill[3] = 1
#endif
            fi }
    od
}

proctype undertaker() {
    bit was;
end:
    do
    :: atomic { unburied -> unburied-- }
#ifdef MUTATION_BURIAL_RINGS_ARMED_ONLY
        walk(0)
#else
        walk(1)
#endif
    od
}

proctype monitor() {
    timeout;
    d_step {
        assert(items == 0 || !polling[0]);
#if WATCHERS > 1
        assert(items == 0 || !polling[1]);
#endif
        skip
    }
}

init {
    byte who;
    atomic {
        for (who : 0 .. WATCHERS - 1) {
            polling[who] = 1;
            run watcher(RINGERS + who, who)
        }
        for (who : 0 .. RINGERS - 1) {
            run ringer(who)
        }
#if TAKERS
        run taker();
#endif
        who = 0;
        run killer();
        run undertaker();
        run monitor()
    }
}
