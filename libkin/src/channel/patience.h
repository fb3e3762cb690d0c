/* How a channel waits: a short spin where another CPU may answer, then poll(). */
#ifndef KIN_CHANNEL_PATIENCE_H
#define KIN_CHANNEL_PATIENCE_H

#include "kin/channel.h"
#include "os/os_process.h"
#include "os/os_stream.h"

/* Tried now and then: 0 or the error that ends the spin; -EAGAIN: not yet. */
typedef ssize_t kin__try(void *work);

/* Spin until the try says something else than -EAGAIN, for some microseconds at the most, and only
 * as long as that has paid of late in this process.  Returns what it said last. */
ssize_t kin__patience_spin(kin__try *try, void *work);

/* Wait until `fd` can be read or written: 0, -ETIMEDOUT, -EINTR; -EAGAIN if its user wants no
 * waiting. */
kin_err kin__patience_wait(int fd, unsigned char want, kin_deadline deadline);

#endif
