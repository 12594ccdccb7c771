/* job.c - calls that block on the sandbox or the disk, on threads of the addon.
 *
 * Not on libuv's pool: a slow stop of a sandbox would block file system and DNS calls of the whole
 * process, and an exiting process joins that pool. The threads here are detached. They access an
 * environment only through its mailbox, which outlives it; a job that ends after its environment is
 * discarded.
 */
#include "addon.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum job_kind {
    SIGNAL, RESIZE, REATTACH, SESSIONS, INFO, LIST, DOCTOR, LOGS, IMAGES,
    /* These are unbounded, so each has its own thread. */
    STOP, KILL, REMOVE, ATTACH, IMAGE_REMOVE, IMAGE_PRUNE,
};

struct job {
    struct job *next;
    struct mailbox *mailbox;
    enum job_kind kind;
    napi_ref callback;
    void *handle;
    uint64_t number[2];
    struct lent lent;
    const char *name; /* of a session, sandbox or image */
    msb_exec_options command;
    msb_attach_options attach;
    msb_log_options wanted;
    msb_status status;
    msb_error err;
    msb_exec *exec;
    msb_sink *sink;
    msb_log *logs;
    int32_t code;
    uint32_t flags;
    msb_sandbox_entries sandboxes;
    msb_exec_entries sessions;
    msb_driver_entries drivers;
    msb_wall_entries walls;
    msb_image_entries images;
    uint64_t freed;
};

/* Receives finished jobs. */
struct mailbox {
    pthread_mutex_t lock;
    struct job *first, **last;
    uv_async_t *async; /* NULL when the environment is ending */
    struct instance *instance;
    size_t references; /* of the instance and of each job */
};

/* ---- the threads ---- */

static struct {
    pthread_mutex_t lock;
    struct job *first, **last;
    unsigned running;
} pool = {PTHREAD_MUTEX_INITIALIZER, NULL, &pool.first, 0};

static msb_status call(struct job *job)
{
    void *handle = job->handle;
    msb_error *err = &job->err;

    switch (job->kind) {
    case SIGNAL:
        return msb_exec_signal(handle, (int32_t)job->number[0], (uint32_t)job->number[1], err);
    case RESIZE:
        return msb_exec_resize(handle, (uint16_t)job->number[0], (uint16_t)job->number[1], err);
    case REATTACH:
        /* An unwanted sink would end the session's input when it is closed. */
        return msb_exec_reattach(handle, job->name, (int64_t)job->number[0], &job->exec,
                                 job->number[1] ? &job->sink : NULL, err);
    case SESSIONS:
        return msb_exec_list(handle, &job->sessions, err);
    case INFO:
        return msb_sandbox_info(handle, &job->sandboxes, err);
    case LIST:
        return msb_sandbox_list(&job->sandboxes, err);
    case DOCTOR:
        return msb_doctor(&job->drivers, &job->walls, err);
    case IMAGES:
        return msb_image_list(&job->images, err);
    case LOGS:
        return msb_log_open(handle, &job->wanted, &job->logs, err);
    case STOP:
        return msb_sandbox_stop(handle, (uint32_t)job->number[0], err);
    case KILL:
        return msb_sandbox_kill(handle, err);
    case REMOVE:
        return msb_sandbox_remove(job->name, (uint32_t)job->number[0], err);
    case ATTACH:
        return msb_attach(handle, &job->attach, &job->code, &job->flags, err);
    case IMAGE_REMOVE:
        return msb_image_remove(job->name, (uint32_t)job->number[0], err);
    case IMAGE_PRUNE:
        return msb_image_prune((uint32_t)job->number[0], &job->freed, err);
    }
    return MSB_E_INTERNAL;
}

static void mailbox_release(struct mailbox *mailbox)
{
    bool last;

    pthread_mutex_lock(&mailbox->lock);
    last = --mailbox->references == 0;
    pthread_mutex_unlock(&mailbox->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&mailbox->lock);
    free(mailbox);
}

/* Frees a job and what it still owns, on any thread. The environment has freed its callback. */
static void job_free(struct job *job)
{
    struct mailbox *mailbox = job->mailbox;

    msb_sandbox_entries_release(&job->sandboxes);
    msb_exec_entries_release(&job->sessions);
    msb_driver_entries_release(&job->drivers);
    msb_wall_entries_release(&job->walls);
    msb_image_entries_release(&job->images);
    if (job->exec)
        msb_handle_close(job->exec);
    if (job->sink)
        msb_handle_close(job->sink);
    if (job->logs)
        msb_handle_close(job->logs);
    lent_release(&job->lent);
    free(job);
    mailbox_release(mailbox);
}

static void post(struct job *job)
{
    struct mailbox *mailbox = job->mailbox;
    bool open;

    job->next = NULL;
    pthread_mutex_lock(&mailbox->lock);
    open = mailbox->async != NULL;
    if (open) {
        *mailbox->last = job;
        mailbox->last = &job->next;
        uv_async_send(mailbox->async);
    }
    pthread_mutex_unlock(&mailbox->lock);
    if (!open)
        job_free(job);
}

