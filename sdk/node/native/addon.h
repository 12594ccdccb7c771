/* addon.h - declarations shared by the files of the addon.
 *
 * The addon is thin: it makes the non-blocking calls of microsandbox.h, polls descriptors in node's
 * loop, and makes the few blocking calls on threads of its own. Everything else is TypeScript.
 *
 * An `instance` belongs to one node environment, of the main thread or a worker, and only that
 * environment's thread uses it. A `cell` is a handle of the library with the state needed to wait
 * for it; JavaScript holds it as an external. The end of an environment closes all its cells.
 */
#ifndef ADDON_H
#define ADDON_H

#define NAPI_VERSION 8
#include "loop.h"
#include <microsandbox.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>

enum { POOL_THREADS = 16 };

struct mailbox;

struct cell {
    struct cell *next, **link; /* in the instance's list, while the handle is open */
    struct instance *instance;
    void *handle;     /* NULL once it is closed */
    uv_poll_t *poll;  /* created by the first wait */
    napi_ref waiting; /* the callback while a call waits */
    int references;   /* of JavaScript and libuv */
};

struct instance {
    napi_env env;
    uv_loop_t *loop;
    napi_async_context context;
    napi_async_cleanup_hook_handle cleanup;
    struct mailbox *mailbox;
    struct cell *cells;
    int32_t *last;    /* memory shared with JavaScript: kind and value of the last event */
    int64_t lent;     /* bytes of outputs that JavaScript holds */
    int64_t lent_max; /* beyond this limit they are copied */
    int open;         /* libuv handles that are not closed yet */
    int references;   /* of the environment, each cell and each libuv handle */
    bool ending;
};

/* ---- values.c ---- */

/* A failure of Node-API here is a bug in the addon, unless the environment is ending. */
void check(napi_env env, napi_status status, const char *call);
#define MUST(call) check(env, (call), #call)

void *allocate(size_t count, size_t size);
napi_value undefined(napi_env env);
napi_value null(napi_env env);
napi_value number(napi_env env, double from);
napi_value boolean(napi_env env, bool from);
napi_value text(napi_env env, const char *from);
napi_value copied(napi_env env, const void *data, size_t len);
napi_value object(napi_env env);
void set(napi_env env, napi_value object, const char *name, napi_value value);
/* Returns an array of two values. */
napi_value pair(napi_env env, napi_value first, napi_value second);
napi_value texts(napi_env env, const char *const *list, size_t len);
napi_value error_value(napi_env env, const msb_error *err);
/* Throws when a call failed. */
bool failed(napi_env env, msb_status status, const msb_error *err);
napi_value exit_value(napi_env env, const msb_exec_exit *exit);
napi_value failure_value(napi_env env, const msb_exec_failure *failure);
napi_value sandboxes_value(napi_env env, const msb_sandbox_entries *list);
napi_value sessions_value(napi_env env, const msb_exec_entries *list);
napi_value host_value(napi_env env, const msb_driver_entries *drivers,
                      const msb_wall_entries *walls);

void arguments(napi_env env, napi_callback_info info, size_t count, napi_value *out);
/* Returns a number or BigInt; 0 for anything else. */
uint64_t to_u64(napi_env env, napi_value value);
/* Returns a numeric field, possibly a fraction; 0 if missing. */
double real(napi_env env, napi_value from, const char *name);
uint64_t field(napi_env env, napi_value from, const char *name);
bool has(napi_env env, napi_value from, const char *name, napi_value *value);

/* Memory lent to a call: NUL-terminated copies, released together. */
struct lent {
    struct lent_block *first;
};
void *keep(struct lent *lent, void *memory);
void lent_release(struct lent *lent);
const char *lend(napi_env env, struct lent *lent, napi_value from, const char *name, size_t *len);
const char *const *lend_all(napi_env env, struct lent *lent, napi_value from, const char *name,
                            size_t *len);
const msb_mount *lend_mounts(napi_env env, struct lent *lent, napi_value from, size_t *len);
const msb_rlimit *lend_rlimits(napi_env env, struct lent *lent, napi_value from, size_t *len);

/* ---- options.c ---- */

void lend_sandbox_options(napi_env env, struct lent *lent, napi_value from,
                          msb_sandbox_options *to);
void lend_exec_options(napi_env env, struct lent *lent, napi_value from, msb_exec_options *to);

/* ---- cell.c ---- */

struct instance *instance_of(napi_env env);
bool instance_make(napi_env env, napi_value exports);
void instance_release(struct instance *instance);
/* Opens and closes libuv handles, so that the instance outlives them. */
void *loop_handle(struct instance *instance, int type, void *data);
void loop_handle_close(void *handle, uv_close_cb closed);
void loop_handle_closed(struct instance *instance);
napi_value cell_value(napi_env env, void *handle);
/* Removes the descriptor from the loop, then closes the handle. */
void cell_close(struct cell *cell);
struct cell *to_cell(napi_env env, napi_value value);
void call_back(struct instance *instance, napi_ref function, size_t count, napi_value *argument);
extern const napi_property_descriptor cell_functions[];
extern const size_t cell_functions_len;

/* ---- job.c ---- */

struct mailbox *mailbox_make(struct instance *instance);
/* Closes the mailbox: jobs that end later are discarded. */
void mailbox_close(struct mailbox *mailbox);
extern const napi_property_descriptor job_functions[];
extern const size_t job_functions_len;

/* ---- images.c ---- */

napi_value images_value(napi_env env, const msb_image_entries *list);
extern const napi_property_descriptor image_functions[];
extern const size_t image_functions_len;

/* ---- files.c ---- */

extern const napi_property_descriptor file_functions[];
extern const size_t file_functions_len;

/* ---- calls.c ---- */

extern const napi_property_descriptor call_functions[];
extern const size_t call_functions_len;

#define FUNCTION(name, function) \
    {name, NULL, function, NULL, NULL, NULL, napi_enumerable, NULL}

#endif
