/* values.c - converts values and errors to and from JavaScript. */
#include "addon.h"

#include <stdlib.h>
#include <string.h>

/* Returns whether JavaScript may still run, which it may not in a terminating worker. */
static bool alive(napi_env env)
{
    napi_value array = NULL;

    return napi_create_array(env, &array) == napi_ok &&
           napi_set_element(env, array, 0, array) == napi_ok;
}

void check(napi_env env, napi_status status, const char *call)
{
    if (status != napi_ok && alive(env))
        napi_fatal_error(call, NAPI_AUTO_LENGTH, "a call of Node-API failed", NAPI_AUTO_LENGTH);
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);

    if (!memory)
        napi_fatal_error("microsandbox", NAPI_AUTO_LENGTH, "out of memory", NAPI_AUTO_LENGTH);
    return memory;
}

napi_value undefined(napi_env env)
{
    napi_value value = NULL;

    MUST(napi_get_undefined(env, &value));
    return value;
}

napi_value null(napi_env env)
{
    napi_value value = NULL;

    MUST(napi_get_null(env, &value));
    return value;
}

napi_value number(napi_env env, double from)
{
    napi_value value = NULL;

    MUST(napi_create_double(env, from, &value));
    return value;
}

napi_value boolean(napi_env env, bool from)
{
    napi_value value = NULL;

    MUST(napi_get_boolean(env, from, &value));
    return value;
}

napi_value text(napi_env env, const char *from)
{
    napi_value value = NULL;

    if (!from)
        return null(env);
    MUST(napi_create_string_utf8(env, from, NAPI_AUTO_LENGTH, &value));
    return value;
}

napi_value copied(napi_env env, const void *data, size_t len)
{
    napi_value value = NULL;

    MUST(napi_create_buffer_copy(env, len, len ? data : "", NULL, &value));
    return value;
}

napi_value object(napi_env env)
{
    napi_value value = NULL;

    MUST(napi_create_object(env, &value));
    return value;
}

void set(napi_env env, napi_value object, const char *name, napi_value value)
{
    MUST(napi_set_named_property(env, object, name, value));
}

napi_value pair(napi_env env, napi_value first, napi_value second)
{
    napi_value value = NULL;

    MUST(napi_create_array_with_length(env, 2, &value));
    MUST(napi_set_element(env, value, 0, first));
    MUST(napi_set_element(env, value, 1, second));
    return value;
}

napi_value texts(napi_env env, const char *const *list, size_t len)
{
    napi_value value = NULL;

    MUST(napi_create_array_with_length(env, len, &value));
    for (size_t at = 0; at < len; at++)
        MUST(napi_set_element(env, value, (uint32_t)at, text(env, list[at])));
    return value;
}

/* ---- errors ---- */

napi_value error_value(napi_env env, const msb_error *err)
{
    napi_value value = NULL;

    MUST(napi_create_error(env, text(env, msb_status_name(err->status)), text(env, err->message),
                           &value));
    set(env, value, "status", number(env, err->status));
    set(env, value, "errno", number(env, err->os_error));
    set(env, value, "origin", number(env, err->origin));
    return value;
}

bool failed(napi_env env, msb_status status, const msb_error *err)
{
    if (status >= 0)
        return false;
    MUST(napi_throw(env, error_value(env, err)));
    return true;
}

/* ---- results of commands ---- */

napi_value exit_value(napi_env env, const msb_exec_exit *exit)
{
    napi_value value;

    if (!exit)
        return null(env);
    value = object(env);
    set(env, value, "code", number(env, exit->code));
    set(env, value, "signal", number(env, exit->signal));
    set(env, value, "flags", number(env, exit->flags));
    set(env, value, "userMs", number(env, (double)exit->user_ns / 1e6));
    set(env, value, "systemMs", number(env, (double)exit->system_ns / 1e6));
    set(env, value, "wallMs", number(env, (double)exit->wall_ns / 1e6));
    set(env, value, "maxRss", number(env, (double)exit->max_rss));
    return value;
}

napi_value failure_value(napi_env env, const msb_exec_failure *failure)
{
    napi_value value;

    if (!failure)
        return null(env);
    value = object(env);
    set(env, value, "kind", text(env, failure->kind_name));
    set(env, value, "errno", number(env, failure->os_error));
    set(env, value, "errnoName", text(env, failure->os_error_name));
    set(env, value, "stage", text(env, failure->stage));
    set(env, value, "message", text(env, failure->message));
    set(env, value, "path", copied(env, failure->path, strlen(failure->path)));
    return value;
}

/* ---- lists ---- */

