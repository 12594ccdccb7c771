/* values.h - what addon.c needs to make values and errors of JavaScript. */
#ifndef VALUES_H
#define VALUES_H

#include <microsandbox.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdlib.h>

/* Whether JavaScript may still run: not in a worker that is being terminated. */
static bool alive(napi_env env)
{
    napi_value object = NULL;

    return napi_create_object(env, &object) == napi_ok &&
           napi_set_element(env, object, 0, object) == napi_ok;
}

/* A failure of Node-API is a mistake of this file's, unless nobody will see what is made here. */
static void check(napi_env env, napi_status status, const char *call)
{
    if (status != napi_ok && alive(env))
        napi_fatal_error(call, NAPI_AUTO_LENGTH, "", 0);
}

#define MUST(call) check(env, (call), #call)

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);

    if (!memory)
        abort();
    return memory;
}

/* ---- values ---- */

static napi_value undefined(napi_env env)
{
    napi_value value = NULL;

    MUST(napi_get_undefined(env, &value));
    return value;
}

static napi_value null(napi_env env)
{
    napi_value value = NULL;

    MUST(napi_get_null(env, &value));
    return value;
}

static napi_value number(napi_env env, double from)
{
    napi_value value = NULL;

    MUST(napi_create_double(env, from, &value));
    return value;
}

static napi_value boolean(napi_env env, bool from)
{
    napi_value value = NULL;

    MUST(napi_get_boolean(env, from, &value));
    return value;
}

static napi_value text(napi_env env, const char *from)
{
    napi_value value = NULL;

    MUST(napi_create_string_utf8(env, from, NAPI_AUTO_LENGTH, &value));
    return value;
}

static napi_value copied(napi_env env, const void *data, size_t len)
{
    napi_value value = NULL;

    MUST(napi_create_buffer_copy(env, len, len ? data : "", NULL, &value));
    return value;
}

static napi_value handle_value(napi_env env, const void *handle)
{
    napi_value value = NULL;

    if (!handle)
        return null(env);
    MUST(napi_create_bigint_uint64(env, (uint64_t)(uintptr_t)handle, &value));
    return value;
}

static void set(napi_env env, napi_value object, const char *name, napi_value value)
{
    MUST(napi_set_named_property(env, object, name, value));
}

static napi_value object(napi_env env)
{
    napi_value value = NULL;

    MUST(napi_create_object(env, &value));
    return value;
}

static napi_value pair(napi_env env, napi_value first, napi_value second)
{
    napi_value value = NULL;

    MUST(napi_create_array_with_length(env, 2, &value));
    MUST(napi_set_element(env, value, 0, first));
    MUST(napi_set_element(env, value, 1, second));
    return value;
}

/* Numbers and BigInts alike; 0 for anything else. */
static uint64_t to_u64(napi_env env, napi_value value)
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

static void *to_handle(napi_env env, napi_value value)
{
    return (void *)(uintptr_t)to_u64(env, value);
}

/* The arguments of a call; those that are missing are undefined. */
static void arguments(napi_env env, napi_callback_info info, size_t count, napi_value *out)
{
    MUST(napi_get_cb_info(env, info, &count, out, NULL, NULL));
}

/* ---- errors ---- */

static napi_value error_value(napi_env env, const msb_error *err)
{
    napi_value value = NULL, code = text(env, msb_status_name(err->status));

    MUST(napi_create_error(env, code, text(env, err->message), &value));
    set(env, value, "status", number(env, err->status));
    set(env, value, "errno", number(env, err->os_error));
    return value;
}

/* Throws when a call failed. */
static bool failed(napi_env env, msb_status status, const msb_error *err)
{
    if (status >= 0)
        return false;
    MUST(napi_throw(env, error_value(env, err)));
    return true;
}

#endif
