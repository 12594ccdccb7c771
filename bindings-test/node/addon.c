/* addon.c - the C ABI for Node: handles are BigInts, looks never wait, descriptors are polled by
 * libuv, and the few calls that wait for an answer of the sandbox are made by its thread pool.
 */
#define NAPI_VERSION 8
#include "values.h"

#include <string.h>
#include <uv.h>

/* Outputs from this size on are lent to JavaScript, smaller ones and all events copied: an event
 * that waits for the garbage collector would keep the command from writing more. */
#define LEND_FROM (1 << 20)

/* ---- what calls are lent: copies with a NUL behind them ---- */

struct lent {
    struct lent_block {
        struct lent_block *next;
        void *memory;
    } *first;
};

static void *keep(struct lent *lent, void *memory)
{
    struct lent_block *block = allocate(1, sizeof *block);

    block->next = lent->first;
    block->memory = memory;
    lent->first = block;
    return memory;
}

static void give_back(struct lent *lent)
{
    while (lent->first) {
        struct lent_block *block = lent->first;

        lent->first = block->next;
        free(block->memory);
        free(block);
    }
}

static bool has(napi_env env, napi_value from, const char *name, napi_value *value)
{
    napi_valuetype type = napi_undefined;

    MUST(napi_get_named_property(env, from, name, value));
    MUST(napi_typeof(env, *value, &type));
    return type != napi_undefined && type != napi_null;
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

static const char *lend(napi_env env, struct lent *lent, napi_value from, const char *name,
                        size_t *len)
{
    napi_value value = NULL;
    size_t unused;

    if (!has(env, from, name, &value))
        return NULL;
    return keep(lent, bytes_of(env, value, len ? len : &unused));
}

static const char *const *lend_all(napi_env env, struct lent *lent, napi_value from,
                                   const char *name, size_t *len)
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

static uint64_t field(napi_env env, napi_value from, const char *name)
{
    napi_value value = NULL;

    return has(env, from, name, &value) ? to_u64(env, value) : 0;
}

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
    options.flags = (uint32_t)field(env, from, "flags");
    options.name = lend(env, &lent, from, "name", NULL);
    options.image = lend(env, &lent, from, "image", NULL);
    options.workdir = lend(env, &lent, from, "workdir", NULL);
    options.shell = lend(env, &lent, from, "shell", NULL);
    options.user = lend(env, &lent, from, "user", NULL);
    options.env = lend_all(env, &lent, from, "env", &options.env_len);
    status = msb_sandbox_create(&options, &sandbox, &err);
    give_back(&lent);
    return failed(env, status, &err) ? NULL : handle_value(env, sandbox);
}

/* sandboxReady(sandbox): whether it runs. */
static napi_value sandbox_ready(napi_env env, napi_callback_info info)
{
    msb_error err = MSB_ERROR_INIT;
    napi_value sandbox = NULL;
    msb_status status;

    arguments(env, info, 1, &sandbox);
    status = msb_sandbox_wait_ready(to_handle(env, sandbox), 0, &err);
    return failed(env, status, &err) ? NULL : boolean(env, status == MSB_OK);
}

/* ---- commands ---- */

static const msb_rlimit *lend_rlimits(napi_env env, struct lent *lent, napi_value from, size_t *len)
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

