/* Messages in records and blobs: docs/messages.md.
 *
 * The same layout as the extension's (ext/message.c), which has Python's objects to
 * write and keeps the blob for the views of it. */
#include <kin/message.h>

#include <stdlib.h>
#include <string.h>

/* -- Out ------------------------------------------------------------------------------ */

static uint64_t blob_len(const kin_pickled *pickled) {
    uint64_t len =
        sizeof(kin_message_head) + pickled->buffer_count * sizeof(uint64_t) + pickled->len;
    for (size_t i = 0; i < pickled->buffer_count; i++) {
        len = kin_message_align(len) + pickled->buffers[i].len;
    }
    return len;
}

static uint64_t copy(uint8_t *data, uint64_t off, const void *from, size_t len) {
    if (len) memcpy(data + off, from, len);
    return off + len;
}

static void blob_write(const kin_pickled *pickled, uint8_t *data) {
    kin_message_head head = {KIN_MESSAGE_FORMAT, (uint32_t)pickled->buffer_count, pickled->len};
    uint64_t off = copy(data, 0, &head, sizeof head);
    for (size_t i = 0; i < pickled->buffer_count; i++) {
        uint64_t len = pickled->buffers[i].len;
        off = copy(data, off, &len, sizeof len);
    }
    off = copy(data, off, pickled->data, pickled->len);
    for (size_t i = 0; i < pickled->buffer_count; i++) {
        const kin_buffer *buffer = &pickled->buffers[i];
        off = copy(data, kin_message_align(off), buffer->data, buffer->len);
    }
}

static kin_err blob_add_refs(kin_blob *blob, const kin_pickled *pickled) {
    for (size_t i = 0; i < pickled->ref_count; i++) {
        kin_err err = kin_blob_add_ref(blob, &pickled->refs[i]);
        if (err < 0) return err;
    }
    return 0;
}

kin_err kin_message_push(kin_queue *queue, const kin_pickled *pickled, kin_deadline deadline) {
    if (!pickled->ref_count && !pickled->buffer_count && pickled->len <= KIN_RECORD_MAX) {
        return kin_queue_push(queue, pickled->data, (uint32_t)pickled->len, 0, deadline);
    }
    if (pickled->ref_count > UINT32_MAX || pickled->buffer_count > UINT32_MAX) return KIN_ETOOLARGE;
    kin_blob blob;
    kin_err err = kin_blob_create(queue->handle.family, blob_len(pickled),
                                  (uint32_t)pickled->ref_count, &blob);
    if (err < 0) return err;
    blob_write(pickled, blob.data);
    err = blob_add_refs(&blob, pickled);
    if (err == 0) err = kin_queue_push_blob(queue, &blob, 0, deadline);
    if (err < 0) kin_blob_free(&blob);
    return err;
}

/* -- In ------------------------------------------------------------------------------- */

static kin_err fail(kin_read_error *error, size_t off, const char *reason) {
    if (error) *error = (kin_read_error){.off = off, .reason = reason};
    return -EBADMSG;
}

/* Reads the blob's head once, and checks that the pickle lies inside. */
static bool head_read(kin_message_head *out, uint64_t *pickle_off, const kin_blob *blob) {
    if (blob->len < sizeof *out) return false;
    memcpy(out, blob->data, sizeof *out);
    if (out->format != KIN_MESSAGE_FORMAT) return false;
    if (out->buffer_count > (blob->len - sizeof *out) / sizeof(uint64_t)) return false;
    *pickle_off = sizeof *out + out->buffer_count * sizeof(uint64_t);
    return out->pickle_len <= blob->len - *pickle_off;
}

/* Where the buffers lie; each is in the blob. */
static bool find_buffers(kin_buffer *buffers, const kin_message_head *head, uint64_t end,
                         const kin_blob *blob) {
    for (uint32_t i = 0; i < head->buffer_count; i++) {
        uint64_t len, off = kin_message_align(end);
        memcpy(&len, blob->data + sizeof *head + i * sizeof len, sizeof len);
        if (off > blob->len || len > blob->len - off) return false;
        buffers[i] = (kin_buffer){.data = blob->data + off, .len = (size_t)len};
        end = off + len;
    }
    return true;
}

static kin_err read_with_buffers(const kin_blob *blob, const kin_message_head *head,
                                 uint64_t pickle_off, kin_read_options *options, kin_values *out,
                                 kin_read_error *error) {
    const uint8_t *pickle = blob->data + pickle_off;
    options->buffer_count = head->buffer_count;
    options->buffers = NULL;
    if (head->buffer_count == 0) {
        return kin_pickle_read(pickle, (size_t)head->pickle_len, options, out, error);
    }
    kin_buffer *buffers = calloc(head->buffer_count, sizeof *buffers);
    if (!buffers) return -ENOMEM;
    options->buffers = buffers;
    kin_err err;
    if (find_buffers(buffers, head, pickle_off + head->pickle_len, blob)) {
        err = kin_pickle_read(pickle, (size_t)head->pickle_len, options, out, error);
    } else {
        err = fail(error, 0, "a buffer does not lie in the blob");
    }
    free(buffers);
    return err;
}

static kin_err read_blob(kin_blob *blob, kin_read_options *options, kin_message *out,
                         kin_read_error *error) {
    kin_message_head head;
    uint64_t pickle_off;
    kin_values values = {0};
    kin_err err;
    if (head_read(&head, &pickle_off, blob)) {
        err = read_with_buffers(blob, &head, pickle_off, options, &values, error);
    } else {
        err = fail(error, 0, "the blob holds no message");
    }
    if (err < 0) kin_blob_free(blob);
    else *out = (kin_message){.values = values, .blob = *blob};
    return err;
}

kin_err kin_message_pop(kin_queue *queue, const kin_read_options *options, kin_message *out,
                        kin_read_error *error, kin_deadline deadline) {
    uint8_t buffer[KIN_RECORD_MAX];
    kin_record record;
    if (error) *error = (kin_read_error){.reason = ""};
    kin_err err = kin_queue_pop(queue, buffer, &record, deadline);
    if (err < 0) return err;
    kin_read_options ours = options ? *options : (kin_read_options){0};
    if (record.blob.family) return read_blob(&record.blob, &ours, out, error);
    ours.buffer_count = 0;
    kin_values values;
    err = kin_pickle_read(buffer, record.len, &ours, &values, error);
    if (err == 0) *out = (kin_message){.values = values};
    return err;
}

void kin_message_fini(kin_message *message) {
    kin_values_fini(&message->values);
    if (message->blob.family) kin_blob_free(&message->blob);
    *message = (kin_message){0};
}