static napi_value bounds_value(napi_env env, const msb_bounds *bounds)
{
    napi_value value;

    if (!bounds)
        return null(env);
    value = object(env);
    set(env, value, "pids", number(env, (double)bounds->pids));
    set(env, value, "memoryBytes", number(env, (double)bounds->memory_bytes));
    set(env, value, "diskBytes", number(env, (double)bounds->disk_bytes));
    set(env, value, "cpus", number(env, bounds->cpus));
    return value;
}

static napi_value sandbox_value(napi_env env, const msb_sandbox_entry *entry)
{
    napi_value value = object(env);

    set(env, value, "name", text(env, entry->name));
    set(env, value, "state", number(env, entry->state));
    set(env, value, "isolation", number(env, entry->isolation));
    set(env, value, "reason", number(env, entry->reason));
    set(env, value, "flags", number(env, entry->flags));
    set(env, value, "jailed", number(env, entry->jailed));
    set(env, value, "missingWalls", texts(env, entry->missing_walls, entry->missing_walls_len));
    set(env, value, "bounds", bounds_value(env, entry->bounds));
    set(env, value, "cpus", number(env, entry->cpus));
    set(env, value, "memory", number(env, entry->memory_mib));
    set(env, value, "created", number(env, (double)entry->created_ms));
    set(env, value, "started", number(env, (double)entry->started_ms));
    set(env, value, "image", text(env, entry->image));
    set(env, value, "driver", text(env, entry->driver));
    set(env, value, "detail", text(env, entry->detail));
    set(env, value, "labels", texts(env, entry->labels, entry->labels_len));
    set(env, value, "command", texts(env, entry->command, entry->command_len));
    return value;
}

napi_value sandboxes_value(napi_env env, const msb_sandbox_entries *list)
{
    napi_value value = NULL;

    MUST(napi_create_array_with_length(env, list->len, &value));
    for (size_t at = 0; at < list->len; at++)
        MUST(napi_set_element(env, value, (uint32_t)at, sandbox_value(env, list->entries[at])));
    return value;
}

static napi_value session_value(napi_env env, const msb_exec_entry *entry)
{
    napi_value value = object(env);

    set(env, value, "id", text(env, entry->id));
    set(env, value, "argv", texts(env, entry->argv, entry->argv_len));
    set(env, value, "pid", number(env, entry->pid));
    set(env, value, "flags", number(env, entry->flags));
    set(env, value, "followers", number(env, entry->followers));
    set(env, value, "ageMs", number(env, (double)entry->age_ns / 1e6));
    set(env, value, "outputTotal", number(env, (double)entry->output_total));
    set(env, value, "exit", exit_value(env, entry->exit));
    return value;
}

napi_value sessions_value(napi_env env, const msb_exec_entries *list)
{
    napi_value value = NULL;

    MUST(napi_create_array_with_length(env, list->len, &value));
    for (size_t at = 0; at < list->len; at++)
        MUST(napi_set_element(env, value, (uint32_t)at, session_value(env, list->entries[at])));
    return value;
}

static napi_value drivers_value(napi_env env, const msb_driver_entries *list)
{
    napi_value value = NULL;

    MUST(napi_create_array_with_length(env, list->len, &value));
    for (size_t at = 0; at < list->len; at++) {
        napi_value entry = object(env);

        set(env, entry, "name", text(env, list->entries[at]->name));
        set(env, entry, "isolation", number(env, list->entries[at]->isolation));
        set(env, entry, "usable", boolean(env, list->entries[at]->usable != 0));
        set(env, entry, "why", text(env, list->entries[at]->why));
        set(env, entry, "hint", text(env, list->entries[at]->hint));
        set(env, entry, "unbounded",
            texts(env, list->entries[at]->unbounded, list->entries[at]->unbounded_len));
        MUST(napi_set_element(env, value, (uint32_t)at, entry));
    }
    return value;
}

static napi_value walls_value(napi_env env, const msb_wall_entries *list)
{
    napi_value value = NULL;

    MUST(napi_create_array_with_length(env, list->len, &value));
    for (size_t at = 0; at < list->len; at++) {
        napi_value entry = object(env);

        set(env, entry, "name", text(env, list->entries[at]->name));
        set(env, entry, "missing", text(env, list->entries[at]->missing));
        set(env, entry, "hint", text(env, list->entries[at]->hint));
        MUST(napi_set_element(env, value, (uint32_t)at, entry));
    }
    return value;
}

napi_value host_value(napi_env env, const msb_driver_entries *drivers,
                      const msb_wall_entries *walls)
{
    napi_value value = object(env);

    set(env, value, "drivers", drivers_value(env, drivers));
    set(env, value, "walls", walls_value(env, walls));
    return value;
}

/* ---- from JavaScript ---- */

void arguments(napi_env env, napi_callback_info info, size_t count, napi_value *out)
{
    MUST(napi_get_cb_info(env, info, &count, out, NULL, NULL));
}