/* execStream(sandbox, options, whether there is to be a sink): [exec, sink or null]. */
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
    options.flags = (uint32_t)field(env, argument[1], "flags");
    options.cmd = lend(env, &lent, argument[1], "cmd", NULL);
    options.args = lend_all(env, &lent, argument[1], "args", &options.args_len);
    options.env = lend_all(env, &lent, argument[1], "env", &options.env_len);
    options.cwd = lend(env, &lent, argument[1], "cwd", NULL);
    options.user = lend(env, &lent, argument[1], "user", NULL);
    options.stdin_data =
        (const uint8_t *)lend(env, &lent, argument[1], "stdin", &options.stdin_len);
    options.rlimits = lend_rlimits(env, &lent, argument[1], &options.rlimits_len);
    options.timeout_ns = field(env, argument[1], "timeoutNs");
    options.drain_ns = field(env, argument[1], "drainNs");
    options.rows = (uint16_t)field(env, argument[1], "rows");
    options.cols = (uint16_t)field(env, argument[1], "cols");
    options.max_output = field(env, argument[1], "maxOutput");
    status = msb_exec_stream(to_handle(env, argument[0]), &options, &exec, pipe ? &sink : NULL,
                             &err);
    give_back(&lent);
    if (failed(env, status, &err))
        return NULL;
    return pair(env, handle_value(env, exec), handle_value(env, sink));
}

static napi_value exec_id(napi_env env, napi_callback_info info)
{
    char id[MSB_SESSION_ID_LEN];
    msb_error err = MSB_ERROR_INIT;
    napi_value exec = NULL;

    arguments(env, info, 1, &exec);
    if (failed(env, msb_exec_id(to_handle(env, exec), id, &err), &err))
        return NULL;
    return text(env, id);
}

static void set_ending(napi_env env, napi_value into, const msb_exec_exit *exit,
                       const msb_exec_failure *failure)
{
    napi_value value = null(env);

    if (exit) {
        value = object(env);
        set(env, value, "code", number(env, exit->code));
        set(env, value, "signal", number(env, exit->signal));
        set(env, value, "flags", number(env, exit->flags));
        set(env, value, "cpuMs", number(env, (double)(exit->user_ns + exit->system_ns) / 1e6));
        set(env, value, "wallMs", number(env, (double)exit->wall_ns / 1e6));
        set(env, value, "maxRss", number(env, (double)exit->max_rss));
    }
    set(env, into, "exit", value);
    value = null(env);
    if (failure) {
        value = object(env);
        set(env, value, "errno", number(env, failure->os_error));
        set(env, value, "kind", text(env, failure->kind_name));
        set(env, value, "stage", text(env, failure->stage));
        set(env, value, "errnoName", text(env, failure->os_error_name));
        set(env, value, "message", text(env, failure->message));
        set(env, value, "path", copied(env, failure->path, strlen(failure->path)));
    }
    set(env, into, "failure", value);
}

static napi_value event_value(napi_env env, const msb_event *event)
{
    napi_value value = object(env);

    set(env, value, "kind", number(env, event->kind));
    set(env, value, "value", number(env, (double)event->value));
    set(env, value, "flags", number(env, event->flags));
    set(env, value, "data", copied(env, event->data, event->len));
    set_ending(env, value, event->exit, event->failure);
    return value;
}

typedef msb_status (*one_event_fn)(msb_exec *, int64_t, msb_event *, msb_error *);

static napi_value one_event(napi_env env, napi_callback_info info, one_event_fn look)
{
    msb_event event = MSB_EVENT_INIT;
    msb_error err = MSB_ERROR_INIT;
    napi_value exec = NULL, value = NULL;
    msb_status status;

    arguments(env, info, 1, &exec);
    status = look(to_handle(env, exec), 0, &event, &err);
    if (failed(env, status, &err))
        return NULL;
    value = status == MSB_AGAIN ? null(env) : event_value(env, &event);
    msb_event_release(&event);
    return value;
}

/* execRecv(exec): the next event, null when there is none yet; its kind is 0 at the end. */
static napi_value exec_recv(napi_env env, napi_callback_info info)
{
    return one_event(env, info, msb_exec_recv);
}

/* execWait(exec): the event that ended it, null when none has. */
static napi_value exec_wait(napi_env env, napi_callback_info info)
{
    return one_event(env, info, msb_exec_wait);
}

