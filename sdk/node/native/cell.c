/* cell.c - the instance of an environment, and handles that can be awaited. */
#include "addon.h"

#include <stdlib.h>

/* ---- the instance ---- */

struct instance *instance_of(napi_env env)
{
    void *instance = NULL;

    MUST(napi_get_instance_data(env, &instance));
    return instance;
}

void instance_release(struct instance *instance)
{
    if (--instance->references > 0)
        return;
    free(instance);
}

static void instance_finalize(napi_env env, void *data, void *hint)
{
    (void)env, (void)hint;
    instance_release(data);
}

void *loop_handle(struct instance *instance, int type, void *data)
{
    void *handle = allocate(1, uv_handle_size(type));

    uv_handle_set_data(handle, data);
    instance->open++;
    instance->references++;
    return handle;
}

void loop_handle_close(void *handle, uv_close_cb closed)
{
    uv_close(handle, closed);
}

/* Drops a reference. The last one lets an ending environment continue to end. */
void loop_handle_closed(struct instance *instance)
{
    if (--instance->open == 0 && instance->ending)
        napi_remove_async_cleanup_hook(instance->cleanup);
    instance_release(instance);
}

static void cell_close(struct cell *cell);

/* The environment ends: removes everything from the loop and closes all handles. */
static void end(napi_async_cleanup_hook_handle handle, void *data)
{
    struct instance *instance = data;

    instance->cleanup = handle;
    instance->references++;
    while (instance->cells)
        cell_close(instance->cells);
    napi_async_destroy(instance->env, instance->context);
    mailbox_close(instance->mailbox);
    instance->ending = true; /* mailbox_close leaves at least one handle to be closed */
    instance_release(instance);
}

bool instance_make(napi_env env, napi_value exports)
{
    struct instance *instance = allocate(1, sizeof *instance);
    napi_value buffer = NULL, array = NULL;
    void *last = NULL;

    instance->env = env;
    instance->references = 1;
    MUST(napi_get_uv_event_loop(env, &instance->loop));
    MUST(napi_set_instance_data(env, instance, instance_finalize, NULL));
    MUST(napi_async_init(env, NULL, text(env, "microsandbox"), &instance->context));
    instance->mailbox = mailbox_make(instance);
    if (!instance->mailbox)
        return false;
    MUST(napi_add_async_cleanup_hook(env, end, instance, &instance->cleanup));
    MUST(napi_create_arraybuffer(env, 2 * sizeof *instance->last, &last, &buffer));
    MUST(napi_create_typedarray(env, napi_int32_array, 2, buffer, 0, &array));
    set(env, exports, "last", array);
    instance->last = last; /* lives as long as the exports */
    return true;
}

/* Calls a function from the loop, then runs microtasks. */
void call_back(struct instance *instance, napi_ref function, size_t count, napi_value *argument)
{
    napi_env env = instance->env;
    napi_value callee = NULL, receiver = NULL, thrown = NULL;
    bool pending = false;

    MUST(napi_get_reference_value(env, function, &callee));
    MUST(napi_get_global(env, &receiver));
    MUST(napi_delete_reference(env, function));
    if (napi_make_callback(env, instance->context, receiver, callee, count, argument, NULL) ==
        napi_ok)
        return;
    MUST(napi_is_exception_pending(env, &pending));
    if (pending) {
        MUST(napi_get_and_clear_last_exception(env, &thrown));
        MUST(napi_fatal_exception(env, thrown));
    }
}

/* ---- cells ---- */

static void cell_release(struct cell *cell)
{
    struct instance *instance = cell->instance;

    if (--cell->references > 0)
        return;
    free(cell);
    instance_release(instance);
}

static void poll_closed(uv_handle_t *poll)
{
    struct cell *cell = uv_handle_get_data(poll);
    struct instance *instance = cell->instance;

    free(poll);
    cell_release(cell);
    loop_handle_closed(instance);
}

static void cell_disarm(struct cell *cell)
{
    if (cell->waiting)
        napi_delete_reference(cell->instance->env, cell->waiting);
    cell->waiting = NULL;
}

/* Removes the descriptor from the loop before its handle is closed. */
static void cell_close(struct cell *cell)
{
    void *handle = cell->handle;

    if (!handle)
        return;
    cell->handle = NULL;
    *cell->link = cell->next;
    if (cell->next)
        cell->next->link = cell->link;
    cell_disarm(cell);
    if (cell->poll) {
        uv_poll_stop(cell->poll);
        loop_handle_close(cell->poll, poll_closed);
        cell->poll = NULL;
    }
    msb_handle_close(handle);
}

/* Memory that a handle may hold, reported to the garbage collector, which otherwise sees a few
 * words and would let unreachable handles and their descriptors pile up. */
enum { WEIGHT = 256 << 10 };

