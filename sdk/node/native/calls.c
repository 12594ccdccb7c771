/* calls.c - the non-blocking calls, and the module. */
#include "addon.h"

#include <stdlib.h>
#include <string.h>

/* Outputs of at least this size are lent to JavaScript, smaller ones copied. Events are always
 * copied: their release returns credit to the command, which must not depend on garbage collection.
 * */
#define LEND_FROM (8 << 10)
#define LENT_MAX (INT64_C(1) << 30)

enum { AGAIN = -1 };

/* ---- sandboxes ---- */

static napi_value sandbox_create(napi_env env, napi_callback_info info)
{
    msb_sandbox_options options = MSB_SANDBOX_OPTIONS_INIT;
    msb_error err = MSB_ERROR_INIT;
    msb_sandbox *sandbox = NULL;
    struct lent lent = {NULL};
    napi_value from = NULL;
    msb_status status;

    arguments(env, info, 1, &from);
    lend_sandbox_options(env, &lent, from, &options);
    status = msb_sandbox_create(&options, &sandbox, &err);
    lent_release(&lent);
    return failed(env, status, &err) ? NULL : cell_value(env, sandbox);
}

/* sandboxOpen({name, flags}) */
static napi_value sandbox_open(napi_env env, napi_callback_info info)
{
    msb_error err = MSB_ERROR_INIT;
    msb_sandbox *sandbox = NULL;
    struct lent lent = {NULL};
    napi_value from = NULL;
    msb_status status;

    arguments(env, info, 1, &from);
    status = msb_sandbox_open(lend(env, &lent, from, "name", NULL),
                              (uint32_t)field(env, from, "flags"), &sandbox, &err);
    lent_release(&lent);
    return failed(env, status, &err) ? NULL : cell_value(env, sandbox);
}

static napi_value sandbox_poll(napi_env env, napi_callback_info info,
                       msb_status (*call)(msb_sandbox *, int64_t, msb_error *))
{
    msb_error err = MSB_ERROR_INIT;
    napi_value sandbox = NULL;
    msb_status status;

    arguments(env, info, 1, &sandbox);
    status = call(to_cell(env, sandbox)->handle, 0, &err);
    return failed(env, status, &err) ? NULL : boolean(env, status == MSB_OK);
}

/* sandboxReady(sandbox): whether it is ready. */
static napi_value sandbox_ready(napi_env env, napi_callback_info info)
{
    return sandbox_poll(env, info, msb_sandbox_wait_ready);
}

/* sandboxEnded(sandbox): whether it has ended. */
static napi_value sandbox_ended(napi_env env, napi_callback_info info)
{
    return sandbox_poll(env, info, msb_sandbox_wait);
}

/* ---- commands ---- */

/* execStream(sandbox, options, pipe): [exec, sink or null]. */
static napi_value exec_stream(napi_env env, napi_callback_info info)
{
    msb_exec_options options = MSB_EXEC_OPTIONS_INIT;
    msb_error err = MSB_ERROR_INIT;
    struct lent lent = {NULL};
    msb_exec *exec = NULL;
    msb_sink *sink = NULL;
    napi_value argument[3] = {NULL};
    msb_status status;
    bool pipe = false;

    arguments(env, info, 3, argument);
    MUST(napi_get_value_bool(env, argument[2], &pipe));
    lend_exec_options(env, &lent, argument[1], &options);
    status = msb_exec_stream(to_cell(env, argument[0])->handle, &options, &exec,
                             pipe ? &sink : NULL, &err);
    lent_release(&lent);
    if (failed(env, status, &err))
        return NULL;
    return pair(env, cell_value(env, exec), cell_value(env, sink));
}

static napi_value exec_id(napi_env env, napi_callback_info info)
{
    char id[MSB_SESSION_ID_LEN];
    msb_error err = MSB_ERROR_INIT;
    napi_value exec = NULL;

    arguments(env, info, 1, &exec);
    if (failed(env, msb_exec_id(to_cell(env, exec)->handle, id, &err), &err))
        return NULL;
    return text(env, id);
}

/* execPosition(exec): [position, missed]. */
static napi_value exec_position(napi_env env, napi_callback_info info)
{
    msb_error err = MSB_ERROR_INIT;
    napi_value exec = NULL;
    uint64_t position = 0, missed = 0;

    arguments(env, info, 1, &exec);
    if (failed(env, msb_exec_position(to_cell(env, exec)->handle, &position, &missed, &err), &err))
        return NULL;
    return pair(env, number(env, (double)position), number(env, (double)missed));
}