/* execRecvMany(exec): the events that are there, null when there is none yet. */
static napi_value exec_recv_many(napi_env env, napi_callback_info info)
{
    enum { MOST = 64 };
    msb_event events[MOST];
    msb_error err = MSB_ERROR_INIT;
    napi_value exec = NULL, value = NULL;
    msb_status status;
    size_t len = 0;

    for (size_t at = 0; at < MOST; at++)
        events[at] = (msb_event)MSB_EVENT_INIT;
    arguments(env, info, 1, &exec);
    status = msb_exec_recv_many(to_handle(env, exec), 0, events, MOST, &len, &err);
    if (failed(env, status, &err))
        return NULL;
    if (status == MSB_AGAIN)
        return null(env);
    MUST(napi_create_array(env, &value));
    for (size_t at = 0; at < len || (at == 0 && status == MSB_EOF); at++)
        MUST(napi_set_element(env, value, (uint32_t)at, event_value(env, &events[at])));
    msb_event_release_many(events, len);
    return value;
}

/* An output that JavaScript holds parts of. Its finalizers run on JavaScript's thread. */
struct held {
    msb_output output;
    int holders;
};

static void let_go(napi_env env, void *data, void *hint)
{
    struct held *held = hint;

    (void)env, (void)data;
    if (--held->holders > 0)
        return;
    msb_output_release(&held->output);
    free(held);
}

static napi_value part(napi_env env, struct held *held, const uint8_t *data, size_t len)
{
    napi_value value = NULL;

    if (len < LEND_FROM)
        return copied(env, data, len);
    held->holders++;
    /* Not every host of Node-API allows memory of others. */
    if (napi_create_external_buffer(env, len, (void *)data, let_go, held, &value) == napi_ok)
        return value;
    held->holders--;
    return copied(env, data, len);
}

/* execCollect(exec): what it had put out, null when it goes on. */
static napi_value exec_collect(napi_env env, napi_callback_info info)
{
    struct held *held = allocate(1, sizeof *held);
    msb_error err = MSB_ERROR_INIT;
    napi_value exec = NULL, value = NULL;
    msb_status status;

    held->output = (msb_output)MSB_OUTPUT_INIT;
    held->holders = 1;
    arguments(env, info, 1, &exec);
    status = msb_exec_collect(to_handle(env, exec), 0, &held->output, &err);
    if (!failed(env, status, &err)) {
        const msb_output *output = &held->output;

        value = status == MSB_AGAIN ? null(env) : object(env);
        if (status != MSB_AGAIN) {
            set(env, value, "kind", number(env, output->kind));
            set(env, value, "flags", number(env, output->flags));
            set(env, value, "stdout", part(env, held, output->stdout_data, output->stdout_len));
            set(env, value, "stderr", part(env, held, output->stderr_data, output->stderr_len));
            set(env, value, "stdoutTotal", number(env, (double)output->stdout_total));
            set(env, value, "stderrTotal", number(env, (double)output->stderr_total));
            set_ending(env, value, output->exit, output->failure);
        }
    }
    let_go(env, NULL, held);
    return value;
}

/* sinkWrite(sink, buffer, offset): how many bytes were taken, null when there is no room. */
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
    status = msb_sink_write(to_handle(env, argument[0]),
                            len > 0 ? (const uint8_t *)data + offset : NULL, len - offset, 0,
                            &written, &err);
    if (failed(env, status, &err))
        return NULL;
    return status == MSB_AGAIN ? null(env) : number(env, (double)written);
}

static napi_value handle_close(napi_env env, napi_callback_info info)
{
    msb_error err = MSB_ERROR_INIT;
    napi_value handle = NULL;

    arguments(env, info, 1, &handle);
    err.status = msb_handle_close(to_handle(env, handle));
    return failed(env, err.status, &err) ? NULL : undefined(env);
}

/* ---- readiness: one poll at a time on a handle's descriptor ---- */

struct watcher {
    uv_poll_t poll;
    napi_env env;
    napi_ref callback;
    napi_async_context context;
    bool closing;
    bool collected; /* JavaScript has no reference any more */
    bool closed;    /* libuv has none */
};

