/* The writer's slow ways: frames, large payloads, room.
 *
 * A frame's head is left open where the frame begins and filled in when it is
 * cut: a frame never spans a drain, so the head is still in the buffer then.
 * Frames too short to be worth a head (KIN_FRAME_MIN) give it back: their few
 * bytes move to the front. */
#include <kin/pickle.h>

/* The next byte begins a frame, if there are frames: kin_reserve finds no room for it. */
static void no_frame(kin_writer *w) {
    w->frame = KIN_NO_FRAME;
    w->full = (uint8_t *)UINTPTR_MAX;
    if (w->framed) w->end = w->at;
}

kin_err kin_writer_begin(kin_writer *w, uint8_t protocol) {
    w->protocol = protocol;
    w->framed = false;
    w->end = w->limit;
    no_frame(w);
    if (protocol < 2) return 0;
    kin_err err = kin_reserve(w, 2);
    if (err < 0) return err;
    *w->at++ = KIN_OP_PROTO;
    *w->at++ = protocol;
    w->framed = protocol >= 4;
    no_frame(w);
    return 0;
}

kin_err kin_writer_end(kin_writer *w) {
    kin_err err = kin_put_op(w, KIN_OP_STOP);
    return err < 0 ? err : kin_writer_cut(w);
}

kin_err kin_writer_room(kin_writer *w, size_t need) {
    if (need > SIZE_MAX / 2) return -ENOMEM;
    bool begins = w->framed && w->frame == KIN_NO_FRAME;
    if (begins) need += KIN_FRAME_HEAD;
    if ((size_t)(w->limit - w->at) < need) {
        kin_err err = w->ops->grow(w, need);
        if (err < 0) return err;
    }
    w->end = w->limit;
    if (begins) {
        w->frame = (size_t)(w->at - w->start);
        w->at += KIN_FRAME_HEAD;
    }
    if (w->frame != KIN_NO_FRAME) {
        w->full = w->start + w->frame + KIN_FRAME_HEAD + KIN_FRAME_TARGET;
    }
    return 0;
}

/* Fills in the head of the open frame, if there is one. */
static void close_frame(kin_writer *w) {
    if (w->frame == KIN_NO_FRAME) return;
    uint8_t *head = w->start + w->frame;
    size_t len = (size_t)(w->at - head) - KIN_FRAME_HEAD;
    if (len >= KIN_FRAME_MIN) {
        *head = KIN_OP_FRAME;
        kin_store8(head + 1, len);
    } else {
        memmove(head, head + KIN_FRAME_HEAD, len);
        w->at = head + len;
    }
    no_frame(w);
}

static kin_err drain(kin_writer *w) {
    kin_err err = w->ops->drain ? w->ops->drain(w) : 0;
    w->end = w->framed ? w->at : w->limit;
    return err;
}

kin_err kin_writer_cut(kin_writer *w) {
    close_frame(w);
    return drain(w);
}

kin_err kin_writer_large(kin_writer *w, const uint8_t *head, size_t head_len, const void *data,
                         size_t len) {
    bool framed = w->framed;
    close_frame(w);
    w->framed = false;
    w->end = w->limit;
    kin_err err = kin_put_raw(w, head, head_len);
    if (err == 0 && w->ops->take) {
        err = drain(w);
        if (err == 0) err = w->ops->take(w, data, len);
    }
    /* err > 0: it was taken.  Else it goes the way of all bytes. */
    if (err == 0) err = kin_put_raw(w, data, len);
    else if (err > 0) err = 0;
    w->framed = framed;
    no_frame(w);
    return err;
}