static void run(struct job *job)
{
    job->status = call(job);
    post(job);
}

static void *run_one(void *job)
{
    run(job);
    return NULL;
}

static void *run_many(void *unused)
{
    struct job *job;

    (void)unused;
    for (;;) {
        pthread_mutex_lock(&pool.lock);
        job = pool.first;
        if (!job) {
            pool.running--;
            pthread_mutex_unlock(&pool.lock);
            return NULL;
        }
        pool.first = job->next;
        if (!pool.first)
            pool.last = &pool.first;
        pthread_mutex_unlock(&pool.lock);
        run(job);
    }
}

/* Starts a detached thread that blocks all signals, which belong to the program. */
static bool spawn(void *(*start)(void *), void *argument)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;
    bool started;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    started = pthread_create(&thread, &attributes, start, argument) == 0;
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static void job_fail(struct job *job)
{
    job->status = job->err.status = MSB_E_LIMIT;
    job->err.origin = MSB_ORIGIN_HOST;
    snprintf(job->err.message, sizeof job->err.message, "cannot start a thread");
    post(job);
}

static void start(struct job *job)
{
    bool started;

    if (job->kind >= STOP) {
        if (!spawn(run_one, job))
            job_fail(job);
        return;
    }
    pthread_mutex_lock(&pool.lock);
    started = pool.running > 0;
    if (pool.running < POOL_THREADS && spawn(run_many, NULL)) {
        pool.running++; /* it acquires the lock before it checks */
        started = true;
    }
    if (started) {
        job->next = NULL;
        *pool.last = job;
        pool.last = &job->next;
    }
    pthread_mutex_unlock(&pool.lock);
    if (!started)
        job_fail(job);
}

/* ---- the mailbox, on the environment's thread ---- */

static napi_value value_of(napi_env env, struct job *job)
{
    napi_value value = undefined(env);

    switch (job->kind) {
    case REATTACH:
        value = pair(env, cell_value(env, job->exec), cell_value(env, job->sink));
        job->exec = NULL, job->sink = NULL;
        return value;
    case SESSIONS:
        return sessions_value(env, &job->sessions);
    case INFO:
    case LIST:
        return sandboxes_value(env, &job->sandboxes);
    case DOCTOR:
        return host_value(env, &job->drivers, &job->walls);
    case IMAGES:
        return images_value(env, &job->images);
    case LOGS:
        value = cell_value(env, job->logs);
        job->logs = NULL;
        return value;
    case ATTACH:
        return number(env, job->code);
    case IMAGE_PRUNE:
        return number(env, (double)job->freed);
    default:
        return value;
    }
}

static void deliver(napi_env env, struct job *job)
{
    napi_handle_scope scope = NULL;
    napi_value argument[2];

    MUST(napi_open_handle_scope(env, &scope));
    argument[0] = job->status < 0 ? error_value(env, &job->err) : null(env);
    argument[1] = job->status < 0 ? undefined(env) : value_of(env, job);
    call_back(job->mailbox->instance, job->callback, 2, argument);
    MUST(napi_close_handle_scope(env, scope));
    job_free(job);
}

static struct job *mailbox_pop(struct mailbox *mailbox)
{
    struct job *job;

    pthread_mutex_lock(&mailbox->lock);
    job = mailbox->async ? mailbox->first : NULL;
    if (job) {
        mailbox->first = job->next;
        if (!mailbox->first)
            mailbox->last = &mailbox->first;
    }
    pthread_mutex_unlock(&mailbox->lock);
    return job;
}

static void posted(uv_async_t *async)
{
    struct mailbox *mailbox = uv_handle_get_data((uv_handle_t *)async);
    napi_env env = mailbox->instance->env;
    struct job *job;

    /* A callback may end the environment, after which the mailbox is empty. */
    while ((job = mailbox_pop(mailbox)) != NULL)
        deliver(env, job);
}

struct mailbox *mailbox_make(struct instance *instance)
{
    struct mailbox *mailbox = allocate(1, sizeof *mailbox);

    pthread_mutex_init(&mailbox->lock, NULL);
    mailbox->last = &mailbox->first;
    mailbox->instance = instance;
    mailbox->references = 1;
    mailbox->async = loop_handle(instance, UV_ASYNC, mailbox);
    if (uv_async_init(instance->loop, mailbox->async, posted) != 0)
        return NULL; /* the module cannot be loaded, which node reports */
    uv_handle_set_data((uv_handle_t *)mailbox->async, mailbox);
    uv_unref((uv_handle_t *)mailbox->async);
    return mailbox;
}

static void async_closed(uv_handle_t *async)
{
    struct mailbox *mailbox = uv_handle_get_data(async);
    struct instance *instance = mailbox->instance;

    free(async);
    mailbox_release(mailbox);
    loop_handle_closed(instance);
}