static void free_watcher(struct watcher *watcher)
{
    if (watcher->collected && watcher->closed)
        free(watcher);
}

static void on_closed(uv_handle_t *poll)
{
    struct watcher *watcher = poll->data;

    watcher->closed = true;
    free_watcher(watcher);
}

/* Before the descriptor goes. Also called when the environment ends. */
static void end_watching(void *data)
{
    struct watcher *watcher = data;
    napi_env env = watcher->env;

    if (watcher->closing)
        return;
    watcher->closing = true;
    uv_poll_stop(&watcher->poll);
    uv_close((uv_handle_t *)&watcher->poll, on_closed);
    MUST(napi_delete_reference(env, watcher->callback));
    MUST(napi_async_destroy(env, watcher->context));
    MUST(napi_remove_env_cleanup_hook(env, end_watching, watcher));
}

static void watcher_collected(napi_env env, void *data, void *hint)
{
    struct watcher *watcher = data;

    (void)env, (void)hint;
    end_watching(watcher);
    watcher->collected = true;
    free_watcher(watcher);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct watcher *watcher = poll->data;
    napi_env env = watcher->env;
    napi_handle_scope scope = NULL;
    napi_value callback = NULL, receiver = NULL, thrown = NULL;
    bool pending = false;

    (void)status, (void)events;
    uv_poll_stop(poll);
    MUST(napi_open_handle_scope(env, &scope));
    MUST(napi_get_reference_value(env, watcher->callback, &callback));
    MUST(napi_get_global(env, &receiver));
    if (napi_make_callback(env, watcher->context, receiver, callback, 0, NULL, NULL) != napi_ok) {
        MUST(napi_is_exception_pending(env, &pending));
        if (pending) {
            MUST(napi_get_and_clear_last_exception(env, &thrown));
            MUST(napi_fatal_exception(env, thrown));
        }
    }
    MUST(napi_close_handle_scope(env, scope));
}

/* watch(handle, callback): a watcher, which is not armed. */
static napi_value watch(napi_env env, napi_callback_info info)
{
    msb_error err = MSB_ERROR_INIT;
    struct watcher *watcher;
    napi_value argument[2] = {NULL}, value = NULL;
    uv_loop_t *loop = NULL;
    int32_t fd = -1;

    arguments(env, info, 2, argument);
    if (failed(env, msb_handle_fd(to_handle(env, argument[0]), &fd, &err), &err))
        return NULL;
    watcher = allocate(1, sizeof *watcher);
    watcher->env = env;
    watcher->poll.data = watcher;
    MUST(napi_get_uv_event_loop(env, &loop));
    if (uv_poll_init(loop, &watcher->poll, fd) != 0) {
        free(watcher);
        MUST(napi_throw_error(env, NULL, "the descriptor cannot be polled"));
        return NULL;
    }
    MUST(napi_create_reference(env, argument[1], 1, &watcher->callback));
    MUST(napi_async_init(env, NULL, text(env, "msb"), &watcher->context));
    MUST(napi_add_env_cleanup_hook(env, end_watching, watcher));
    MUST(napi_create_external(env, watcher, watcher_collected, NULL, &value));
    return value;
}

static struct watcher *to_watcher(napi_env env, napi_callback_info info)
{
    napi_value value = NULL;
    void *watcher = NULL;

    arguments(env, info, 1, &value);
    MUST(napi_get_value_external(env, value, &watcher));
    return watcher;
}

/* arm(watcher): calls its callback once when the descriptor is readable. */
static napi_value arm(napi_env env, napi_callback_info info)
{
    struct watcher *watcher = to_watcher(env, info);

    if (!watcher->closing)
        uv_poll_start(&watcher->poll, UV_READABLE, on_readable);
    return undefined(env);
}

static napi_value disarm(napi_env env, napi_callback_info info)
{
    struct watcher *watcher = to_watcher(env, info);

    if (!watcher->closing)
        uv_poll_stop(&watcher->poll);
    return undefined(env);
}

