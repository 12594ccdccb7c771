/* cell.c - handles that can be awaited. */
#include "addon.h"

#include <stdlib.h>

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
void cell_close(struct cell *cell)
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
