/* loop.c - what the parts of the addon need of an environment and its event loop. */
#include "addon.h"

#include <stdlib.h>

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