static napi_value unwatch(napi_env env, napi_callback_info info)
{
    end_watching(to_watcher(env, info));
    return undefined(env);
}

/* ---- calls that wait for an answer: made by libuv's thread pool, promised to JavaScript ---- */

enum job_kind { SIGNAL, RESIZE, REATTACH, LISTED, STOP, REMOVE };

struct job {
    enum job_kind kind;
    napi_async_work work;
    napi_deferred deferred;
    void *handle;
    uint64_t number[2];
    char name[256]; /* a session's or sandbox's */
    msb_status status;
    msb_error err;
    msb_exec *exec;
    msb_sink *sink;
    const char *state;
};

static msb_status find_session(struct job *job)
{
    msb_exec_entries list = MSB_EXEC_ENTRIES_INIT;
    msb_status status = msb_exec_list(job->handle, &list, &job->err);

    job->state = "unknown";
    for (size_t at = 0; status == MSB_OK && at < list.len; at++)
        if (strcmp(list.entries[at]->id, job->name) == 0)
            job->state = list.entries[at]->exit ? "ended" : "running";
    msb_exec_entries_release(&list);
    return status;
}

static msb_status do_job(struct job *job)
{
    switch (job->kind) {
    case SIGNAL:
        return msb_exec_signal(job->handle, (int32_t)job->number[0], (uint32_t)job->number[1],
                               &job->err);
    case RESIZE:
        return msb_exec_resize(job->handle, (uint16_t)job->number[0], (uint16_t)job->number[1],
                               &job->err);
    case REATTACH:
        return msb_exec_reattach(job->handle, job->name, (int64_t)job->number[0], &job->exec,
                                 &job->sink, &job->err);
    case LISTED:
        return find_session(job);
    case STOP:
        return msb_sandbox_stop(job->handle, (uint32_t)job->number[0], &job->err);
    case REMOVE:
        return msb_sandbox_remove(job->name, (uint32_t)job->number[0], &job->err);
    }
    return MSB_E_INTERNAL;
}

static void execute(napi_env env, void *data)
{
    struct job *job = data;

    (void)env;
    job->status = do_job(job);
}

static void complete(napi_env env, napi_status cancelled, void *data)
{
    struct job *job = data;
    napi_value value = undefined(env);

    if (cancelled != napi_ok) {
        job->status = job->err.status = MSB_E_CLOSED;
        strcpy(job->err.message, "the environment ends");
    }
    if (job->kind == REATTACH && job->status == MSB_OK)
        value = pair(env, handle_value(env, job->exec), handle_value(env, job->sink));
    if (job->kind == LISTED && job->status == MSB_OK)
        value = text(env, job->state);
    if (job->status < 0)
        MUST(napi_reject_deferred(env, job->deferred, error_value(env, &job->err)));
    else
        MUST(napi_resolve_deferred(env, job->deferred, value));
    MUST(napi_delete_async_work(env, job->work));
    free(job);
}

/* Queues a job: its handle or null, its name or null, and two numbers. */
static napi_value queue(napi_env env, napi_callback_info info, enum job_kind kind)
{
    struct job *job = allocate(1, sizeof *job);
    napi_value argument[4] = {NULL}, promise = NULL;
    napi_valuetype type = napi_undefined;

    arguments(env, info, 4, argument);
    job->kind = kind;
    job->err = (msb_error)MSB_ERROR_INIT;
    job->handle = to_handle(env, argument[0]);
    MUST(napi_typeof(env, argument[1], &type));
    if (type == napi_string)
        MUST(napi_get_value_string_utf8(env, argument[1], job->name, sizeof job->name, NULL));
    job->number[0] = to_u64(env, argument[2]);
    job->number[1] = to_u64(env, argument[3]);
    MUST(napi_create_promise(env, &job->deferred, &promise));
    MUST(napi_create_async_work(env, NULL, text(env, "msb"), execute, complete, job, &job->work));
    MUST(napi_queue_async_work(env, job->work));
    return promise;
}