void mailbox_close(struct mailbox *mailbox)
{
    uv_async_t *async = mailbox->async;
    struct job *job;

    pthread_mutex_lock(&mailbox->lock);
    mailbox->async = NULL;
    job = mailbox->first;
    mailbox->first = NULL;
    mailbox->last = &mailbox->first;
    pthread_mutex_unlock(&mailbox->lock);
    while (job) {
        struct job *next = job->next;

        job_free(job);
        job = next;
    }
    loop_handle_close(async, async_closed);
}

/* ---- from JavaScript ---- */

static void describe_attach(napi_env env, struct job *job, napi_value from)
{
    napi_value command = NULL;

    job->attach = (msb_attach_options)MSB_ATTACH_OPTIONS_INIT;
    job->attach.session = job->name;
    job->attach.detach_keys = lend(env, &job->lent, from, "detachKeys", NULL);
    if (!has(env, from, "command", &command))
        return;
    job->command = (msb_exec_options)MSB_EXEC_OPTIONS_INIT;
    lend_exec_options(env, &job->lent, command, &job->command);
    job->attach.exec = &job->command;
}

/* Queues a job on a cell or null, with a name or null and two numbers. The callback gets an error
 * or null, and a value. */
static napi_value queue(napi_env env, napi_callback_info info, enum job_kind kind)
{
    struct job *job = allocate(1, sizeof *job);
    napi_value argument[4] = {NULL};
    napi_valuetype type = napi_undefined;
    struct mailbox *mailbox = instance_of(env)->mailbox;

    arguments(env, info, 4, argument);
    job->kind = kind;
    job->mailbox = mailbox;
    job->err = (msb_error)MSB_ERROR_INIT;
    job->sandboxes = (msb_sandbox_entries)MSB_SANDBOX_ENTRIES_INIT;
    job->sessions = (msb_exec_entries)MSB_EXEC_ENTRIES_INIT;
    job->drivers = (msb_driver_entries)MSB_DRIVER_ENTRIES_INIT;
    job->walls = (msb_wall_entries)MSB_WALL_ENTRIES_INIT;
    job->images = (msb_image_entries)MSB_IMAGE_ENTRIES_INIT;
    MUST(napi_typeof(env, argument[0], &type));
    if (type == napi_external)
        job->handle = to_cell(env, argument[0])->handle;
    job->name = lend(env, &job->lent, argument[1], "name", NULL);
    job->number[0] = field(env, argument[1], "first");
    job->number[1] = field(env, argument[1], "second");
    if (kind == ATTACH)
        describe_attach(env, job, argument[1]);
    if (kind == LOGS)
        job->wanted = (msb_log_options){sizeof job->wanted, (uint32_t)job->number[1], job->name,
                                         (int64_t)job->number[0]};
    MUST(napi_create_reference(env, argument[2], 1, &job->callback));
    pthread_mutex_lock(&mailbox->lock);
    mailbox->references++;
    pthread_mutex_unlock(&mailbox->lock);
    start(job);
    return undefined(env);
}

#define JOB(name, kind) \
    static napi_value name(napi_env env, napi_callback_info info) \
    { \
        return queue(env, info, kind); \
    }

JOB(exec_signal, SIGNAL)
JOB(exec_resize, RESIZE)
JOB(exec_reattach, REATTACH)
JOB(exec_list, SESSIONS)
JOB(sandbox_info, INFO)
JOB(sandbox_list, LIST)
JOB(sandbox_stop, STOP)
JOB(sandbox_kill, KILL)
JOB(sandbox_remove, REMOVE)
JOB(doctor, DOCTOR)
JOB(logs_open, LOGS)
JOB(attach, ATTACH)
JOB(image_list, IMAGES)
JOB(image_remove, IMAGE_REMOVE)
JOB(image_prune, IMAGE_PRUNE)

/* hold(whether): whether a job is awaited, which keeps the process alive. */
static napi_value hold(napi_env env, napi_callback_info info)
{
    struct mailbox *mailbox = instance_of(env)->mailbox;
    napi_value argument = NULL;
    bool held = false;

    arguments(env, info, 1, &argument);
    MUST(napi_get_value_bool(env, argument, &held));
    if (mailbox->async)
        (held ? uv_ref : uv_unref)((uv_handle_t *)mailbox->async);
    return undefined(env);
}

const napi_property_descriptor job_functions[] = {
    FUNCTION("execSignal", exec_signal),
    FUNCTION("execResize", exec_resize),
    FUNCTION("execReattach", exec_reattach),
    FUNCTION("execList", exec_list),
    FUNCTION("sandboxInfo", sandbox_info),
    FUNCTION("sandboxList", sandbox_list),
    FUNCTION("sandboxStop", sandbox_stop),
    FUNCTION("sandboxKill", sandbox_kill),
    FUNCTION("sandboxRemove", sandbox_remove),
    FUNCTION("doctor", doctor),
    FUNCTION("logsOpen", logs_open),
    FUNCTION("attach", attach),
    FUNCTION("imageList", image_list),
    FUNCTION("imageRemove", image_remove),
    FUNCTION("imagePrune", image_prune),
    FUNCTION("hold", hold),
};
const size_t job_functions_len = sizeof job_functions / sizeof *job_functions;