static void cell_finalize(napi_env env, void *data, void *hint)
{
    int64_t total = 0;

    (void)hint;
    napi_adjust_external_memory(env, -WEIGHT, &total);
    cell_close(data);
    cell_release(data);
}

/* Wraps a handle that JavaScript owns; null for none. */
napi_value cell_value(napi_env env, void *handle)
{
    struct instance *instance;
    struct cell *cell;
    napi_value value = NULL;
    int64_t total = 0;

    if (!handle)
        return null(env);
    instance = instance_of(env);
    cell = allocate(1, sizeof *cell);
    cell->handle = handle;
    cell->instance = instance;
    cell->references = 1;
    instance->references++;
    cell->next = instance->cells;
    cell->link = &instance->cells;
    if (cell->next)
        cell->next->link = &cell->next;
    instance->cells = cell;
    MUST(napi_create_external(env, cell, cell_finalize, NULL, &value));
    MUST(napi_adjust_external_memory(env, WEIGHT, &total));
    return value;
}

struct cell *to_cell(napi_env env, napi_value value)
{
    void *cell = NULL;

    MUST(napi_get_value_external(env, value, &cell));
    return cell;
}

static void readable(uv_poll_t *poll, int status, int events)
{
    struct cell *cell = uv_handle_get_data((uv_handle_t *)poll);
    struct instance *instance = cell->instance;
    napi_env env = instance->env;
    napi_ref waiting = cell->waiting;
    napi_handle_scope scope = NULL;

    (void)status, (void)events;
    uv_poll_stop(poll);
    cell->waiting = NULL;
    if (!waiting)
        return;
    MUST(napi_open_handle_scope(env, &scope));
    call_back(instance, waiting, 0, NULL);
    MUST(napi_close_handle_scope(env, scope));
}

static bool poll_make(napi_env env, struct cell *cell)
{
    msb_error err = MSB_ERROR_INIT;
    int32_t fd = -1;

    if (cell->poll)
        return true;
    if (failed(env, msb_handle_fd(cell->handle, &fd, &err), &err))
        return false;
    cell->poll = loop_handle(cell->instance, UV_POLL, cell);
    if (uv_poll_init(cell->instance->loop, cell->poll, fd) != 0) {
        free(cell->poll);
        cell->poll = NULL;
        cell->instance->open--;
        instance_release(cell->instance);
        MUST(napi_throw_error(env, NULL, "the descriptor cannot be polled"));
        return false;
    }
    cell->references++;
    return true;
}

/* arm(cell, callback): calls it once when the handle is ready, and keeps the loop alive until then.
 * No effect if a callback is set already. */
static napi_value arm(napi_env env, napi_callback_info info)
{
    napi_value argument[2] = {NULL};
    struct cell *cell;

    arguments(env, info, 2, argument);
    cell = to_cell(env, argument[0]);
    if (!cell->handle || cell->waiting || !poll_make(env, cell))
        return undefined(env);
    MUST(napi_create_reference(env, argument[1], 1, &cell->waiting));
    if (uv_poll_start(cell->poll, UV_READABLE, readable) != 0) {
        cell_disarm(cell);
        MUST(napi_throw_error(env, NULL, "the descriptor cannot be polled"));
    }
    return undefined(env);
}

/* disarm(cell): removes the callback. */
static napi_value disarm(napi_env env, napi_callback_info info)
{
    napi_value argument = NULL;
    struct cell *cell;

    arguments(env, info, 1, &argument);
    cell = to_cell(env, argument);
    cell_disarm(cell);
    if (cell->poll)
        uv_poll_stop(cell->poll);
    return undefined(env);
}

/* close(cell): whether it was open. */
static napi_value close_handle(napi_env env, napi_callback_info info)
{
    napi_value argument = NULL;
    struct cell *cell;
    bool open;

    arguments(env, info, 1, &argument);
    cell = to_cell(env, argument);
    open = cell->handle != NULL;
    cell_close(cell);
    return boolean(env, open);
}

/* counts(): open resources, for tests. */
static napi_value counts(napi_env env, napi_callback_info info)
{
    struct instance *instance = instance_of(env);
    napi_value value = object(env);
    double cells = 0;

    (void)info;
    for (struct cell *cell = instance->cells; cell; cell = cell->next)
        cells++;
    set(env, value, "cells", number(env, cells));
    set(env, value, "polls", number(env, instance->open - 1));
    set(env, value, "lent", number(env, (double)instance->lent));
    return value;
}

const napi_property_descriptor cell_functions[] = {
    FUNCTION("arm", arm),
    FUNCTION("disarm", disarm),
    FUNCTION("close", close_handle),
    FUNCTION("counts", counts),
};
const size_t cell_functions_len = sizeof cell_functions / sizeof *cell_functions;