static napi_value exec_signal(napi_env env, napi_callback_info info)
{
    return queue(env, info, SIGNAL);
}

static napi_value exec_resize(napi_env env, napi_callback_info info)
{
    return queue(env, info, RESIZE);
}

static napi_value exec_reattach(napi_env env, napi_callback_info info)
{
    return queue(env, info, REATTACH);
}

static napi_value exec_listed(napi_env env, napi_callback_info info)
{
    return queue(env, info, LISTED);
}

static napi_value sandbox_stop(napi_env env, napi_callback_info info)
{
    return queue(env, info, STOP);
}

static napi_value sandbox_remove(napi_env env, napi_callback_info info)
{
    return queue(env, info, REMOVE);
}

/* ---- the module ---- */

#define NUMBER(name) {#name, name}

static const struct {
    const char *name;
    double value;
} numbers[] = {
    NUMBER(MSB_E_INVALID), NUMBER(MSB_E_HANDLE), NUMBER(MSB_E_CLOSED), NUMBER(MSB_E_EXISTS),
    NUMBER(MSB_E_PIPE), NUMBER(MSB_E_NO_PROCESS), NUMBER(MSB_E_NO_SESSION),
    NUMBER(MSB_E_NOT_A_TERMINAL), NUMBER(MSB_EVENT_STARTED), NUMBER(MSB_EVENT_STDOUT),
    NUMBER(MSB_EVENT_STDERR), NUMBER(MSB_EVENT_STDIN_ERROR), NUMBER(MSB_EVENT_EXITED),
    NUMBER(MSB_EVENT_FAILED), NUMBER(MSB_EVENT_LOST), NUMBER(MSB_EVENT_WRITER_LEFT),
    NUMBER(MSB_OUTPUT_TRUNCATED), NUMBER(MSB_EXIT_CORE_DUMPED), NUMBER(MSB_EXIT_TIMED_OUT),
    NUMBER(MSB_EXEC_TTY), NUMBER(MSB_EXEC_WAIT_FOR_EOF), NUMBER(MSB_EXEC_SHELL),
    NUMBER(MSB_SIGNAL_GROUP), NUMBER(MSB_SIGNAL_TREE), NUMBER(MSB_FROM_NOW),
    NUMBER(MSB_SANDBOX_REPLACE),
};

static const struct {
    const char *name;
    napi_callback function;
} functions[] = {
    {"sandboxCreate", sandbox_create}, {"sandboxReady", sandbox_ready},
    {"sandboxStop", sandbox_stop}, {"sandboxRemove", sandbox_remove},
    {"execStream", exec_stream}, {"execId", exec_id}, {"execRecv", exec_recv},
    {"execRecvMany", exec_recv_many}, {"execWait", exec_wait}, {"execCollect", exec_collect},
    {"execSignal", exec_signal}, {"execResize", exec_resize}, {"execReattach", exec_reattach},
    {"execListed", exec_listed}, {"sinkWrite", sink_write}, {"handleClose", handle_close},
    {"watch", watch}, {"arm", arm}, {"disarm", disarm}, {"unwatch", unwatch},
};

NAPI_MODULE_INIT()
{
    napi_value function = NULL;

    if (msb_abi_version() != MSB_ABI_VERSION) {
        MUST(napi_throw_error(env, NULL, "the library has another ABI"));
        return NULL;
    }
    for (size_t at = 0; at < sizeof numbers / sizeof *numbers; at++)
        set(env, exports, numbers[at].name, number(env, numbers[at].value));
    for (size_t at = 0; at < sizeof functions / sizeof *functions; at++) {
        MUST(napi_create_function(env, functions[at].name, NAPI_AUTO_LENGTH, functions[at].function,
                                  NULL, &function));
        set(env, exports, functions[at].name, function);
    }
    return exports;
}
