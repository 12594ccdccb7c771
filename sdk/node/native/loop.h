/* loop.h - the few functions of libuv that the addon uses.
 *
 * node exports them, but node-api-headers, the only build dependency, has no uv.h. Handles are
 * opaque: libuv returns their size. Types and numbers are those of libuv 1, whose ABI is stable.
 */
#ifndef LOOP_H
#define LOOP_H

#include <stddef.h>

typedef struct uv_loop_s uv_loop_t;
typedef struct uv_handle_s uv_handle_t;
typedef struct uv_poll_s uv_poll_t;
typedef struct uv_async_s uv_async_t;

enum { UV_ASYNC = 1, UV_POLL = 8 };
enum { UV_READABLE = 1 };

typedef void (*uv_close_cb)(uv_handle_t *handle);
typedef void (*uv_poll_cb)(uv_poll_t *poll, int status, int events);
typedef void (*uv_async_cb)(uv_async_t *async);

size_t uv_handle_size(int type);
void *uv_handle_get_data(const uv_handle_t *handle);
void uv_handle_set_data(uv_handle_t *handle, void *data);
void uv_close(uv_handle_t *handle, uv_close_cb closed);
void uv_ref(uv_handle_t *handle);
void uv_unref(uv_handle_t *handle);
int uv_poll_init(uv_loop_t *loop, uv_poll_t *poll, int fd);
int uv_poll_start(uv_poll_t *poll, int events, uv_poll_cb ready);
int uv_poll_stop(uv_poll_t *poll);
int uv_async_init(uv_loop_t *loop, uv_async_t *async, uv_async_cb called);
int uv_async_send(uv_async_t *async);

#endif