/* Returns the payload of an event; its kind and value are in `last`. */
static napi_value event_value(napi_env env, const msb_event *event)
{
    switch (event->kind) {
    case MSB_EVENT_EXITED:
        return exit_value(env, event->exit);
    case MSB_EVENT_FAILED:
        return failure_value(env, event->failure);
    case MSB_EVENT_STARTED:
    case MSB_EVENT_STDIN_ERROR:
        return undefined(env);
    default:
        return copied(env, event->data, event->len);
    }
}

typedef msb_status (*next_event_fn)(msb_exec *, int64_t, msb_event *, msb_error *);

/* Sets last[0] to the event's kind, 0 at the end, AGAIN if no event is available; last[1] to its
 * value, at the end to the flags. */
static napi_value next_event(napi_env env, napi_callback_info info, next_event_fn call)
{
    msb_event event = MSB_EVENT_INIT;
    msb_error err = MSB_ERROR_INIT;
    napi_value exec = NULL, value;
    msb_status status;
    int32_t *last = instance_of(env)->last;

    arguments(env, info, 1, &exec);
    status = call(to_cell(env, exec)->handle, 0, &event, &err);
    if (failed(env, status, &err))
        return NULL;
    if (status != MSB_OK) {
        last[0] = status == MSB_EOF ? 0 : AGAIN;
        last[1] = (int32_t)event.flags;
        return undefined(env);
    }
    last[0] = (int32_t)event.kind;
    last[1] = (int32_t)event.value;
    value = event_value(env, &event);
    msb_event_release(&event);
    return value;
}

static napi_value exec_recv(napi_env env, napi_callback_info info)
{
    return next_event(env, info, msb_exec_recv);
}

static napi_value exec_wait(napi_env env, napi_callback_info info)
{
    return next_event(env, info, msb_exec_wait);
}

/* ---- logs ---- */

/* logsRecv(logs): the next record; its kind is in `last`, as that of events. */
static napi_value logs_recv(napi_env env, napi_callback_info info)
{
    msb_log_record record = MSB_LOG_RECORD_INIT;
    msb_error err = MSB_ERROR_INIT;
    napi_value logs = NULL, value, time = NULL;
    msb_status status;
    int32_t *last = instance_of(env)->last;

    arguments(env, info, 1, &logs);
    status = msb_log_recv(to_cell(env, logs)->handle, 0, &record, &err);
    if (failed(env, status, &err))
        return NULL;
    last[0] = status == MSB_OK ? (int32_t)record.kind : status == MSB_EOF ? 0 : AGAIN;
    last[1] = (int32_t)record.value;
    if (status != MSB_OK)
        return undefined(env);
    value = object(env);
    MUST(napi_create_bigint_int64(env, record.time_ns, &time));
    set(env, value, "timeNs", time);
    set(env, value, "session", text(env, record.session));
    set(env, value, "data", copied(env, record.data, record.len));
    set(env, value, "argv", texts(env, record.argv, record.argv_len));
    set(env, value, "flags", number(env, record.flags));
    set(env, value, "exit", exit_value(env, record.exit));
    set(env, value, "failure", failure_value(env, record.failure));
    msb_log_record_release(&record);
    return value;
}

/* ---- collected outputs ---- */

/* An output whose memory is lent to JavaScript. */
struct held {
    msb_output output;
    struct instance *instance;
    int holders;
};

static void held_release(struct held *held)
{
    if (--held->holders > 0)
        return;
    msb_output_release(&held->output);
    instance_release(held->instance);
    free(held);
}

static void slice_finalize(napi_env env, void *data, void *hint)
{
    struct held *held = hint;
    const msb_output *output = &held->output;

    (void)env;
    held->instance->lent -=
        (int64_t)(data == output->stdout_data ? output->stdout_len : output->stderr_len);
    held_release(held);
}

static napi_value slice(napi_env env, struct held *held, const uint8_t *data, size_t len)
{
    struct instance *instance = held->instance;
    napi_value value = NULL;

    if (len < LEND_FROM || instance->lent + (int64_t)len > instance->lent_max)
        return copied(env, data, len);
    held->holders++;
    instance->lent += (int64_t)len;
    /* Not every Node-API host supports external memory. */
    if (napi_create_external_buffer(env, len, (void *)(uintptr_t)data, slice_finalize, held,
                                    &value) == napi_ok)
        return value;
    instance->lent -= (int64_t)len;
    held->holders--;
    return copied(env, data, len);
}

