/* instance.c - the beginning and the end of an environment. */
#include "addon.h"

static void instance_finalize(napi_env env, void *data, void *hint)
{
    (void)env, (void)hint;
    instance_release(data);
}

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