uint64_t to_u64(napi_env env, napi_value value)
{
    napi_valuetype type = napi_undefined;
    uint64_t big = 0;
    int64_t small = 0;
    bool lossless = false;

    MUST(napi_typeof(env, value, &type));
    if (type == napi_bigint)
        MUST(napi_get_value_bigint_uint64(env, value, &big, &lossless));
    if (type != napi_number)
        return big;
    MUST(napi_get_value_int64(env, value, &small));
    return (uint64_t)small;
}

bool has(napi_env env, napi_value from, const char *name, napi_value *value)
{
    napi_valuetype type = napi_undefined;

    MUST(napi_get_named_property(env, from, name, value));
    MUST(napi_typeof(env, *value, &type));
    return type != napi_undefined && type != napi_null;
}

uint64_t field(napi_env env, napi_value from, const char *name)
{
    napi_value value = NULL;

    return has(env, from, name, &value) ? to_u64(env, value) : 0;
}

double real(napi_env env, napi_value from, const char *name)
{
    napi_value value = NULL;
    double number = 0;

    if (has(env, from, name, &value))
        MUST(napi_get_value_double(env, value, &number));
    return number;
}

/* ---- memory lent to calls ---- */

struct lent_block {
    struct lent_block *next;
    void *memory;
};

void *keep(struct lent *lent, void *memory)
{
    struct lent_block *block = allocate(1, sizeof *block);

    block->next = lent->first;
    block->memory = memory;
    lent->first = block;
    return memory;
}

void lent_release(struct lent *lent)
{
    while (lent->first) {
        struct lent_block *block = lent->first;

        lent->first = block->next;
        free(block->memory);
        free(block);
    }
}

static char *bytes_of(napi_env env, napi_value buffer, size_t *len)
{
    void *data = NULL;
    char *copy;

    *len = 0;
    MUST(napi_get_buffer_info(env, buffer, &data, len));
    copy = allocate(*len + 1, 1);
    if (*len > 0)
        memcpy(copy, data, *len);
    return copy;
}

const char *lend(napi_env env, struct lent *lent, napi_value from, const char *name, size_t *len)
{
    napi_value value = NULL;
    size_t unused;

    if (!has(env, from, name, &value))
        return NULL;
    return keep(lent, bytes_of(env, value, len ? len : &unused));
}

const char *const *lend_all(napi_env env, struct lent *lent, napi_value from, const char *name,
                            size_t *len)
{
    napi_value array = NULL, item = NULL;
    uint32_t count = 0;
    char **list;

    *len = 0;
    if (!has(env, from, name, &array))
        return NULL;
    MUST(napi_get_array_length(env, array, &count));
    list = keep(lent, allocate(count, sizeof *list));
    for (uint32_t at = 0; at < count; at++) {
        size_t unused;

        MUST(napi_get_element(env, array, at, &item));
        list[at] = keep(lent, bytes_of(env, item, &unused));
    }
    *len = count;
    return (const char *const *)list;
}

const msb_mount *lend_mounts(napi_env env, struct lent *lent, napi_value from, size_t *len)
{
    napi_value array = NULL, item = NULL;
    uint32_t count = 0;
    msb_mount *list;

    *len = 0;
    if (!has(env, from, "mounts", &array))
        return NULL;
    MUST(napi_get_array_length(env, array, &count));
    list = keep(lent, allocate(count, sizeof *list));
    for (uint32_t at = 0; at < count; at++) {
        MUST(napi_get_element(env, array, at, &item));
        list[at] = (msb_mount)MSB_MOUNT_INIT;
        list[at].kind = (uint32_t)field(env, item, "kind");
        list[at].flags = (uint32_t)field(env, item, "flags");
        list[at].target = lend(env, lent, item, "target", NULL);
        list[at].source = lend(env, lent, item, "source", NULL);
        list[at].size = field(env, item, "size");
        list[at].uid = (uint32_t)field(env, item, "uid");
        list[at].gid = (uint32_t)field(env, item, "gid");
    }
    *len = count;
    return list;
}

const msb_rlimit *lend_rlimits(napi_env env, struct lent *lent, napi_value from, size_t *len)
{
    napi_value array = NULL, item = NULL;
    uint32_t count = 0;
    msb_rlimit *list;

    *len = 0;
    if (!has(env, from, "rlimits", &array))
        return NULL;
    MUST(napi_get_array_length(env, array, &count));
    list = keep(lent, allocate(count, sizeof *list));
    for (uint32_t at = 0; at < count; at++) {
        MUST(napi_get_element(env, array, at, &item));
        list[at].resource = (uint32_t)field(env, item, "resource");
        list[at].soft = field(env, item, "soft");
        list[at].hard = field(env, item, "hard");
    }
    *len = count;
    return list;
}