static napi_value output_value(napi_env env, struct held *held)
{
    const msb_output *output = &held->output;
    napi_value value = object(env);

    set(env, value, "kind", number(env, output->kind));
    set(env, value, "flags", number(env, output->flags));
    set(env, value, "stdout", slice(env, held, output->stdout_data, output->stdout_len));
    set(env, value, "stderr", slice(env, held, output->stderr_data, output->stderr_len));
    set(env, value, "stdoutTotal", number(env, (double)output->stdout_total));
    set(env, value, "stderrTotal", number(env, (double)output->stderr_total));
    set(env, value, "exit", exit_value(env, output->exit));
    set(env, value, "failure", failure_value(env, output->failure));
    set(env, value, "lost", copied(env, output->lost, output->lost_len));
    return value;
}

/* execCollect(exec): the output, undefined while the command runs. */
static napi_value exec_collect(napi_env env, napi_callback_info info)
{
    struct held *held = allocate(1, sizeof *held);
    msb_error err = MSB_ERROR_INIT;
    napi_value exec = NULL, value = NULL;
    msb_status status;

    held->output = (msb_output)MSB_OUTPUT_INIT;
    held->holders = 1;
    held->instance = instance_of(env);
    held->instance->references++;
    arguments(env, info, 1, &exec);
    status = msb_exec_collect(to_cell(env, exec)->handle, 0, &held->output, &err);
    if (!failed(env, status, &err))
        value = status == MSB_OK ? output_value(env, held) : undefined(env);
    held_release(held);
    return value;
}

/* lentMax(bytes): sets how many bytes of outputs may be lent to JavaScript, for tests. */
static napi_value lent_max(napi_env env, napi_callback_info info)
{
    napi_value most = NULL;

    arguments(env, info, 1, &most);
    instance_of(env)->lent_max = (int64_t)to_u64(env, most);
    return undefined(env);
}

/* ---- input ---- */

/* sinkWrite(sink, buffer, offset): how many bytes were written, undefined if there is no room. */
static napi_value sink_write(napi_env env, napi_callback_info info)
{
    msb_error err = MSB_ERROR_INIT;
    size_t len = 0, offset, written = 0;
    napi_value argument[3] = {NULL};
    msb_status status;
    void *data = NULL;

    arguments(env, info, 3, argument);
    MUST(napi_get_buffer_info(env, argument[1], &data, &len));
    offset = to_u64(env, argument[2]);
    if (offset > len)
        offset = len;
    status = msb_sink_write(to_cell(env, argument[0])->handle,
                            len > 0 ? (const uint8_t *)data + offset : NULL, len - offset, 0,
                            &written, &err);
    if (failed(env, status, &err))
        return NULL;
    return status == MSB_AGAIN ? undefined(env) : number(env, (double)written);
}

/* ---- the module ---- */

const napi_property_descriptor call_functions[] = {
    FUNCTION("sandboxCreate", sandbox_create),
    FUNCTION("sandboxOpen", sandbox_open),
    FUNCTION("sandboxReady", sandbox_ready),
    FUNCTION("sandboxEnded", sandbox_ended),
    FUNCTION("execStream", exec_stream),
    FUNCTION("execId", exec_id),
    FUNCTION("execPosition", exec_position),
    FUNCTION("execRecv", exec_recv),
    FUNCTION("execWait", exec_wait),
    FUNCTION("execCollect", exec_collect),
    FUNCTION("logsRecv", logs_recv),
    FUNCTION("sinkWrite", sink_write),
    FUNCTION("lentMax", lent_max),
};
const size_t call_functions_len = sizeof call_functions / sizeof *call_functions;

NAPI_MODULE_INIT()
{
    if (msb_abi_version() != MSB_ABI_VERSION) {
        MUST(napi_throw_error(env, NULL, "cannot load the addon: wrong ABI of libmicrosandbox"));
        return NULL;
    }
    if (!instance_make(env, exports)) {
        MUST(napi_throw_error(env, NULL, "cannot load the addon: the event loop is full"));
        return NULL;
    }
    instance_of(env)->lent_max = LENT_MAX;
    set(env, exports, "AGAIN", number(env, AGAIN));
    set(env, exports, "version", text(env, msb_version_string()));
    MUST(napi_define_properties(env, exports, call_functions_len, call_functions));
    MUST(napi_define_properties(env, exports, image_functions_len, image_functions));
    MUST(napi_define_properties(env, exports, file_functions_len, file_functions));
    MUST(napi_define_properties(env, exports, cell_functions_len, cell_functions));
    MUST(napi_define_properties(env, exports, job_functions_len, job_functions));
    return exports;
}
